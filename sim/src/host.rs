//! A host: where it is attached, its links to relays, and what it has sent.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use towpath_disco::datagram::Region;
use towpath_wire::key::NodePublic;
use towpath_wire::time::Instant;

use crate::id::{Place, Site};

/// Packets, and the bytes of their payloads.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Count {
    /// Packets.
    pub packets: u64,
    /// Bytes.
    pub bytes: u64,
}

impl Count {
    pub(crate) const fn add(&mut self, len: usize) {
        self.packets += 1;
        self.bytes += len as u64;
    }
}

/// What a host has sent, told apart by whether it belongs to a flow.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sent {
    /// Datagrams of flows, by destination.
    pub data: BTreeMap<SocketAddr, Count>,
    /// All other datagrams, by destination: probes, and questions to STUN servers.
    pub probes: BTreeMap<SocketAddr, Count>,
    /// Packets of flows over relays.
    pub relayed: Count,
    /// All other packets over relays.
    pub signalling: Count,
    /// When the last of these was sent.
    pub last_signalling: Option<Instant>,
    /// Pings to relays.
    pub relay_pings: u64,
    /// Dials of relays in place of links that did not answer.
    pub redials: u64,
    /// When the last datagram was sent that belongs to no flow.
    pub last_probe: Option<Instant>,
}

impl Sent {
    /// All datagrams that belong to no flow, to addresses of which `counts` holds.
    pub fn probes_to(&self, mut counts: impl FnMut(SocketAddr) -> bool) -> Count {
        let mut sum = Count::default();
        for (_, count) in self.probes.iter().filter(|(to, _)| counts(**to)) {
            sum.packets += count.packets;
            sum.bytes += count.bytes;
        }
        sum
    }
}

/// An address of a host, and where the host has it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Attachment {
    pub(crate) place: Place,
    pub(crate) site: Site,
    pub(crate) address: IpAddr,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LinkUp {
    No,
    Dialling,
    Yes,
}

/// What a host hears from a relay.
#[derive(Debug)]
pub(crate) enum News {
    Packet(NodePublic, Vec<u8>),
    PeerGone(NodePublic),
    /// The answer to a ping that was sent at this time.
    Pong(Instant),
    Down,
}

/// A host's link to a relay, which is a stream in each direction.
#[derive(Debug)]
pub(crate) struct RelayLink {
    pub(crate) region: Region,
    /// Which of the streams to this relay it is; what belongs to an earlier one is void.
    pub(crate) epoch: u32,
    pub(crate) up: LinkUp,
    /// The stream by which the relay reaches the host, as the relay believes.
    pub(crate) present: Option<u32>,
    /// What waits until the link is up.
    pub(crate) waiting: Vec<(NodePublic, Vec<u8>)>,
    /// What the host sends again as soon as the network lets it through.
    pub(crate) held: Vec<(NodePublic, Vec<u8>)>,
    /// What the relay sends again as soon as the network lets it through.
    pub(crate) held_back: Vec<(u32, News)>,
    /// How long the two wait until they try again.
    pub(crate) patience: Duration,
    /// When the last packet arrives that is on its way to the relay.
    pub(crate) out: Instant,
    /// When the last packet arrives that is on its way to the host.
    pub(crate) back: Instant,
    /// Whether a NAT has forgotten the streams: they carry nothing more, and neither end notices.
    pub(crate) is_broken: bool,
    /// When the host began to dial another stream in place of this one.
    pub(crate) redialled: Option<Instant>,
    /// The stream before this one, and until when the host reads what is on its way there.
    pub(crate) before: Option<(u32, Instant)>,
}

impl RelayLink {
    /// Leaves the streams for others. What was on its way is void.
    pub(crate) fn renew(&mut self, up: LinkUp) {
        self.epoch += 1;
        self.up = up;
        self.held.clear();
        self.held_back.clear();
        self.patience = Duration::ZERO;
        (self.is_broken, self.redialled, self.before) = (false, None, None);
    }

    /// Whether the host reads what comes on a stream.
    pub(crate) fn is_read(&self, epoch: u32, now: Instant) -> bool {
        let is_before = self.before.is_some_and(|(before, until)| before == epoch && now < until);
        self.up == LinkUp::Yes && (self.epoch == epoch || is_before)
    }
}

/// A host.
#[derive(Debug)]
pub(crate) struct Host<M> {
    pub(crate) machine: M,
    pub(crate) key: NodePublic,
    pub(crate) port: u16,
    pub(crate) attachments: Vec<Attachment>,
    /// The regions to which the host keeps a link.
    pub(crate) homes: Vec<Region>,
    pub(crate) relays: Vec<RelayLink>,
    /// By how much the host's clock is ahead.
    pub(crate) ahead: Duration,
    /// Until when the host is suspended.
    pub(crate) asleep: Option<Instant>,
    /// The earliest timer that is in the queue.
    pub(crate) armed: Option<Instant>,
    pub(crate) sent: Sent,
}

impl<M> Host<M> {
    pub(crate) fn addresses(&self) -> Vec<SocketAddr> {
        self.attachments.iter().map(|at| SocketAddr::new(at.address, self.port)).collect()
    }

    /// The attachment from which a datagram goes.
    pub(crate) fn attachment(&self, src: Option<IpAddr>, dst: SocketAddr) -> Option<Attachment> {
        let fits = |at: &&Attachment| {
            at.address.is_ipv4() == dst.is_ipv4() && src.is_none_or(|src| src == at.address)
        };
        self.attachments.iter().find(fits).copied()
    }

    /// The site from which the host reaches its relays.
    pub(crate) fn site(&self) -> Option<Site> {
        self.attachments.first().map(|at| at.site)
    }

    pub(crate) fn is_connected(&self, region: Region) -> bool {
        self.relays.iter().any(|link| link.region == region && link.up == LinkUp::Yes)
    }

    pub(crate) fn relay(&mut self, region: Region) -> &mut RelayLink {
        let found = self.relays.iter().position(|link| link.region == region);
        let index = found.unwrap_or_else(|| {
            self.relays.push(RelayLink {
                region,
                epoch: 0,
                up: LinkUp::No,
                present: None,
                waiting: Vec::new(),
                held: Vec::new(),
                held_back: Vec::new(),
                patience: Duration::ZERO,
                out: Instant::ZERO,
                back: Instant::ZERO,
                is_broken: false,
                redialled: None,
                before: None,
            });
            self.relays.len() - 1
        });
        &mut self.relays[index]
    }
}
