//! What a NAT does, as data.

use std::net::Ipv4Addr;
use std::time::Duration;

/// On what a NAT's choice depends (RFC 4787): which external endpoint a packet gets, or which packets come in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Dependence {
    /// On the internal endpoint only.
    EndpointIndependent,
    /// On the address of the remote as well.
    AddressDependent,
    /// On the address and the port of the remote as well.
    AddressAndPortDependent,
}

/// How a NAT chooses the external port of a new mapping.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Allocator {
    /// The internal port where it is free, and a random one where it is not.
    Preserve,
    /// So much above the port before, from a random start.
    Step(u16),
    /// A random port of the subscriber's block.
    Block {
        /// The first port.
        start: u16,
        /// The number of ports.
        size: u16,
    },
    /// A random port from 1,024 up.
    Random,
}

/// Which of several external addresses a new mapping gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pooling {
    /// Always the same for an internal address.
    Paired,
    /// A random one for each mapping.
    Arbitrary,
    /// One for each pair of an internal and a remote endpoint, as where flows are spread over several NATs. Each address
    /// has mappings of its own.
    PerFlow,
}

/// What a NAT does with a datagram to an external port of its own that no mapping accepts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Early {
    /// Nothing.
    Drop,
    /// It takes the datagram for one to itself and remembers the flow, as Linux does where INPUT accepts. A later flow
    /// from inside that would have the same tuple is moved to another port. Each further early datagram keeps the bad
    /// entry for another 30 s.
    Accept,
}

/// What keeps a mapping alive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refresh {
    /// Packets from inside.
    Outbound,
    /// Packets in either direction.
    Both,
}

/// The UDP that a NAT lets out. Relays are reached over TCP, which passes always.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Egress {
    /// All.
    All,
    /// What goes to this port.
    Port(u16),
    /// None.
    Nothing,
}

/// The protocol in which a NAT is asked for a forwarded port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gateway {
    /// NAT-PMP (RFC 6886) only.
    NatPmp,
    /// PCP (RFC 6887) only.
    Pcp,
    /// Both.
    Both,
    /// Both, and every request for a port is refused.
    Refusing,
    /// Neither: what comes to the port is not answered.
    Silent,
}

/// What a NAT or firewall does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Nat {
    /// Whether addresses are translated. Without, this is a stateful firewall: mapping and allocator do not matter.
    pub translates: bool,
    /// Which external endpoint a packet gets.
    pub mapping: Dependence,
    /// Which packets from outside come in.
    pub filtering: Dependence,
    /// How the external port of a new mapping is chosen.
    pub allocator: Allocator,
    /// The number of external addresses.
    pub addresses: u8,
    /// How the external address of a new mapping is chosen.
    pub pooling: Pooling,
    /// What becomes of unsolicited datagrams.
    pub early: Early,
    /// How long a mapping lives without a packet.
    pub timeout: Duration,
    /// Which packets keep a mapping alive.
    pub refresh: Refresh,
    /// Whether two hosts inside reach each other by their external endpoints.
    pub hairpin: bool,
    /// The UDP that is let out.
    pub egress: Egress,
    /// The most mappings at a time.
    pub quota: usize,
    /// Whether hosts inside can ask for forwarded ports, at port 5351 of the first address inside.
    pub gateway: Option<Gateway>,
    /// The network inside: hosts get the addresses from the second one up. `None` for a network that no other NAT has.
    pub inside: Option<Ipv4Addr>,
}

impl Nat {
    /// The NAT with this mapping, filtering and allocator, and all else as usual in a home router: unsolicited datagrams
    /// dropped, 120 s refreshed in both directions, no hairpinning.
    #[must_use]
    pub const fn new(mapping: Dependence, filtering: Dependence, allocator: Allocator) -> Self {
        Self {
            translates: true,
            mapping,
            filtering,
            allocator,
            addresses: 1,
            pooling: Pooling::Paired,
            early: Early::Drop,
            timeout: Duration::from_secs(120),
            refresh: Refresh::Both,
            hairpin: false,
            egress: Egress::All,
            quota: 60_000,
            gateway: None,
            inside: None,
        }
    }

    /// A stateful firewall that translates nothing.
    #[must_use]
    pub const fn firewall() -> Self {
        let strictest = Dependence::AddressAndPortDependent;
        let nat = Self::new(Dependence::EndpointIndependent, strictest, Allocator::Preserve);
        Self { translates: false, ..nat }
    }
}
