//! Relays: the links of hosts to them, and packets over them.

use std::time::Duration;

use towpath_disco::datagram::{Received, Region, RelayEvent};
use towpath_wire::key::NodePublic;
use towpath_wire::time::Instant;

use super::{Event, Health, Relay, World};
use crate::flow::Label;
use crate::host::{LinkUp, News};
use crate::id::{HostId, Site};
use crate::link::Traffic;
use crate::machine::Machine;
use crate::trace::Happening;

/// The round trips until a dialled relay takes packets: TCP, then TLS with the login in the first flight behind it.
const DIAL_ROUND_TRIPS: u32 = 2;

/// How long a host waits until it dials a home again that could not be reached.
const REDIAL: Duration = Duration::from_secs(1);

/// How long a host reads on from a link that another one has taken the place of.
const READ_ON: Duration = Duration::from_millis(500);

/// The least time until TCP sends a packet again.
const MIN_RTO: Duration = Duration::from_millis(200);

/// The longest time until TCP tries again.
const MAX_RTO: Duration = Duration::from_secs(8);

/// Packets that wait for a link that is being dialled. Further ones are lost.
const MOST_WAITING: usize = 64;

/// Packets that wait for a network that lets nothing through, or for a silent relay. Further ones are lost: the buffers
/// are full, and those of the application behind them.
const MOST_HELD: usize = 256;

impl<M: Machine> World<M> {
    fn relay(&self, region: Region) -> Option<(Site, Health)> {
        let relay = self.relays.iter().find(|relay| relay.region == region)?;
        Some((relay.site, relay.health))
    }

    /// Whether a host can reach a relay that works.
    pub(super) fn is_reachable(&self, host: HostId, region: Region) -> bool {
        let (Some(here), Some((there, Health::Alive))) =
            (self.hosts[host.index()].site(), self.relay(region))
        else {
            return false;
        };
        let passes = |from, to| {
            let link = self.topology.links.get(from, to);
            !(link.blocked && link.applies_to == Traffic::Everything)
        };
        passes(here, there) && passes(there, here)
    }

    pub(super) fn send_relayed(&mut self, host: HostId, region: Region, peer: NodePublic, packet: Vec<u8>) {
        let (now, len) = (self.now, packet.len());
        self.trace.note(now, Happening::RelaySent { host, region, len });
        let sender = &mut self.hosts[host.index()];
        if Label::read(&packet).is_some() {
            sender.sent.relayed.add(len);
        } else {
            sender.sent.signalling.add(len);
            sender.sent.last_signalling = Some(now);
        }
        let link = sender.relay(region);
        match link.up {
            LinkUp::Yes => self.send_to_relay(region, host, peer, packet),
            LinkUp::Dialling if link.waiting.len() >= MOST_WAITING => self.lose(host, region, packet),
            LinkUp::Dialling => link.waiting.push((peer, packet)),
            LinkUp::No => {
                link.waiting.push((peer, packet));
                self.dial(region, host);
            }
        }
    }

    fn lose(&mut self, host: HostId, region: Region, packet: Vec<u8>) {
        self.trace.note(self.now, Happening::RelayLost { host, region });
        self.recycle(packet);
    }

    /// The time after which TCP sends a packet again on the link of a host to a relay.
    fn rto(&self, here: Site, there: Site) -> Duration {
        MIN_RTO.max(2 * self.topology.links.round_trip(here, there))
    }

    /// When a packet that is sent now on a stream arrives at the other end; `None` if the network lets nothing through.
    fn streamed(&mut self, from: Site, to: Site) -> Option<Instant> {
        let rto = self.rto(from, to);
        self.topology.links.state(from, to).stream(self.now, rto)
    }

