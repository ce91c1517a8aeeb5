//! Packets of PCP (RFC 6887), version 2: the request for a UDP port, the question whether the gateway has started anew, and the
//! answers.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddrV4};

use super::answer::{GatewayAnswer, Says, UNSUPPORTED_VERSION};

pub(super) const VERSION: u8 = 2;
const ANNOUNCE: u8 = 0;
const MAP: u8 = 1;
const IS_ANSWER: u8 = 0x80;
const UDP: u8 = 17;
/// Bytes of the head, which is all that the question has (section 7.1).
const HEAD_LEN: usize = 24;
/// Bytes of a MAP request and of its answer (section 11.1).
const MAP_LEN: usize = 60;
/// The result of a gateway that has no external address at present.
pub(super) const NETWORK_FAILURE: u16 = 7;

/// What the answer to a request repeats.
pub(super) type MapNonce = [u8; 12];

/// A request for `lifetime` seconds, by the host and port inside of `client`. A lifetime of 0 gives the port back.
pub(super) fn request(
    client: SocketAddrV4,
    nonce: &MapNonce,
    suggested: Option<SocketAddrV4>,
    lifetime: u32,
) -> Vec<u8> {
    let suggested = suggested.unwrap_or(SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, 0));
    let mut packet = head(MAP, lifetime, *client.ip());
    packet.extend_from_slice(nonce);
    packet.extend_from_slice(&[UDP, 0, 0, 0]);
    packet.extend_from_slice(&client.port().to_be_bytes());
    packet.extend_from_slice(&suggested.port().to_be_bytes());
    packet.extend_from_slice(&suggested.ip().to_ipv6_mapped().octets());
    packet
}

/// The question when the gateway has started, which changes nothing there (section 14.1).
pub(super) fn question(client: SocketAddrV4) -> Vec<u8> {
    head(ANNOUNCE, 0, *client.ip())
}

fn head(operation: u8, lifetime: u32, client: Ipv4Addr) -> Vec<u8> {
    let mut packet = Vec::with_capacity(MAP_LEN);
    packet.extend_from_slice(&[VERSION, operation, 0, 0]);
    packet.extend_from_slice(&lifetime.to_be_bytes());
    packet.extend_from_slice(&client.to_ipv6_mapped().octets());
    packet
}

/// Reads an answer. Returns `None` if it is none to the request with this nonce for this internal port. Upstream does not look at
/// the nonce, by which the answer of a host that has not seen the request is known.
pub(super) fn read(packet: &[u8], internal: u16, nonce: &MapNonce) -> Option<GatewayAnswer> {
    let (head, map) = packet.split_first_chunk::<HEAD_LEN>()?;
    let [VERSION, operation, _, result, head @ ..] = head else { return None };
    let (lifetime, head) = head.split_first_chunk()?;
    let (epoch, _) = head.split_first_chunk()?;
    let (result, lifetime) = (u16::from(*result), u32::from_be_bytes(*lifetime));
    let answer = |says| Some(GatewayAnswer { epoch: u32::from_be_bytes(*epoch), says });
    // A gateway that does not know the question says since when it does not.
    if *operation == IS_ANSWER | ANNOUNCE {
        return answer(Says::Alive);
    }
    if *operation != IS_ANSWER | MAP || result == UNSUPPORTED_VERSION {
        return None;
    }
    let map = map.first_chunk::<{ MAP_LEN - HEAD_LEN }>()?;
    let (theirs, map) = map.split_first_chunk()?;
    let [UDP, _, _, _, map @ ..] = map else { return None };
    let (port, map) = map.split_first_chunk()?;
    let (external, address) = map.split_first_chunk()?;
    if theirs != nonce || u16::from_be_bytes(*port) != internal {
        return None;
    }
    if result != 0 {
        return answer(Says::Refused { result, lifetime: Some(lifetime) });
    }
    let address = Ipv6Addr::from(*address.first_chunk::<16>()?).to_ipv4_mapped()?;
    let external = SocketAddrV4::new(address, u16::from_be_bytes(*external));
    answer(Says::Granted { external, lifetime })
}

/// The name of a result (section 7.4).
pub(super) const fn result_name(result: u16) -> &'static str {
    match result {
        1 => "UNSUPP_VERSION",
        2 => "NOT_AUTHORIZED",
        3 => "MALFORMED_REQUEST",
        4 => "UNSUPP_OPCODE",
        5 => "UNSUPP_OPTION",
        6 => "MALFORMED_OPTION",
        7 => "NETWORK_FAILURE",
        8 => "NO_RESOURCES",
        9 => "UNSUPP_PROTOCOL",
        10 => "USER_EX_QUOTA",
        11 => "CANNOT_PROVIDE_EXTERNAL",
        12 => "ADDRESS_MISMATCH",
        13 => "EXCESSIVE_REMOTE_PEERS",
        _ => "unknown",
    }
}
