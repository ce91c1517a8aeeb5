//! Headers of the PROXY protocol, by which a proxy of TCP says which client a connection is from.
//!
//! Both versions of [the protocol] are read: version 1 is a line of text, and all that nginx and Apache can send; version 2
//! is binary. The driver gives [`ProxyHeader::parse`] the first bytes of a connection, as many as have come, up to
//! [`PARSED_LEN`] of them. What is behind the addresses of version 2 (TLVs: the name that the client asked for in TLS, and
//! more) is not looked at. The driver passes over it by the length of the header, and never holds it.
//!
//! A header that is not understood is an error, because the address of the client would be missing where limits and rights
//! hang on it. A header that names no client of TCP is none: the proxy's health checks send such headers.
//!
//! [the protocol]: https://www.haproxy.org/download/2.8/doc/proxy-protocol.txt

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// Bytes that decide what a header says, at most: the longest line of version 1 with its end. Of version 2 it takes 52.
pub const PARSED_LEN: usize = 107;

/// The start of a line of version 1.
pub const PROXY_TEXT: &[u8] = b"PROXY ";
/// The start of a header of version 2.
pub const PROXY_SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";
/// Bytes of a header of version 2 before its addresses: the signature, version and command, family and transport, length.
const FIXED_LEN: usize = PROXY_SIGNATURE.len() + 4;

/// What a header says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProxyHeader {
    /// The address of the client. `None` if the connection is the proxy's own (LOCAL), or if the client has no address of TCP
    /// (UNKNOWN, UNSPEC, a Unix socket, datagrams).
    pub client: Option<SocketAddr>,
    /// The bytes of the whole header, at most 65,551. The client's own begin behind them.
    pub len: usize,
}

/// The reason why a connection does not begin with a header that can be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProxyHeaderError {
    /// The first bytes are of no header.
    #[error("it began with something else than a header of the PROXY protocol")]
    Missing,
    /// The line of version 1 breaks its form, or has more than 107 bytes.
    #[error("the header is no line of version 1 of the PROXY protocol")]
    Line,
    /// The binary header is of another version than 2.
    #[error("the header is of version {0} of the PROXY protocol, and the relay reads 1 and 2")]
    Version(u8),
    /// The command is neither LOCAL nor PROXY.
    #[error("the header has the unknown command {0}")]
    Command(u8),
    /// The protocol has no such family or transport.
    #[error("the header has the unknown family and transport {0:#04x}")]
    Family(u8),
    /// The header is shorter than the addresses that it announces.
    #[error("the header has {0} bytes for addresses, which is too short")]
    Length(usize),
}

impl ProxyHeader {
    /// Reads the header at the start of a connection. Returns `None` while more bytes are needed, which is never so with
    /// [`PARSED_LEN`] of them.
    ///
    /// # Errors
    ///
    /// [`ProxyHeaderError`], as soon as the bytes can become no header.
    pub fn parse(start: &[u8]) -> Result<Option<Self>, ProxyHeaderError> {
        if begins(start, PROXY_TEXT) {
            parse_line(&start[..start.len().min(PARSED_LEN)])
        } else if begins(start, PROXY_SIGNATURE) {
            parse_binary(start)
        } else {
            Err(ProxyHeaderError::Missing)
        }
    }
}

/// Whether `start` begins with `mark`, or is the beginning of it.
fn begins(start: &[u8], mark: &[u8]) -> bool {
    start.iter().zip(mark).all(|(byte, marked)| byte == marked)
}

fn parse_line(start: &[u8]) -> Result<Option<ProxyHeader>, ProxyHeaderError> {
    let Some(end) = start.windows(2).position(|pair| pair == b"\r\n") else {
        return if start.len() < PARSED_LEN { Ok(None) } else { Err(ProxyHeaderError::Line) };
    };
    let words = start.get(PROXY_TEXT.len()..end).ok_or(ProxyHeaderError::Line)?;
    let client =
        if words == b"UNKNOWN" || words.starts_with(b"UNKNOWN ") { None } else { Some(source_in(words)?) };
    Ok(Some(ProxyHeader { client, len: end + 2 }))
}

