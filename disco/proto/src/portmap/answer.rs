//! What a gateway says, in either protocol.

use std::net::{Ipv4Addr, SocketAddrV4};

/// The result of a gateway that speaks another version, or the other protocol. It is the same in both.
pub(super) const UNSUPPORTED_VERSION: u16 = 1;

/// An answer of a gateway.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct GatewayAnswer {
    /// Seconds since the gateway has started, or has lost its mappings.
    pub(super) epoch: u32,
    pub(super) says: Says,
}

/// What a gateway says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Says {
    /// Nothing but its epoch.
    Alive,
    /// Its external address (NAT-PMP).
    Address(Ipv4Addr),
    /// The port that it forwards, for so many seconds (NAT-PMP).
    Port { external: u16, lifetime: u32 },
    /// What it forwards, for so many seconds (PCP).
    Granted { external: SocketAddrV4, lifetime: u32 },
    /// The refusal of a gateway; with PCP, for how many seconds it holds.
    Refused { result: u16, lifetime: Option<u32> },
}
