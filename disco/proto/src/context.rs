//! What all peers of a node share: its keys, its addresses, its relays, and what is to be sent.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::time::Duration;

use towpath_wire::disco::key::{DiscoPrivate, DiscoPublic};
use towpath_wire::key::{NodePrivate, NodePublic};
use towpath_wire::time::Instant;

use crate::budget::Budget;
use crate::config::NodeConfig;
use crate::datagram::{Region, Transmit};
use crate::endpoints::{Endpoints, MappingClass};
use crate::event::Event;
use crate::random::Random;

/// The round trip to a relay of which none is known.
const TYPICAL_RTT: Duration = Duration::from_millis(100);
/// Regions in which a peer is looked for.
const MOST_SEARCHED: usize = 4;
/// Events that wait for the driver. The oldest make room; what is true now, the node says when it is asked.
const MOST_EVENTS: usize = 1024;

/// What all peers share.
pub(crate) struct Context {
    pub(crate) key: NodePrivate,
    pub(crate) public: NodePublic,
    pub(crate) disco: DiscoPrivate,
    pub(crate) disco_public: DiscoPublic,
    /// Random at the start, in each hello.
    pub(crate) epoch: u64,
    hellos: u32,
    pub(crate) random: Random,
    pub(crate) endpoints: Endpoints,
    /// The relays to which a link is up, each with the round trip if it has been measured.
    pub(crate) links: BTreeMap<Region, Option<Duration>>,
    pub(crate) home: Option<Region>,
    /// Where a peer of unknown region is looked for, in this order.
    pub(crate) regions: Vec<Region>,
    pub(crate) budget: Budget,
    pub(crate) one_probe: bool,
    pub(crate) out: VecDeque<(Transmit, Vec<u8>)>,
    pub(crate) events: VecDeque<Event>,
}

impl Context {
    pub(crate) fn new(config: NodeConfig) -> Self {
        let mut random = Random::new(config.seed);
        let mut regions: Vec<_> = config.home.into_iter().collect();
        regions.extend(config.regions.iter().filter(|region| Some(**region) != config.home));
        regions.truncate(MOST_SEARCHED);
        let disco = DiscoPrivate::from_random(random.bytes());
        Self {
            public: config.key.public(),
            key: config.key,
            disco_public: disco.public(),
            disco,
            epoch: u64::from_be_bytes(random.bytes()),
            hellos: 0,
            random,
            endpoints: Endpoints::new(config.stun, config.addresses),
            links: BTreeMap::new(),
            home: config.home,
            regions,
            budget: Budget::default(),
            one_probe: config.one_probe,
            out: VecDeque::new(),
            events: VecDeque::new(),
        }
    }

    /// The number of the next hello.
    pub(crate) fn next_hello(&mut self) -> u32 {
        self.hellos += 1;
        self.hellos
    }

    pub(crate) fn send(&mut self, transmit: Transmit, packet: Vec<u8>) {
        self.out.push_back((transmit, packet));
    }

    pub(crate) fn tell(&mut self, event: Event) {
        if self.events.len() >= MOST_EVENTS {
            self.events.pop_front();
        }
        self.events.push_back(event);
    }

    /// Asks the STUN servers, unless they have been asked. Returns whether they are waited for.
    pub(crate) fn gather(&mut self, now: Instant) -> bool {
        for (dst, request) in self.endpoints.gather(now, &mut self.random) {
            self.send(Transmit::Udp { src: None, dst, ttl: None }, request);
        }
        self.endpoints.are_asked()
    }

    /// Whether the relay of a region cannot be reached. Links to other regions than the home are made by the driver when
    /// something is sent there.
    pub(crate) fn is_lost(&self, region: Region) -> bool {
        self.home == Some(region) && !self.links.contains_key(&region)
    }

    /// What an offer says of this node: the class of its NAT, and where it may be reached.
    pub(crate) fn offered(&self) -> (MappingClass, Vec<SocketAddr>) {
        (self.endpoints.mapping(), self.endpoints.offered())
    }

    /// The round trip to the relay, or to the STUN server beside it.
    pub(crate) fn known_relay_rtt(&self) -> Option<Duration> {
        let home = self.home.and_then(|home| self.links.get(&home).copied().flatten());
        home.or(self.endpoints.rtt())
    }

    /// How long a packet takes over the relay to a peer whose round trip to the relay is `theirs`.
    pub(crate) fn time_to_peer(&self, theirs: Option<Duration>) -> Duration {
        let ours = self.known_relay_rtt().or(theirs).unwrap_or(TYPICAL_RTT);
        (ours + theirs.unwrap_or(ours)) / 2
    }
}
