//! What happened, in order: a hash that two runs are compared by, and the list itself where it is asked for.

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use towpath_disco::datagram::Region;
use towpath_wire::time::Instant;

use crate::id::{FlowId, HostId};

/// Why a datagram went no further.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Dropped {
    /// The host has no address of the family of the destination.
    NoAddress,
    /// Nothing has the destination address.
    NoRoute,
    /// The host that has the destination address does not listen on the port.
    NoSocket,
    /// Its hops were used up.
    Ttl,
    /// It is larger than the MTU of the link.
    TooLarge,
    /// The link lost it.
    Lost,
    /// The link is blocked.
    Blocked,
    /// The queue in front of the link's rate was full.
    QueueFull,
    /// The NAT lets no UDP out to this port, or none at all.
    Egress,
    /// The NAT had no port left.
    NoPort,
    /// The NAT has no mapping for the destination.
    NoMapping,
    /// The NAT has a mapping, and its filter refused the source.
    Filtered,
    /// The destination is an address of the sender's own NAT, which does no hairpinning.
    Hairpin,
    /// The host is suspended.
    Suspended,
}

/// One thing that happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Happening {
    /// A host sent a datagram.
    Sent {
        /// The sender.
        host: HostId,
        /// The address to which it went.
        dst: SocketAddr,
        /// Its length in bytes.
        len: usize,
        /// Its hops.
        ttl: u8,
    },
    /// A datagram is on its way over the internet.
    Flies {
        /// The source address behind all NATs of the sender.
        src: SocketAddr,
        /// The destination.
        dst: SocketAddr,
        /// When it arrives.
        at: Instant,
    },
    /// A host got a datagram.
    Heard {
        /// The receiver.
        host: HostId,
        /// The source address as the receiver sees it.
        src: SocketAddr,
        /// Its length in bytes.
        len: usize,
    },
    /// A datagram went no further.
    Dropped {
        /// The source address at that point.
        src: SocketAddr,
        /// The destination address at that point.
        dst: SocketAddr,
        /// The reason.
        why: Dropped,
    },
    /// A STUN server told a client its address.
    Answered {
        /// The client's address as the server sees it.
        client: SocketAddr,
    },
    /// A host sent a packet over a relay.
    RelaySent {
        /// The sender.
        host: HostId,
        /// The region of the relay.
        region: Region,
        /// Its length in bytes.
        len: usize,
    },
    /// A host got a packet over a relay.
    RelayHeard {
        /// The receiver.
        host: HostId,
        /// The region of the relay.
        region: Region,
        /// Its length in bytes.
        len: usize,
    },
    /// A host pinged a relay.
    RelayPing {
        /// The host.
        host: HostId,
        /// The region of the relay.
        region: Region,
    },
    /// A host has measured the round trip to a relay.
    RelayMeasured {
        /// The host.
        host: HostId,
        /// The region of the relay.
        region: Region,
    },
    /// A relay told a host that a peer is not connected to it.
    PeerGone {
        /// The host that is told.
        host: HostId,
        /// The region of the relay.
        region: Region,
    },
    /// A packet for or from a relay went no further: the link or the relay was gone.
    RelayLost {
        /// The host at the other end of the link.
        host: HostId,
        /// The region of the relay.
        region: Region,
    },
    /// A host's link to a relay went up or down.
    RelayLink {
        /// The host.
        host: HostId,
        /// The region of the relay.
        region: Region,
        /// Whether the link is up.
        up: bool,
    },
    /// A host's addresses changed.
    Interfaces {
        /// The host.
        host: HostId,
        /// How many it has.
        count: usize,
    },
    /// A host's timer fired.
    Timeout {
        /// The host.
        host: HostId,
    },
    /// The application of a host sent a packet.
    Application {
        /// The flow.
        flow: FlowId,
        /// The number of the packet in the flow.
        seq: u64,
    },
    /// The application of a host was handed a packet.
    Delivered {
        /// The flow.
        flow: FlowId,
        /// The number of the packet in the flow.
        seq: u64,
        /// Whether the application had it already.
        double: bool,
    },
    /// The test's action with this number in the script was carried out.
    Acted {
        /// The number.
        action: usize,
    },
}

