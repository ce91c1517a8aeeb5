//! Packets of NAT-PMP (RFC 6886): the question for the external address, the request for a UDP port, and the answers.

use std::net::Ipv4Addr;

use super::answer::{GatewayAnswer, Says};

pub(super) const VERSION: u8 = 0;
const ADDRESS: u8 = 0;
const MAP_UDP: u8 = 1;
const IS_ANSWER: u8 = 0x80;
/// The result of a gateway that has no external address at present.
pub(super) const NETWORK_FAILURE: u16 = 3;

/// The question for the external address (section 3.2), to which the answer says as well when the gateway has started.
pub(super) fn question() -> Vec<u8> {
    vec![VERSION, ADDRESS]
}

/// A request for a port for `lifetime` seconds (section 3.3). A lifetime of 0 gives the port back.
pub(super) fn request(internal: u16, suggested: u16, lifetime: u32) -> Vec<u8> {
    let mut packet = vec![VERSION, MAP_UDP, 0, 0];
    packet.extend_from_slice(&internal.to_be_bytes());
    packet.extend_from_slice(&suggested.to_be_bytes());
    packet.extend_from_slice(&lifetime.to_be_bytes());
    packet
}

/// Reads an answer. Returns `None` if it is none to a question or to a request for this internal port.
pub(super) fn read(packet: &[u8], internal: u16) -> Option<GatewayAnswer> {
    let (head, rest) = packet.split_first_chunk::<4>()?;
    let [VERSION, operation, result @ ..] = head else { return None };
    let (epoch, rest) = rest.split_first_chunk()?;
    let answer = |says| Some(GatewayAnswer { epoch: u32::from_be_bytes(*epoch), says });
    let operation = operation.checked_sub(IS_ANSWER).filter(|operation| *operation <= MAP_UDP)?;
    let result = u16::from_be_bytes(*result);
    if result != 0 {
        return answer(Says::Refused { result, lifetime: None });
    }
    let (first, rest) = rest.split_first_chunk::<4>()?;
    if operation == ADDRESS {
        return answer(Says::Address(Ipv4Addr::from(*first)));
    }
    let lifetime = u32::from_be_bytes(*rest.first_chunk()?);
    let [port, external] = [[first[0], first[1]], [first[2], first[3]]].map(u16::from_be_bytes);
    if port == internal { answer(Says::Port { external, lifetime }) } else { None }
}

/// The name of a result (section 3.5).
pub(super) const fn result_name(result: u16) -> &'static str {
    match result {
        1 => "unsupported version",
        2 => "not authorized",
        3 => "network failure",
        4 => "out of resources",
        5 => "unsupported opcode",
        _ => "unknown",
    }
}