    fn send_to_relay(&mut self, region: Region, host: HostId, peer: NodePublic, packet: Vec<u8>) {
        let sites = self.hosts[host.index()].site().zip(self.relay(region));
        let is_broken = self.hosts[host.index()].relay(region).is_broken;
        let Some((here, (there, _))) = sites.filter(|_| !is_broken) else {
            return self.lose(host, region, packet);
        };
        let arrives = self.streamed(here, there);
        let link = self.hosts[host.index()].relay(region);
        match arrives {
            Some(at) if link.held.is_empty() => {
                link.out = link.out.max(at);
                let at = link.out;
                self.queue.push(at, Event::AtRelay { region, from: host, peer, packet });
            }
            _ if link.held.len() >= MOST_HELD => self.lose(host, region, packet),
            _ => {
                link.held.push((peer, packet));
                self.await_network(region, host, self.rto(here, there));
            }
        }
    }

    /// Tries again later what the network did not let through, unless that will be done already.
    fn await_network(&mut self, region: Region, host: HostId, rto: Duration) {
        let now = self.now;
        let link = self.hosts[host.index()].relay(region);
        if link.held.len() + link.held_back.len() == 1 {
            link.patience = (2 * link.patience).clamp(rto, MAX_RTO.max(rto));
            let (at, epoch) = (now + link.patience, link.epoch);
            self.queue.push(at, Event::Retry { region, host, epoch });
        }
    }

    /// Sends again what the network did not let through.
    pub(super) fn retry(&mut self, region: Region, host: HostId, epoch: u32) {
        let link = self.hosts[host.index()].relay(region);
        if link.epoch != epoch {
            return;
        }
        let (held, held_back) = (std::mem::take(&mut link.held), std::mem::take(&mut link.held_back));
        for (peer, packet) in held {
            self.send_to_relay(region, host, peer, packet);
        }
        for (epoch, news) in held_back {
            self.send_news(region, host, epoch, news);
        }
        let link = self.hosts[host.index()].relay(region);
        if link.held.is_empty() && link.held_back.is_empty() {
            link.patience = Duration::ZERO;
        }
    }

    pub(super) fn at_relay(&mut self, region: Region, from: HostId, peer: NodePublic, packet: Vec<u8>) {
        match self.relays.iter_mut().find(|relay| relay.region == region) {
            Some(Relay { health: Health::Alive, .. }) => {}
            Some(Relay { health: Health::Silent, held, .. }) if held.len() < MOST_HELD => {
                held.push((from, peer, packet));
                return;
            }
            _ => return self.lose(from, region, packet),
        }
        let key = self.hosts[from.index()].key;
        let receiver = self.keys.get(&peer).copied();
        let stream = receiver.and_then(|to| Some((to, self.hosts[to.index()].relay(region).present?)));
        if let Some((to, epoch)) = stream {
            self.send_news(region, to, epoch, News::Packet(key, packet));
            return;
        }
        self.recycle(packet);
        if let Some(epoch) = self.hosts[from.index()].relay(region).present {
            self.send_news(region, from, epoch, News::PeerGone(peer));
        }
    }

    /// Sends something from a relay to a host, behind what is on its way already.
    fn send_news(&mut self, region: Region, to: HostId, epoch: u32, news: News) {
        let sites = self.hosts[to.index()].site().zip(self.relay(region));
        let arrives = sites.and_then(|(here, (there, _))| self.streamed(there, here));
        let link = self.hosts[to.index()].relay(region);
        match (arrives, sites) {
            _ if link.is_broken && link.epoch == epoch => {
                self.trace.note(self.now, Happening::RelayLost { host: to, region });
            }
            (Some(at), _) if link.held_back.is_empty() => {
                link.back = link.back.max(at);
                let at = link.back;
                self.queue.push(at, Event::FromRelay { region, to, epoch, news });
            }
            (_, Some((here, (there, _)))) if link.held_back.len() < MOST_HELD => {
                link.held_back.push((epoch, news));
                self.await_network(region, to, self.rto(there, here));
            }
            _ => self.trace.note(self.now, Happening::RelayLost { host: to, region }),
        }
    }

