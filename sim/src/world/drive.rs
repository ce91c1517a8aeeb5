//! Calls into machines, and what they want after each.

use std::net::{IpAddr, SocketAddr, SocketAddrV4};

use towpath_disco::GatewayConfig;
use towpath_disco::datagram::{Received, RelayEvent, Transmit};
use towpath_wire::time::Instant;

use super::{Event, World};
use crate::flow::Via;
use crate::id::{HostId, Place};
use crate::machine::Machine;
use crate::trace::Happening;

/// Packets that a machine may want to send after one call. More mean that it does not stop.
const MOST_TRANSMITS: u32 = 100_000;

/// Timers that may fire at one instant. More mean that a machine asks for a time that has passed, again and again.
const MOST_TIMERS: u32 = 100_000;

impl<M: Machine> World<M> {
    /// Calls a host's machine with the host's time, and carries out what it wants then.
    pub fn with<R>(&mut self, host: HostId, call: impl FnOnce(&mut M, Instant) -> R) -> R {
        let clock = self.clock(host);
        let result = call(&mut self.hosts[host.index()].machine, clock);
        self.settle(host);
        result
    }

    /// The time by a host's clock.
    #[must_use]
    pub fn clock(&self, host: HostId) -> Instant {
        self.now + self.hosts[host.index()].ahead
    }

    pub(super) fn start(&mut self, host: HostId) {
        self.tell_interfaces(host);
        for region in self.hosts[host.index()].homes.clone() {
            if self.is_reachable(host, region) {
                self.connect(region, host);
            } else {
                self.dial(region, host);
            }
        }
    }

    pub(super) fn tell_interfaces(&mut self, host: HostId) {
        let addresses = self.hosts[host.index()].addresses();
        self.trace.note(self.now, Happening::Interfaces { host, count: addresses.len() });
        let gateway = self.gateway_of(host);
        self.with(host, |machine, now| {
            machine.handle_interfaces(now, &addresses);
            machine.handle_gateway(now, gateway);
        });
    }

    /// The gateway of the network in which a host has its first address.
    fn gateway_of(&self, host: HostId) -> Option<GatewayConfig> {
        let host = &self.hosts[host.index()];
        let at = host.attachments.first()?;
        let Place::Behind(nat) = at.place else { return None };
        let (SocketAddr::V4(gateway), IpAddr::V4(address)) = (self.gateway(nat)?, at.address) else {
            return None;
        };
        Some(GatewayConfig { address: *gateway.ip(), local: SocketAddrV4::new(address, host.port) })
    }

    pub(super) fn tell_relay(&mut self, host: HostId, event: RelayEvent) {
        let what = match event {
            RelayEvent::Up(region) => Happening::RelayLink { host, region, up: true },
            RelayEvent::Down(region) => Happening::RelayLink { host, region, up: false },
            RelayEvent::PeerGone { region, .. } => Happening::PeerGone { host, region },
            RelayEvent::RoundTrip { region, .. }
            | RelayEvent::Attested { region, .. }
            | RelayEvent::Heard(region) => Happening::RelayMeasured { host, region },
        };
        self.trace.note(self.now, what);
        self.with(host, |machine, now| machine.handle_relay(now, event));
    }

    /// Hands a host a packet.
    pub(super) fn hand(&mut self, host: HostId, received: Received, packet: Vec<u8>) {
        let via = match received {
            Received::Udp { .. } => Via::Udp,
            Received::Relay { .. } => Via::Relay,
        };
        let clock = self.clock(host);
        let peer = self.hosts[host.index()].machine.handle_packet(clock, received, &packet);
        self.keep_account(host, via, peer, &packet);
        self.recycle(packet);
        self.settle(host);
    }

    pub(super) fn timer(&mut self, host: HostId) {
        let state = &mut self.hosts[host.index()];
        if state.armed != Some(self.now) {
            return;
        }
        state.armed = None;
        if state.asleep.is_some() {
            return;
        }
        let ahead = state.ahead;
        if state.machine.poll_timeout().is_some_and(|due| due - ahead <= self.now) {
            self.count_timer(host);
            self.trace.note(self.now, Happening::Timeout { host });
            self.with(host, M::handle_timeout);
        } else {
            self.arm(host);
        }
    }

    /// # Panics
    /// If a machine asks for a time that has passed again and again.
    fn count_timer(&mut self, host: HostId) {
        if self.fired.0 != self.now {
            self.fired = (self.now, 0);
        }
        self.fired.1 += 1;
        assert!(self.fired.1 < MOST_TIMERS, "{host} asks for a time that has passed, again and again");
    }

    pub(super) fn wake(&mut self, host: HostId) {
        if self.hosts[host.index()].asleep.is_some_and(|until| until <= self.now) {
            self.hosts[host.index()].asleep = None;
            self.settle(host);
        }
    }

    /// Sends what a machine wants to send, and sets its timer.
    ///
    /// # Panics
    /// If a machine does not stop sending.
    pub(super) fn settle(&mut self, host: HostId) {
        let clock = self.clock(host);
        for _ in 0..MOST_TRANSMITS {
            let mut packet = self.buffer();
            match self.hosts[host.index()].machine.poll_transmit(clock, &mut packet) {
                None => {
                    self.recycle(packet);
                    self.keep_homes(host);
                    self.arm(host);
                    return;
                }
                Some(Transmit::Ping { region }) => {
                    self.recycle(packet);
                    self.ping_relay(host, region);
                }
                Some(Transmit::Redial { region }) => {
                    self.recycle(packet);
                    self.redial(region, host);
                }
                // The gateways of this world do not speak it.
                Some(Transmit::Upnp { .. }) => self.recycle(packet),
                Some(Transmit::Udp { src, dst, ttl }) => self.send_datagram(host, src, dst, ttl, packet),
                Some(Transmit::Relay { region, peer }) => self.send_relayed(host, region, peer, packet),
            }
        }
        panic!("{host} does not stop sending");
    }

    /// Dials the relays to which a machine wants links that the host does not keep yet.
    fn keep_homes(&mut self, host: HostId) {
        let state = &mut self.hosts[host.index()];
        if let Some(homes) = state.machine.homes().filter(|homes| *homes != state.homes) {
            state.homes = homes;
            self.dial_homes(host);
        }
    }

    fn arm(&mut self, host: HostId) {
        let now = self.now;
        let state = &mut self.hosts[host.index()];
        if state.asleep.is_some() {
            return;
        }
        let Some(due) = state.machine.poll_timeout() else { return };
        let due = (due - state.ahead).max(now);
        if state.armed.is_none_or(|armed| due < armed) {
            state.armed = Some(due);
            self.queue.push(due, Event::Timer(host));
        }
    }

    /// Whether a host is suspended; if so, until when.
    pub(super) fn asleep(&self, host: HostId) -> Option<Instant> {
        self.hosts[host.index()].asleep
    }
}