/// The source in the words of a line: family, source, destination, and the port of each, with one space between.
fn source_in(words: &[u8]) -> Result<SocketAddr, ProxyHeaderError> {
    let words: Vec<_> = str::from_utf8(words).unwrap_or_default().split(' ').collect();
    let address = |text: &str, is_v4: bool| {
        if is_v4 {
            text.parse::<Ipv4Addr>().map(IpAddr::from).ok()
        } else {
            text.parse::<Ipv6Addr>().map(IpAddr::from).ok()
        }
    };
    let read = || {
        let &[family, source, destination, source_port, destination_port] = &words[..] else { return None };
        let is_v4 = match family {
            "TCP4" => true,
            "TCP6" => false,
            _ => return None,
        };
        let source = address(source, is_v4)?;
        address(destination, is_v4).and(port(destination_port))?;
        Some(SocketAddr::new(source, port(source_port)?))
    };
    read().ok_or(ProxyHeaderError::Line)
}

/// A port as the line has it: digits, the first of them no 0 unless it is alone.
fn port(text: &str) -> Option<u16> {
    let is_plain = text.bytes().all(|byte| byte.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
    text.parse().ok().filter(|_| is_plain)
}

fn parse_binary(start: &[u8]) -> Result<Option<ProxyHeader>, ProxyHeaderError> {
    let Some(&fixed) = start.first_chunk::<FIXED_LEN>() else { return Ok(None) };
    let [.., version_and_command, family, length_0, length_1] = fixed;
    let length = usize::from(u16::from_be_bytes([length_0, length_1]));
    let unnamed = ProxyHeader { client: None, len: FIXED_LEN + length };
    match (version_and_command >> 4, version_and_command & 0xf) {
        // LOCAL, whose addresses, and their family, say nothing.
        (2, 0) => return Ok(Some(unnamed)),
        (2, 1) => {}
        (2, command) => return Err(ProxyHeaderError::Command(command)),
        (version, _) => return Err(ProxyHeaderError::Version(version)),
    }
    let addresses = &start[FIXED_LEN..];
    let client = match family {
        0x11 => source_of(addresses, length, |address: [u8; 4]| Ipv4Addr::from(address).into()),
        0x21 => source_of(addresses, length, |address: [u8; 16]| Ipv6Addr::from(address).into()),
        // Of no family, of Unix sockets, or no stream.
        _ if family >> 4 <= 3 && family & 0xf <= 2 => return Ok(Some(unnamed)),
        _ => return Err(ProxyHeaderError::Family(family)),
    };
    Ok(client?.map(|client| ProxyHeader { client: Some(client), ..unnamed }))
}

/// The source in the addresses of version 2, of which the header has `length` bytes: source, destination, and the port of each.
fn source_of<const N: usize>(
    addresses: &[u8],
    length: usize,
    ip: impl Fn([u8; N]) -> IpAddr,
) -> Result<Option<SocketAddr>, ProxyHeaderError> {
    let needed = 2 * N + 4;
    if length < needed {
        return Err(ProxyHeaderError::Length(length));
    }
    let Some(addresses) = addresses.get(..needed) else { return Ok(None) };
    let source = addresses.first_chunk::<N>();
    let port = addresses[2 * N..].first_chunk::<2>();
    Ok(source.zip(port).map(|(&source, &port)| SocketAddr::new(ip(source), u16::from_be_bytes(port))))
}

#[cfg(test)]
mod tests {
    use std::fmt::Write;

    use proptest::prelude::*;

    use super::*;

    const V4: [u8; 12] = [192, 0, 2, 1, 198, 51, 100, 1, 0x9c, 0x40, 0x01, 0xbb];

    fn binary(command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
        let length = u16::try_from(rest.len()).expect("a length that a header can have").to_be_bytes();
        [PROXY_SIGNATURE, &[command, family], &length, rest].concat()
    }

    fn address(text: &str) -> SocketAddr {
        text.parse().expect("an address")
    }

    /// Reads a header that is whole, and checks that nothing less is.
    #[track_caller]
    fn client(header: &[u8]) -> Option<SocketAddr> {
        let parsed = ProxyHeader::parse(header).expect("a header").expect("a whole one");
        assert_eq!(parsed.len, header.len());
        let behind = [header, &[0x16, 3, 1]].concat();
        assert_eq!(ProxyHeader::parse(&behind), Ok(Some(parsed)), "what is behind it is the client's");
        for cut in 0..header.len() {
            let of_start = ProxyHeader::parse(&header[..cut]).expect("the start of a header is no error");
            assert!(of_start.is_none_or(|whole| whole == parsed), "{cut}: {of_start:?}");
        }
        parsed.client
    }

    #[test]
    fn both_versions_name_the_client() {
        let v6 = [&[0x20, 1, 0xd, 0xb8][..], &[0; 11], &[1], &[0xfe; 16], &[0, 7, 1, 0xbb]].concat();
        for (header, expected) in [
            (binary(0x21, 0x11, &V4), "192.0.2.1:40000"),
            (binary(0x21, 0x21, &v6), "[2001:db8::1]:7"),
            (b"PROXY TCP4 192.0.2.1 198.51.100.1 40000 443\r\n".to_vec(), "192.0.2.1:40000"),
            (b"PROXY TCP4 255.255.255.255 255.255.255.255 65535 0\r\n".to_vec(), "255.255.255.255:65535"),
            (b"PROXY TCP6 2001:db8::1 ::1 7 443\r\n".to_vec(), "[2001:db8::1]:7"),
        ] {
            assert_eq!(client(&header), Some(address(expected)));
        }
    }

    #[test]
    fn a_connection_of_the_proxy_itself_names_none() {
        for header in [
            binary(0x20, 0, &[]),
            // Whatever it says of addresses.
            binary(0x20, 0x11, &V4),
            binary(0x20, 0xff, &[]),
            binary(0x21, 0, &[]),
            binary(0x21, 0x01, &[1, 2, 3]),
            binary(0x21, 0x12, &V4),
            binary(0x21, 0x22, &[]),
            binary(0x21, 0x31, &[0; 216]),
            b"PROXY UNKNOWN\r\n".to_vec(),
            b"PROXY UNKNOWN ffff::1 whatever it is\r\n".to_vec(),
        ] {
            assert_eq!(client(&header), None, "{header:?}");
        }
    }

    /// They are passed over by the length, and are not needed to read the rest.
    #[test]
    fn what_is_behind_the_addresses_is_not_looked_at() {
        for tlvs in [&[0xee, 0, 1, 7][..], &[1, 0xff, 0xff], &[0; 65_523]] {
            let header = binary(0x21, 0x11, &[&V4, tlvs].concat());
            assert_eq!(client(&header), Some(address("192.0.2.1:40000")));
            let start = ProxyHeader::parse(&header[..FIXED_LEN + V4.len()]).expect("a header");
            assert_eq!(start.map(|header| header.len), Some(header.len()));
        }
    }

    #[test]
    fn what_is_no_header_is_refused_with_its_reason() {
        use ProxyHeaderError::{Command, Family, Length, Line, Missing, Version};
        for (start, expected) in [
            (&b"\x16\x03\x01"[..], Missing),
            (b"GET / HTTP/1.1\r\n", Missing),
            (b"PROXX", Missing),
            (b"\r\n\r\nG", Missing),
            (&binary(0x11, 0x11, &V4), Version(1)),
            (&binary(0x31, 0x11, &V4), Version(3)),
            (&binary(0x22, 0x11, &V4), Command(2)),
            (&binary(0x2f, 0x11, &V4), Command(15)),
            (&binary(0x21, 0x41, &V4), Family(0x41)),
            (&binary(0x21, 0x13, &V4), Family(0x13)),
            (&binary(0x21, 0x11, &V4[..11]), Length(11)),
            (&binary(0x21, 0x21, &V4), Length(12)),
            (b"PROXY TCP4 192.0.2.1 198.51.100.1 40000\r\n", Line),
            (b"PROXY TCP4 192.0.2.1 198.51.100.1 40000 443 1\r\n", Line),
            (b"PROXY TCP4 192.0.2.1  198.51.100.1 40000 443\r\n", Line),
            (b"PROXY  TCP4 192.0.2.1 198.51.100.1 40000 443\r\n", Line),
            (b"PROXY TCP4 192.0.2.1 198.51.100.1 65536 443\r\n", Line),
            (b"PROXY TCP4 192.0.2.1 198.51.100.1 +1 443\r\n", Line),
            (b"PROXY TCP4 192.0.2.1 198.51.100.1 01 443\r\n", Line),
            (b"PROXY TCP4 192.0.2.1 198.51.100.1 1 -443\r\n", Line),
            (b"PROXY TCP4 2001:db8::1 198.51.100.1 1 443\r\n", Line),
            (b"PROXY TCP4 192.0.2.1 2001:db8::1 1 443\r\n", Line),
            (b"PROXY TCP6 192.0.2.1 198.51.100.1 1 443\r\n", Line),
            (b"PROXY UDP4 192.0.2.1 198.51.100.1 1 443\r\n", Line),
            (b"PROXY UNKNOWNS\r\n", Line),
            (b"PROXY \r\n", Line),
            (b"PROXY TCP4 \xff 198.51.100.1 1 443\r\n", Line),
            (&[&b"PROXY UNKNOWN "[..], &[b'x'; 93]].concat(), Line),
            (&[&b"PROXY UNKNOWN "[..], &[b'x'; 92], b"\r\n"].concat(), Line),
        ] {
            assert_eq!(ProxyHeader::parse(start), Err(expected), "{start:?}");
        }
        let longest = [&b"PROXY UNKNOWN "[..], &[b'x'; 91], b"\r\n"].concat();
        assert_eq!((longest.len(), client(&longest)), (PARSED_LEN, None));
    }

    /// What the crate `ppp` reads of the bytes: `None` if no header begins them, `Some(None)` if it names no client of TCP.
    fn oracle(bytes: &[u8]) -> Option<Option<SocketAddr>> {
        match ppp::HeaderResult::parse(bytes) {
            ppp::HeaderResult::V1(read) => Some(match read.ok()?.addresses {
                ppp::v1::Addresses::Tcp4(tcp) => Some((tcp.source_address, tcp.source_port).into()),
                ppp::v1::Addresses::Tcp6(tcp) => Some((tcp.source_address, tcp.source_port).into()),
                ppp::v1::Addresses::Unknown => None,
            }),
            ppp::HeaderResult::V2(read) => {
                let header = read.ok()?;
                let is_client =
                    header.command == ppp::v2::Command::Proxy && header.protocol == ppp::v2::Protocol::Stream;
                Some(match header.addresses {
                    ppp::v2::Addresses::IPv4(ip) if is_client => {
                        Some((ip.source_address, ip.source_port).into())
                    }
                    ppp::v2::Addresses::IPv6(ip) if is_client => {
                        Some((ip.source_address, ip.source_port).into())
                    }
                    _ => None,
                })
            }
        }
    }

    /// Compares a reading with that of the crate, which wants all of a header and has no other rule than ours but these: it
    /// looks at the addresses of LOCAL and of Unix sockets, and takes ports that are written with a sign or zeros.
    fn agree(bytes: &[u8]) {
        let ours = ProxyHeader::parse(bytes);
        let theirs = oracle(bytes);
        match ours {
            Ok(Some(header)) if bytes.len() >= header.len => {
                assert!(theirs == Some(header.client) || header.client.is_none(), "{bytes:?}: {theirs:?}");
            }
            Ok(_) => assert_eq!(theirs, None, "{bytes:?}"),
            Err(ProxyHeaderError::Line) => {}
            Err(_) => assert_eq!(theirs, None, "{bytes:?}: {ours:?}"),
        }
    }

    /// A header as a proxy writes it, of either version.
    fn header() -> impl Strategy<Value = (Vec<u8>, Option<SocketAddr>)> {
        let ends = (any::<IpAddr>(), any::<u16>(), any::<u16>(), any::<bool>());
        (ends, proptest::collection::vec(any::<u8>(), 0..40)).prop_map(
            |((source, port, other_port, is_text), tlvs)| {
                let client = SocketAddr::new(source, port);
                if is_text {
                    let family = if source.is_ipv4() { "TCP4" } else { "TCP6" };
                    let mut line = String::new();
                    write!(line, "PROXY {family} {source} {source} {port} {other_port}\r\n").expect("a line");
                    return (line.into_bytes(), Some(client));
                }
                let (family, ip) = match source {
                    IpAddr::V4(ip) => (0x11, ip.octets().to_vec()),
                    IpAddr::V6(ip) => (0x21, ip.octets().to_vec()),
                };
                let ports = [port.to_be_bytes(), other_port.to_be_bytes()].concat();
                (binary(0x21, family, &[&ip[..], &ip, &ports, &tlvs].concat()), Some(client))
            },
        )
    }

    proptest! {
        #[test]
        fn headers_of_proxies_are_read_as_another_reader_reads_them((bytes, expected) in header()) {
            prop_assert_eq!(client(&bytes), expected);
            agree(&bytes);
        }

        #[test]
        fn changed_and_cut_headers_are_read_as_another_reader_reads_them(
            (mut bytes, _) in header(),
            changes in proptest::collection::vec((any::<proptest::sample::Index>(), any::<u8>()), 0..3),
            cut in any::<proptest::sample::Index>(),
        ) {
            for (at, byte) in changes {
                let at = at.index(bytes.len());
                bytes[at] = byte;
            }
            agree(&bytes);
            agree(&bytes[..cut.index(bytes.len() + 1)]);
        }

        #[test]
        fn any_bytes_behind_a_signature_are_read_as_another_reader_reads_them(
            rest in proptest::collection::vec(any::<u8>(), 0..64),
            is_text in any::<bool>(),
        ) {
            let mark = if is_text { PROXY_TEXT } else { PROXY_SIGNATURE };
            agree(&[mark, &rest].concat());
            agree(&rest);
        }
    }
}
