//! What all peers of a node share: its keys, its addresses, its relays, and what is to be sent.

use std::collections::VecDeque;
use std::time::Duration;

use towpath_wire::disco::key::{DiscoPrivate, DiscoPublic};
use towpath_wire::key::{NodePrivate, NodePublic};
use towpath_wire::time::Instant;

use crate::budget::Budget;
use crate::config::NodeConfig;
use crate::datagram::{Region, Transmit};
use crate::endpoints::Endpoints;
use crate::event::Event;
use crate::home::{Homes, Regions};
use crate::links::Links;
use crate::patience::TYPICAL_RTT;
use crate::portmap::{PortMap, PortMapping};
use crate::random::Random;

/// Events that wait for the driver. The oldest make room; what is true now, the node says when it is asked.
const MOST_EVENTS: usize = 1024;
/// Packets that wait for the driver. One input causes few: 4 to STUN servers, a pong, and of each peer that it concerns 4 offers and
/// 32 probes, or 130 probes if a deadline is served late. A driver that takes them after each input does not come near with
/// hundreds of peers that are all in use. What is above is lost, as on a network.
const MOST_PACKETS: usize = 16_384;

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
    pub(crate) links: Links,
    pub(crate) regions: Regions,
    pub(crate) portmap: PortMap,
    /// Where a peer of unknown region is looked for, in this order.
    pub(crate) searched: Vec<Region>,
    /// Where this node is reached, as the driver and the peers know it.
    homes: Homes,
    pub(crate) budget: Budget,
    pub(crate) one_probe: bool,
    pub(crate) out: VecDeque<(Transmit, Vec<u8>)>,
    pub(crate) events: VecDeque<Event>,
}

impl Context {
    pub(crate) fn new(config: NodeConfig) -> Self {
        let mut random = Random::new(config.seed);
        let regions = Regions::new(config.relays, config.home, config.regions);
        let disco = DiscoPrivate::from_random(random.bytes());
        Self {
            public: config.key.public(),
            key: config.key,
            disco_public: disco.public(),
            disco,
            epoch: u64::from_be_bytes(random.bytes()),
            hellos: 0,
            random,
            endpoints: Endpoints::new(regions.servers(), config.addresses),
            links: Links::default(),
            searched: regions.searched(),
            homes: regions.chosen(),
            portmap: PortMap::default(),
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
        if self.out.len() < MOST_PACKETS {
            self.out.push_back((transmit, packet));
        }
    }

    /// Sends what the links want to be sent to relays, which are packets of none of the peers.
    pub(crate) fn send_to_relays(&mut self, wanted: Vec<Transmit>) {
        wanted.into_iter().for_each(|transmit| self.send(transmit, Vec::new()));
    }

    /// Asks all relays for answers, because this node may be behind a hole.
    pub(crate) fn check_links(&mut self, now: Instant) {
        let wanted = self.links.check(now);
        self.send_to_relays(wanted);
    }

    pub(crate) fn tell(&mut self, event: Event) {
        if self.events.len() >= MOST_EVENTS {
            self.events.pop_front();
        }
        self.events.push_back(event);
    }

    /// Asks the STUN servers, unless they have been asked, and the gateway whether it still forwards the port. Returns whether
    /// the servers are waited for.
    pub(crate) fn gather(&mut self, now: Instant) -> bool {
        self.with_portmap(|portmap, _| portmap.question(now));
        for (dst, request) in self.endpoints.gather(now, &mut self.random) {
            self.send(Transmit::Udp { src: None, dst, ttl: None }, request);
        }
        self.endpoints.are_asked()
    }

    /// Asks how near the regions are, if that is due or this node `has_moved` to another network.
    pub(crate) fn measure(&mut self, has_moved: bool, now: Instant) {
        let Self { regions, endpoints, random, .. } = self;
        let requests = regions.measure(has_moved, |server| endpoints.has_family(server), now, random);
        for (dst, request) in requests {
            self.send(Transmit::Udp { src: None, dst, ttl: None }, request);
        }
    }

    /// Whether the relay of a region cannot be reached. Links to other regions than the home and the standby are made by the driver
    /// when something is sent there.
    pub(crate) fn is_lost(&self, region: Region, now: Instant) -> bool {
        let Homes { home, standby } = self.regions.chosen();
        let is_kept = [home, standby].contains(&Some(region));
        self.links.is_lost(region, now) || (is_kept && !self.links.is_up(region))
    }

    /// Where this node is reached, as it was told last.
    pub(crate) const fn homes(&self) -> Homes {
        self.homes
    }

    /// Takes what has become of the homes: one whose link is lost gives way to the other one. Returns whether the home, over
    /// which this node is reached, is another one than before.
    pub(crate) fn settle_homes(&mut self, now: Instant) -> bool {
        let Homes { home, standby } = self.regions.chosen();
        let is_away = home.is_some_and(|home| self.links.is_lost(home, now) && !self.links.is_up(home));
        let is_ready = standby.is_some_and(|standby| self.links.is_up(standby));
        let homes = if is_away && is_ready {
            Homes { home: standby, standby: home }
        } else {
            Homes { home, standby }
        };
        let before = std::mem::replace(&mut self.homes, homes);
        self.links.keep([homes.home, homes.standby], now);
        if before != homes {
            self.searched = self.regions.searched();
            self.endpoints.set_servers(self.regions.servers());
            self.tell(Event::Home { home: homes.home, standby: homes.standby });
        }
        before.home != homes.home
    }

    /// Calls the exchange with the gateway, and sends what it has to send. Returns whether another address is forwarded then.
    pub(crate) fn with_portmap(&mut self, call: impl FnOnce(&mut PortMap, &mut Random)) -> bool {
        call(&mut self.portmap, &mut self.random);
        for (transmit, packet) in self.portmap.sent() {
            self.send(transmit, packet);
        }
        self.endpoints.set_forwarded(self.portmap.external())
    }

    /// What has come of asking the gateway for a port.
    pub(crate) fn port_mapping(&self) -> PortMapping {
        self.portmap.state(self.endpoints.is_forwarded())
    }

    /// The round trip to the relay, or to the STUN server beside it.
    pub(crate) fn known_relay_rtt(&self) -> Option<Duration> {
        self.homes.home.and_then(|home| self.links.rtt(home)).or(self.endpoints.rtt())
    }

    /// How long a packet takes over the relay to a peer whose round trip to the relay is `theirs`.
    pub(crate) fn time_to_peer(&self, theirs: Option<Duration>) -> Duration {
        let ours = self.known_relay_rtt().or(theirs).unwrap_or(TYPICAL_RTT);
        (ours + theirs.unwrap_or(ours)) / 2
    }
}