impl fmt::Display for Happening {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sent { host, dst, len, ttl } => write!(f, "{host} sends {len} bytes to {dst} (ttl {ttl})"),
            Self::Flies { src, dst, at } => {
                write!(f, "  {src} -> {dst}, there at {:.3} ms", millis(*at))
            }
            Self::Heard { host, src, len } => write!(f, "{host} hears {len} bytes from {src}"),
            Self::Dropped { src, dst, why } => write!(f, "  {src} -> {dst} dropped: {why:?}"),
            Self::Answered { client } => write!(f, "STUN answers {client}"),
            Self::RelaySent { host, region, len } => {
                write!(f, "{host} sends {len} bytes over relay {}", region.0)
            }
            Self::RelayHeard { host, region, len } => {
                write!(f, "{host} hears {len} bytes over relay {}", region.0)
            }
            Self::RelayPing { host, region } => write!(f, "{host} pings relay {}", region.0),
            Self::RelayMeasured { host, region } => write!(f, "{host} has measured relay {}", region.0),
            Self::PeerGone { host, region } => {
                write!(f, "{host} hears from relay {} that the peer is gone", region.0)
            }
            Self::RelayLost { host, region } => {
                write!(f, "  a packet between {host} and relay {} dropped", region.0)
            }
            Self::RelayLink { host, region, up } => {
                write!(f, "{host}: relay {} is {}", region.0, if *up { "up" } else { "down" })
            }
            Self::Interfaces { host, count } => write!(f, "{host} has {count} addresses"),
            Self::Timeout { host } => write!(f, "{host}: timeout"),
            Self::Application { flow, seq } => write!(f, "{flow}: packet {seq} sent"),
            Self::Delivered { flow, seq, double } => {
                write!(f, "{flow}: packet {seq} delivered{}", if *double { " again" } else { "" })
            }
            Self::Acted { action } => write!(f, "action {action} of the script"),
        }
    }
}

/// Milliseconds since the start, for printing.
pub(crate) fn millis(at: Instant) -> f64 {
    at.since(Instant::ZERO).as_secs_f64() * 1e3
}

/// The record of a run.
#[derive(Debug, Default)]
pub(crate) struct Trace {
    hash: u64,
    events: u64,
    lines: Option<Vec<(Instant, Happening)>>,
}

impl Trace {
    pub(crate) fn note(&mut self, at: Instant, what: Happening) {
        self.events += 1;
        self.mix(at.as_nanos());
        self.mix_happening(&what);
        if let Some(lines) = &mut self.lines {
            lines.push((at, what));
        }
    }

    /// From now on keeps what happens.
    pub(crate) fn keep(&mut self) {
        self.lines.get_or_insert_default();
    }

    pub(crate) fn lines(&self) -> &[(Instant, Happening)] {
        self.lines.as_deref().unwrap_or_default()
    }

    pub(crate) const fn hash(&self) -> u64 {
        self.hash
    }

    pub(crate) const fn events(&self) -> u64 {
        self.events
    }

    /// The multiplication of FxHash: a word at a time, and each word changes all that follow.
    const fn mix(&mut self, word: u64) {
        self.hash = (self.hash.rotate_left(5) ^ word).wrapping_mul(0x517c_c1b7_2722_0a95);
    }

    fn mix_address(&mut self, address: SocketAddr) {
        match address.ip() {
            IpAddr::V4(ip) => self.mix(u64::from(ip.to_bits()) << 16 | u64::from(address.port())),
            IpAddr::V6(ip) => {
                let [high, low] = [ip.to_bits() >> 64, ip.to_bits() & u128::from(u64::MAX)];
                self.mix(u64::try_from(high).unwrap_or(0));
                self.mix(u64::try_from(low).unwrap_or(0));
                self.mix(u64::from(address.port()));
            }
        }
    }

    fn mix_host(&mut self, kind: u64, host: HostId, more: u64) {
        self.mix(kind << 32 | u64::from(host.0));
        self.mix(more);
    }

    fn mix_happening(&mut self, what: &Happening) {
        match *what {
            Happening::Sent { host, dst, len, ttl } => {
                self.mix_host(1, host, (len as u64) << 8 | u64::from(ttl));
                self.mix_address(dst);
            }
            Happening::Flies { src, dst, at } => {
                self.mix(at.as_nanos());
                self.mix_address(src);
                self.mix_address(dst);
            }
            Happening::Heard { host, src, len } => {
                self.mix_host(2, host, len as u64);
                self.mix_address(src);
            }
            Happening::Dropped { src, dst, why } => {
                self.mix(why as u64);
                self.mix_address(src);
                self.mix_address(dst);
            }
            Happening::Answered { client } => self.mix_address(client),
            Happening::RelaySent { host, region, len } => self.mix_relay(3, host, region, len as u64),
            Happening::RelayHeard { host, region, len } => self.mix_relay(4, host, region, len as u64),
            Happening::RelayPing { host, region } => self.mix_relay(21, host, region, 0),
            Happening::RelayMeasured { host, region } => self.mix_relay(20, host, region, 0),
            Happening::PeerGone { host, region } => self.mix_relay(5, host, region, 0),
            Happening::RelayLost { host, region } => self.mix_relay(6, host, region, 0),
            Happening::RelayLink { host, region, up } => self.mix_relay(7, host, region, u64::from(up)),
            Happening::Interfaces { host, count } => self.mix_host(8, host, count as u64),
            Happening::Timeout { host } => self.mix_host(9, host, 0),
            Happening::Application { flow, seq } => self.mix_host(10, HostId(flow.0), seq),
            Happening::Delivered { flow, seq, double } => {
                self.mix_host(11, HostId(flow.0), seq << 1 | u64::from(double));
            }
            Happening::Acted { action } => self.mix_host(12, HostId(0), action as u64),
        }
    }

    fn mix_relay(&mut self, kind: u64, host: HostId, region: Region, more: u64) {
        self.mix_host(kind, host, more << 16 | u64::from(region.0));
    }
}