    /// Sends a ping to a relay, on a link that is up.
    pub(super) fn ping_relay(&mut self, host: HostId, region: Region) {
        let now = self.now;
        self.trace.note(now, Happening::RelayPing { host, region });
        self.hosts[host.index()].sent.relay_pings += 1;
        let sites = self.hosts[host.index()].site().zip(self.relay(region));
        let Some((here, (there, _))) = sites else { return };
        // One that the network holds back says nothing when it arrives at last.
        let Some(at) = self.streamed(here, there) else { return };
        let link = self.hosts[host.index()].relay(region);
        if link.up == LinkUp::Yes && link.held.is_empty() && !link.is_broken {
            link.out = link.out.max(at);
            let (at, epoch) = (link.out, link.epoch);
            self.queue.push(at, Event::PingAtRelay { region, from: host, epoch, sent: now });
        }
    }

    pub(super) fn answer_ping(&mut self, region: Region, from: HostId, epoch: u32, sent: Instant) {
        let is_alive = self.relay(region).is_some_and(|(_, health)| health == Health::Alive);
        if is_alive && self.hosts[from.index()].relay(region).present == Some(epoch) {
            self.send_news(region, from, epoch, News::Pong(sent));
        }
    }

    pub(super) fn hear_from_relay(&mut self, region: Region, host: HostId, epoch: u32, news: News) {
        if let Some(awake) = self.asleep(host) {
            self.queue.push(awake, Event::FromRelay { region, to: host, epoch, news });
            return;
        }
        let now = self.now;
        let link = self.hosts[host.index()].relay(region);
        if !link.is_read(epoch, now) || link.epoch != epoch && matches!(news, News::Down) {
            self.trace.note(now, Happening::RelayLost { host, region });
            return;
        }
        // It works, so that it need not be dialled.
        link.redialled = None;
        match news {
            News::Packet(peer, packet) => {
                self.trace.note(self.now, Happening::RelayHeard { host, region, len: packet.len() });
                self.hand(host, Received::Relay { region, peer }, packet);
            }
            News::PeerGone(peer) => self.tell_relay(host, RelayEvent::PeerGone { region, peer }),
            News::Pong(sent) => {
                let took = self.now.since(sent);
                self.tell_relay(host, RelayEvent::RoundTrip { region, took });
            }
            News::Down => {
                link.up = LinkUp::No;
                self.tell_relay(host, RelayEvent::Down(region));
                self.dial_home(region, host);
            }
        }
    }

    /// Dials a relay beside a link that is up. One that is not up is being dialled, or is not to be kept.
    pub(super) fn redial(&mut self, region: Region, host: HostId) {
        let sites = self.hosts[host.index()].site().zip(self.relay(region));
        let Some((here, (there, _))) = sites else { return };
        let now = self.now;
        let round_trip = self.topology.links.round_trip(here, there);
        let link = self.hosts[host.index()].relay(region);
        if link.up == LinkUp::Yes {
            link.redialled = Some(now);
            let (at, epoch) = (now + DIAL_ROUND_TRIPS * round_trip, link.epoch);
            self.hosts[host.index()].sent.redials += 1;
            self.queue.push(at, Event::Redialled { region, host, epoch, since: now });
        }
    }

    /// The dial beside a link that is up has come to an end.
    pub(super) fn redialled(&mut self, region: Region, host: HostId, epoch: u32, since: Instant) {
        let at = self.asleep(host).or((!self.is_reachable(host, region)).then_some(self.now + REDIAL));
        let now = self.now;
        let link = self.hosts[host.index()].relay(region);
        if link.epoch != epoch || link.redialled != Some(since) {
            return;
        }
        if let Some(at) = at {
            self.queue.push(at, Event::Redialled { region, host, epoch, since });
            return;
        }
        link.renew(LinkUp::Yes);
        link.before = Some((epoch, now + READ_ON));
        self.connect(region, host);
    }

    /// Lets the streams of a host to relays carry nothing more in either direction, which neither end notices.
    pub(super) fn forget_streams(&mut self, host: HostId) {
        for link in self.hosts[host.index()].relays.iter_mut().filter(|link| link.up == LinkUp::Yes) {
            link.is_broken = true;
            link.held.clear();
            link.held_back.clear();
        }
    }

