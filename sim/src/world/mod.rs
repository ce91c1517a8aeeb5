//! The world: everything that there is, and the clock that drives it.

mod act;
mod application;
mod build;
mod datagram;
mod drive;
mod relay;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::SocketAddr;
use std::time::Duration;

use towpath_disco::datagram::Region;
use towpath_wire::key::NodePublic;
use towpath_wire::time::Instant;

use crate::action::{self, Line};
use crate::flow::{Account, Flow};
use crate::host::{Attachment, Host, News, Sent};
use crate::id::{FlowId, HostId, NatId, Site};
use crate::link::Link;
use crate::machine::Machine;
use crate::queue::Queue;
use crate::topology::Topology;
use crate::trace::{Happening, Trace, millis};

/// Something that will happen.
#[derive(Debug)]
enum Event {
    /// A host starts.
    Start(HostId),
    /// A host's timer fires.
    Timer(HostId),
    /// A suspended host wakes up.
    Wake(HostId),
    /// A datagram arrives in a network.
    Datagram { network: usize, src: SocketAddr, dst: SocketAddr, ttl: u8, packet: Vec<u8> },
    /// A packet arrives at a relay.
    AtRelay { region: Region, from: HostId, peer: NodePublic, packet: Vec<u8> },
    /// A ping arrives at a relay, which a host has sent at a time on the stream with this number.
    PingAtRelay { region: Region, from: HostId, epoch: u32, sent: Instant },
    /// Something arrives from a relay, on the stream with this number.
    FromRelay { region: Region, to: HostId, epoch: u32, news: News },
    /// What the network did not let through, on the streams with this number, is sent again.
    Retry { region: Region, host: HostId, epoch: u32 },
    /// A host has dialled a relay.
    Dialled { region: Region, host: HostId, epoch: u32 },
    /// A host has dialled a relay since a time, to take the place of the stream with this number.
    Redialled { region: Region, host: HostId, epoch: u32, since: Instant },
    /// The application sends the next packet of a flow.
    Flow(FlowId),
    /// The line of the script with this number is an action, and is carried out.
    Act(usize),
    /// A host that moves has its new addresses.
    Attach { host: HostId, line: usize },
}

/// How a relay is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Health {
    Alive,
    Dead,
    Silent,
}

#[derive(Debug)]
struct Relay {
    region: Region,
    site: Site,
    health: Health,
    /// What has arrived while the relay is silent.
    held: Vec<(HostId, NodePublic, Vec<u8>)>,
}

/// The internet in a process: hosts with machines of type `M`, NATs, links, STUN servers and relays, on virtual time.
///
/// Two worlds that are built and driven alike with the same seed do the same, which [`Self::trace_hash`] proves.
#[derive(Debug)]
pub struct World<M> {
    seed: u64,
    now: Instant,
    queue: Queue<Event>,
    trace: Trace,
    topology: Topology,
    hosts: Vec<Host<M>>,
    keys: BTreeMap<NodePublic, HostId>,
    relays: Vec<Relay>,
    flows: Vec<(Flow, Account)>,
    strays: u64,
    script: Vec<Line>,
    /// Buffers that are used again.
    spare: Vec<Vec<u8>>,
    /// How many timers have fired at this instant.
    fired: (Instant, u32),
}

impl<M: Machine> World<M> {
    /// The time.
    #[must_use]
    pub const fn now(&self) -> Instant {
        self.now
    }

    /// The seed.
    #[must_use]
    pub const fn seed(&self) -> u64 {
        self.seed
    }

    /// A number that two worlds share which did the same, and no others.
    #[must_use]
    pub const fn trace_hash(&self) -> u64 {
        self.trace.hash()
    }

    /// How many things happened.
    #[must_use]
    pub const fn happenings(&self) -> u64 {
        self.trace.events()
    }

    /// From now on keeps what happens, for [`Self::trace`].
    pub fn keep_trace(&mut self) {
        self.trace.keep();
    }

    /// What happened since [`Self::keep_trace`].
    #[must_use]
    pub fn trace(&self) -> &[(Instant, Happening)] {
        self.trace.lines()
    }

    /// Writes what happened, a line for each event.
    #[must_use]
    pub fn trace_text(&self) -> String {
        let mut text = String::new();
        for (at, what) in self.trace.lines() {
            writeln!(text, "{:12.3} {what}", millis(*at)).expect("writing to a String cannot fail");
        }
        text
    }

    /// What was done to build and to drive this world, so that it can be done again.
    #[must_use]
    pub fn script(&self) -> String {
        action::text(self.seed, &self.script)
    }

    /// All hosts, in the order in which they were added.
    pub fn hosts(&self) -> impl Iterator<Item = HostId> + use<M> {
        (0..self.hosts.len()).map(HostId::of)
    }

    /// All flows, in the order in which they were added.
    pub fn flows(&self) -> impl Iterator<Item = FlowId> + use<M> {
        (0..self.flows.len()).map(FlowId::of)
    }

