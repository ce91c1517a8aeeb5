//! A machine that does what a test says, and a small world to put it in.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::Duration;

use towpath_disco::datagram::{Received, Region, RelayEvent, Route, Transmit};
use towpath_sim::{HostId, Machine, Place, Site, World};
use towpath_wire::key::NodePublic;
use towpath_wire::time::Instant;

/// Sends what it is told to, and remembers what it hears.
#[derive(Debug, Default)]
pub(crate) struct Puppet {
    pub(crate) out: VecDeque<(Transmit, Vec<u8>)>,
    pub(crate) heard: Vec<(Instant, Received, Vec<u8>)>,
    pub(crate) relays: Vec<(Instant, RelayEvent)>,
    /// The round trips to relays, as they were measured.
    pub(crate) measured: Vec<(Region, Duration)>,
    pub(crate) interfaces: Vec<Vec<SocketAddr>>,
    pub(crate) timeouts: Vec<Instant>,
    pub(crate) alarm: Option<Instant>,
    pub(crate) route: Route,
    /// Whose data everything is that looks like data.
    pub(crate) peer: Option<NodePublic>,
}

impl Machine for Puppet {
    fn handle_packet(&mut self, now: Instant, received: Received, packet: &[u8]) -> Option<NodePublic> {
        self.heard.push((now, received, packet.to_vec()));
        self.peer.filter(|_| packet.starts_with(&[4, 0, 0, 0]))
    }

    fn handle_relay(&mut self, now: Instant, event: RelayEvent) {
        match event {
            RelayEvent::RoundTrip { region, took } => self.measured.push((region, took)),
            event => self.relays.push((now, event)),
        }
    }

    fn handle_interfaces(&mut self, _: Instant, addresses: &[SocketAddr]) {
        self.interfaces.push(addresses.to_vec());
    }

    fn route(&mut self, _: Instant, _: &NodePublic, _: usize) -> Route {
        self.route
    }

    fn handle_timeout(&mut self, now: Instant) {
        self.alarm = None;
        self.timeouts.push(now);
    }

    fn poll_timeout(&mut self) -> Option<Instant> {
        self.alarm
    }

    fn poll_transmit(&mut self, _: Instant, packet: &mut Vec<u8>) -> Option<Transmit> {
        let (transmit, bytes) = self.out.pop_front()?;
        packet.extend_from_slice(&bytes);
        Some(transmit)
    }
}

impl Puppet {
    /// Where the datagrams came from that were heard, in order.
    pub(crate) fn remotes(&self) -> Vec<SocketAddr> {
        let remote = |received| match received {
            Received::Udp { remote } => Some(remote),
            Received::Relay { .. } => None,
        };
        self.heard.iter().filter_map(|(_, received, _)| remote(*received)).collect()
    }
}

pub(crate) const REGION: Region = Region(1);

/// A key that names a host; nothing is sealed for it.
pub(crate) fn key(number: u8) -> NodePublic {
    NodePublic::from_bytes([number; 32])
}

pub(crate) const fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

pub(crate) const fn at(millis: u64) -> Instant {
    Instant::from_nanos(millis * 1_000_000)
}

/// Adds a host, which is named by its number.
pub(crate) fn add(world: &mut World<Puppet>, place: Place) -> HostId {
    let number = u8::try_from(world.hosts().count()).unwrap() + 1;
    world.add_host(key(number), &[place], &[], Puppet::default())
}

/// A world with so many sites.
pub(crate) fn world<const N: usize>(seed: u64) -> (World<Puppet>, [Site; N]) {
    let mut world = World::new(seed);
    let sites = std::array::from_fn(|_| world.add_site());
    (world, sites)
}

/// Sends a datagram with some hops.
pub(crate) fn send_ttl(
    world: &mut World<Puppet>,
    from: HostId,
    dst: SocketAddr,
    text: &str,
    ttl: Option<u8>,
) {
    let transmit = Transmit::Udp { src: None, dst, ttl };
    world.with(from, |puppet, _| puppet.out.push_back((transmit, text.into())));
}

/// Sends a datagram.
pub(crate) fn send(world: &mut World<Puppet>, from: HostId, dst: SocketAddr, text: &str) {
    send_ttl(world, from, dst, text, None);
}

/// Sends a packet over the relay.
pub(crate) fn relay(world: &mut World<Puppet>, from: HostId, to: HostId, text: &str) {
    let transmit = Transmit::Relay { region: REGION, peer: world.key(to) };
    world.with(from, |puppet, _| puppet.out.push_back((transmit, text.into())));
}

/// Runs for a while.
pub(crate) fn run(world: &mut World<Puppet>, millis: u64) {
    world.run_until(world.now() + ms(millis));
}

/// What a host has heard so far, which it then forgets.
pub(crate) fn heard(world: &mut World<Puppet>, host: HostId) -> Vec<String> {
    let taken = world.with(host, |puppet, _| std::mem::take(&mut puppet.heard));
    taken.into_iter().map(|(.., packet)| String::from_utf8(packet).unwrap()).collect()
}
