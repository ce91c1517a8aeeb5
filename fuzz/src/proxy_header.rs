//! Headers of the PROXY protocol: the result does not hang on how many bytes have come, and a second reading agrees.

use std::net::{IpAddr, SocketAddr};

use towpath_relay_proto::proxy_header::{PARSED_LEN, ProxyHeader};

/// Reads the start of a connection, longer and longer.
pub(crate) fn read(input: &[u8]) {
    let whole = ProxyHeader::parse(input);
    if input.len() >= PARSED_LEN {
        assert_ne!(whole, Ok(None), "so many bytes decide");
    }
    for cut in 0..input.len() {
        match ProxyHeader::parse(&input[..cut]) {
            Ok(None) => {}
            decided => assert_eq!(decided, whole, "{cut} bytes decided"),
        }
    }
    if let Ok(Some(ProxyHeader { client: Some(client), len })) = whole {
        assert_eq!(Some((client, len)), slowly(input));
    }
}

/// A header that names a client, read by its rules one by one.
fn slowly(input: &[u8]) -> Option<(SocketAddr, usize)> {
    if input.starts_with(b"PROXY ") {
        let end = (0..input.len() - 1).find(|&at| input[at..].starts_with(b"\r\n"))?;
        let line = std::str::from_utf8(&input[..end]).ok()?;
        let mut words = line.split(' ').skip(1);
        let (family, source) = (words.next()?, words.next()?.parse::<IpAddr>().ok()?);
        assert_eq!(source.is_ipv4(), family == "TCP4");
        assert!(end + 2 <= PARSED_LEN);
        return Some((SocketAddr::new(source, words.nth(1)?.parse().ok()?), end + 2));
    }
    let (&[_, _, high, low], rest) = input.strip_prefix(b"\r\n\r\n\0\r\nQUIT\n")?.split_first_chunk()?;
    let length = usize::from(high) * 256 + usize::from(low);
    let (ip, ports) = match input[13] {
        0x11 => (IpAddr::from(*rest.first_chunk::<4>()?), &rest[8..]),
        0x21 => (IpAddr::from(*rest.first_chunk::<16>()?), &rest[32..]),
        _ => return None,
    };
    assert_eq!(input[12], 0x21);
    Some((SocketAddr::new(ip, u16::from_be_bytes(*ports.first_chunk()?)), 16 + length))
}
