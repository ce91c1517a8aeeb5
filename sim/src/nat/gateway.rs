//! The gateway of a NAT: forwarded ports for those that ask, by NAT-PMP and PCP. IPv4 only.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use towpath_wire::time::Instant;

use super::model::Gateway;
use super::table::Table;

/// The port that gateways listen on.
pub(crate) const GATEWAY_PORT: u16 = 5351;

/// The longest time for which a port is forwarded.
const LONGEST: u32 = 7200;

/// The UDP of PCP's protocol numbers.
const UDP: u8 = 17;

/// The answer of a gateway to a datagram from inside, if it deserves one.
pub(crate) fn answer(table: &mut Table, now: Instant, client: SocketAddr, request: &[u8]) -> Option<Vec<u8>> {
    let gateway = table.nat.gateway?;
    match *request.first()? {
        _ if gateway == Gateway::Silent => None,
        0 if gateway != Gateway::Pcp => nat_pmp(table, now, client, request),
        2 if gateway != Gateway::NatPmp => pcp(table, now, client, request),
        // A gateway that speaks only the other protocol says so in that one.
        _ if gateway == Gateway::NatPmp => Some(pmp_head(0, PmpResult::UnsupportedVersion, table.age(now))),
        _ => Some(pcp_head(request, PcpResult::UnsupportedVersion, 0, table.age(now))),
    }
}

#[derive(Clone, Copy)]
enum PmpResult {
    Success = 0,
    UnsupportedVersion = 1,
    NotAuthorized = 2,
    NetworkFailure = 3,
    OutOfResources = 4,
    UnsupportedOpcode = 5,
}

/// The head of an answer of NAT-PMP: version 0, the operation with 128 added, result, seconds since the start.
fn pmp_head(operation: u8, result: PmpResult, age: u32) -> Vec<u8> {
    let mut answer = vec![0, 128 | operation, 0, result as u8];
    answer.extend_from_slice(&age.to_be_bytes());
    answer
}

fn nat_pmp(table: &mut Table, now: Instant, client: SocketAddr, request: &[u8]) -> Option<Vec<u8>> {
    let (operation, age) = (*request.get(1)?, table.age(now));
    let external = table.addresses.first().and_then(as_v4);
    let Some(external) = external else { return Some(pmp_head(operation, PmpResult::NetworkFailure, age)) };
    match (operation, request.len()) {
        (0, 2) => {
            let mut answer = pmp_head(0, PmpResult::Success, age);
            answer.extend_from_slice(&external.octets());
            Some(answer)
        }
        (1, 12) if table.nat.gateway == Some(Gateway::Refusing) => {
            Some(pmp_head(1, PmpResult::NotAuthorized, age))
        }
        (1, 12) => {
            let (internal, wanted) = (short(request, 4)?, short(request, 6)?);
            let lifetime = long(request, 8)?.min(LONGEST);
            let inner = SocketAddr::new(client.ip(), internal);
            let Some(outer) = table.lease(now, inner, wanted, Duration::from_secs(lifetime.into())) else {
                return Some(pmp_head(1, PmpResult::OutOfResources, age));
            };
            let mut answer = pmp_head(1, PmpResult::Success, age);
            answer.extend_from_slice(&internal.to_be_bytes());
            // A port that was given back is named 0.
            let port = if lifetime == 0 { 0 } else { outer.port() };
            answer.extend_from_slice(&port.to_be_bytes());
            answer.extend_from_slice(&lifetime.to_be_bytes());
            Some(answer)
        }
        (0 | 1, _) => None,
        _ => Some(pmp_head(operation, PmpResult::UnsupportedOpcode, age)),
    }
}

#[derive(Clone, Copy)]
enum PcpResult {
    Success = 0,
    UnsupportedVersion = 1,
    NotAuthorized = 2,
    MalformedRequest = 3,
    UnsupportedOpcode = 4,
    NoResources = 8,
    UnsupportedProtocol = 9,
    AddressMismatch = 12,
}

/// The head of an answer of PCP: version 2, the operation with 128 added, result, lifetime, seconds since the start.
fn pcp_head(request: &[u8], result: PcpResult, lifetime: u32, age: u32) -> Vec<u8> {
    let operation = request.get(1).copied().unwrap_or(0);
    let mut answer = vec![2, 128 | operation, 0, result as u8];
    answer.extend_from_slice(&lifetime.to_be_bytes());
    answer.extend_from_slice(&age.to_be_bytes());
    answer.resize(24, 0);
    answer
}

fn pcp(table: &mut Table, now: Instant, client: SocketAddr, request: &[u8]) -> Option<Vec<u8>> {
    let age = table.age(now);
    // What follows the head is that of the request (section 11.1 of RFC 6887).
    let refuse = |result| {
        let head = pcp_head(request, result, 30, age);
        Some([&head, request.get(24..).unwrap_or_default()].concat())
    };
    let operation = *request.get(1)?;
    if operation & 128 != 0 {
        return None;
    }
    if request.len() < 24 || !request.len().is_multiple_of(4) {
        return refuse(PcpResult::MalformedRequest);
    }
    if mapped(client.ip()) != request[8..24] {
        return refuse(PcpResult::AddressMismatch);
    }
    match operation {
        0 => return Some(pcp_head(request, PcpResult::Success, 0, age)),
        1 if request.len() >= 60 => {}
        1 => return refuse(PcpResult::MalformedRequest),
        _ => return refuse(PcpResult::UnsupportedOpcode),
    }
    if request[36] != UDP {
        return refuse(PcpResult::UnsupportedProtocol);
    }
    if table.nat.gateway == Some(Gateway::Refusing) {
        return refuse(PcpResult::NotAuthorized);
    }
    let lifetime = long(request, 4)?.min(LONGEST);
    let inner = SocketAddr::new(client.ip(), short(request, 40)?);
    let wanted = short(request, 42)?;
    let Some(outer) = table.lease(now, inner, wanted, Duration::from_secs(lifetime.into())) else {
        return refuse(PcpResult::NoResources);
    };
    let mut answer = pcp_head(request, PcpResult::Success, lifetime, age);
    // The nonce, the protocol and the internal port.
    answer.extend_from_slice(&request[24..42]);
    answer.extend_from_slice(&outer.port().to_be_bytes());
    answer.extend_from_slice(&mapped(outer.ip()));
    Some(answer)
}

const fn as_v4(address: &IpAddr) -> Option<Ipv4Addr> {
    match address {
        IpAddr::V4(ip) => Some(*ip),
        IpAddr::V6(_) => None,
    }
}

/// An address as PCP writes it.
const fn mapped(address: IpAddr) -> [u8; 16] {
    match address {
        IpAddr::V4(ip) => ip.to_ipv6_mapped().octets(),
        IpAddr::V6(ip) => ip.octets(),
    }
}

fn short(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes(*bytes.get(at..)?.first_chunk()?))
}

fn long(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_be_bytes(*bytes.get(at..)?.first_chunk()?))
}