    /// Dials a relay. What is sent to it waits.
    pub(super) fn dial(&mut self, region: Region, host: HostId) {
        let relay = self.relay(region);
        let state = &mut self.hosts[host.index()];
        let site = state.site();
        let link = state.relay(region);
        link.renew(LinkUp::Dialling);
        let epoch = link.epoch;
        // A host without an address dials when it gets one.
        let Some(here) = site else { return };
        // That a region has no relay is known at once.
        let round_trip =
            relay.map_or(Duration::ZERO, |(there, _)| self.topology.links.round_trip(here, there));
        let at = self.now + DIAL_ROUND_TRIPS * round_trip;
        self.queue.push(at, Event::Dialled { region, host, epoch });
    }

    /// Dials a relay if a link to it is to be kept.
    pub(super) fn dial_home(&mut self, region: Region, host: HostId) {
        let state = &mut self.hosts[host.index()];
        let is_home = state.homes.contains(&region);
        // A machine that sends as soon as it hears of the loss has dialled already.
        if is_home && state.relay(region).up == LinkUp::No {
            self.dial(region, host);
        }
    }

    pub(super) fn dialled(&mut self, region: Region, host: HostId, epoch: u32) {
        if let Some(awake) = self.asleep(host) {
            self.queue.push(awake, Event::Dialled { region, host, epoch });
            return;
        }
        let link = self.hosts[host.index()].relay(region);
        if link.epoch != epoch || link.up != LinkUp::Dialling {
            return;
        }
        if self.is_reachable(host, region) {
            return self.connect(region, host);
        }
        let state = &mut self.hosts[host.index()];
        let is_home = state.homes.contains(&region);
        let link = state.relay(region);
        link.waiting.clear();
        if is_home {
            self.queue.push(self.now + REDIAL, Event::Dialled { region, host, epoch });
        } else {
            link.up = LinkUp::No;
            self.tell_relay(host, RelayEvent::Down(region));
        }
    }

    /// The link of a host to a relay is up. What waited for it goes first.
    pub(super) fn connect(&mut self, region: Region, host: HostId) {
        let now = self.now;
        let link = self.hosts[host.index()].relay(region);
        link.up = LinkUp::Yes;
        link.present = Some(link.epoch);
        (link.out, link.back) = (now, now);
        for (peer, packet) in std::mem::take(&mut link.waiting) {
            self.send_to_relay(region, host, peer, packet);
        }
        self.tell_relay(host, RelayEvent::Up(region));
        let sites = self.hosts[host.index()].site().zip(self.relay(region));
        if let Some((here, (there, _))) = sites {
            let took = self.topology.links.round_trip(here, there);
            self.tell_relay(host, RelayEvent::RoundTrip { region, took });
        }
    }

    /// Breaks all links of a host to relays, which do not notice. Those to its homes are dialled again.
    pub(super) fn break_links(&mut self, host: HostId) {
        let state = &mut self.hosts[host.index()];
        let mut broken = Vec::new();
        for link in &mut state.relays {
            if link.up == LinkUp::Yes {
                broken.push(link.region);
            }
            link.waiting.clear();
            link.renew(LinkUp::No);
        }
        for region in broken {
            self.tell_relay(host, RelayEvent::Down(region));
        }
    }

    pub(super) fn set_health(&mut self, region: Region, health: Health) {
        let mut held = Vec::new();
        for relay in self.relays.iter_mut().filter(|relay| relay.region == region) {
            relay.health = health;
            held = std::mem::take(&mut relay.held);
        }
        // A relay that works again answers what it was sent; one that is dead does not.
        for (from, peer, packet) in held {
            self.at_relay(region, from, peer, packet);
        }
        if health != Health::Dead {
            return;
        }
        for index in 0..self.hosts.len() {
            let host = HostId::of(index);
            if let Some(epoch) = self.hosts[index].relay(region).present.take() {
                self.send_news(region, host, epoch, News::Down);
            }
        }
    }
}