    /// A host's machine.
    #[must_use]
    pub fn machine(&self, host: HostId) -> &M {
        &self.hosts[host.index()].machine
    }

    /// The key of a host.
    #[must_use]
    pub fn key(&self, host: HostId) -> NodePublic {
        self.hosts[host.index()].key
    }

    /// The addresses of a host, with the port of its socket.
    #[must_use]
    pub fn addresses(&self, host: HostId) -> Vec<SocketAddr> {
        self.hosts[host.index()].addresses()
    }

    /// What a host has sent.
    #[must_use]
    pub fn sent(&self, host: HostId) -> &Sent {
        &self.hosts[host.index()].sent
    }

    /// What came of a flow.
    #[must_use]
    pub fn account(&self, flow: FlowId) -> &Account {
        &self.flows[flow.index()].1
    }

    /// How often a machine delivered something that no flow had sent to its host, or as that of another peer.
    #[must_use]
    pub const fn strays(&self) -> u64 {
        self.strays
    }

    /// The link from one site to another.
    #[must_use]
    pub fn link(&self, from: Site, to: Site) -> Link {
        self.topology.links.get(from, to)
    }

    /// How many mappings of a NAT are alive.
    #[must_use]
    pub fn mappings(&self, nat: NatId) -> usize {
        self.topology.nats[nat.index()].table.mappings(self.now)
    }

    /// How many flows of early packets a NAT remembers.
    #[must_use]
    pub fn early_packets(&self, nat: NatId) -> usize {
        self.topology.nats[nat.index()].table.early(self.now)
    }

    /// Whether a host's link to a relay is up.
    #[must_use]
    pub fn is_connected(&self, host: HostId, region: Region) -> bool {
        self.hosts[host.index()].is_connected(region)
    }

    pub(crate) const fn topology(&self) -> &Topology {
        &self.topology
    }

    pub(crate) fn attachments(&self, host: HostId) -> &[Attachment] {
        &self.hosts[host.index()].attachments
    }

    /// The time that a packet takes from a host to another over the nearest relay that works.
    pub(crate) fn relayed(&self, from: HostId, to: HostId) -> Option<Duration> {
        let here = self.hosts[from.index()].site()?;
        let there = self.hosts[to.index()].site()?;
        let links = &self.topology.links;
        let alive = self.relays.iter().filter(|relay| relay.health == Health::Alive);
        let way = |relay: &Relay| links.get(here, relay.site).delay + links.get(relay.site, there).delay;
        alive.map(way).min()
    }

    /// When the next thing happens, if anything is to happen.
    #[must_use]
    pub fn due(&self) -> Option<Instant> {
        self.queue.due()
    }

    /// Runs until a time has come.
    pub fn run_until(&mut self, until: Instant) {
        while self.step(until) {}
        self.now = self.now.max(until);
    }

    /// Runs until something holds or a time has come. Returns when it held.
    pub fn run_until_holds(
        &mut self,
        until: Instant,
        mut holds: impl FnMut(&Self) -> bool,
    ) -> Option<Instant> {
        loop {
            if holds(self) {
                return Some(self.now);
            }
            if !self.step(until) {
                self.now = self.now.max(until);
                return None;
            }
        }
    }

    /// Lets the next thing happen, unless it is due later than `until`. Returns whether it did.
    pub fn step(&mut self, until: Instant) -> bool {
        if self.queue.due().is_none_or(|due| due > until) {
            return false;
        }
        let Some((at, event)) = self.queue.pop() else { return false };
        self.now = at;
        self.happen(event);
        true
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Start(host) => self.start(host),
            Event::Timer(host) => self.timer(host),
            Event::Wake(host) => self.wake(host),
            Event::Datagram { network, src, dst, ttl, packet } => {
                self.arrive(network, src, dst, ttl, packet);
            }
            Event::AtRelay { region, from, peer, packet } => self.at_relay(region, from, peer, packet),
            Event::PingAtRelay { region, from, epoch, sent } => self.answer_ping(region, from, epoch, sent),
            Event::FromRelay { region, to, epoch, news } => self.hear_from_relay(region, to, epoch, news),
            Event::Retry { region, host, epoch } => self.retry(region, host, epoch),
            Event::Dialled { region, host, epoch } => self.dialled(region, host, epoch),
            Event::Redialled { region, host, epoch, since } => self.redialled(region, host, epoch, since),
            Event::Flow(flow) => self.send_packet_of(flow),
            Event::Act(line) => self.act(line),
            Event::Attach { host, line } => self.attach_moved(host, line),
        }
    }

    /// A buffer, empty.
    fn buffer(&mut self) -> Vec<u8> {
        let mut buffer = self.spare.pop().unwrap_or_default();
        buffer.clear();
        buffer
    }

    fn recycle(&mut self, buffer: Vec<u8>) {
        if self.spare.len() < 64 {
            self.spare.push(buffer);
        }
    }
}
