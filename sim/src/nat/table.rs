//! A NAT at work: its mappings, what they let in, and the entries of early packets.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use towpath_wire::time::Instant;

use super::model::{Allocator, Dependence, Early, Egress, Nat, Pooling, Refresh};
use crate::random::Random;
use crate::trace::Dropped;

/// The lowest port that is given to a mapping by chance.
const FIRST_PORT: u16 = 1024;

/// The end of what does not end.
const FOREVER: Instant = Instant::from_nanos(u64::MAX);

/// How long Linux keeps the entry of a flow that was never answered.
const UNANSWERED: Duration = Duration::from_secs(30);

/// The internal endpoint of a mapping, with as much of the remote as the mapping is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Key {
    inner: SocketAddr,
    remote: Option<IpAddr>,
    port: Option<u16>,
    /// Which of the external addresses, where flows are spread over them; else 0.
    pool: usize,
}

impl Key {
    fn new(dependence: Dependence, inner: SocketAddr, remote: SocketAddr) -> Self {
        Self {
            inner,
            remote: (dependence > Dependence::EndpointIndependent).then(|| remote.ip()),
            port: (dependence == Dependence::AddressAndPortDependent).then(|| remote.port()),
            pool: 0,
        }
    }
}

#[derive(Debug)]
struct Mapping {
    key: Key,
    /// When it ends; [`FOREVER`] for one that was set up by hand.
    expires: Instant,
    /// Whether it was asked for, so that it takes all that comes, and lives as long as was granted.
    forwarded: bool,
    /// The remotes that were sent to, each until when its packets are let in.
    permits: BTreeMap<SocketAddr, Instant>,
}

impl Mapping {
    /// Lets a mapping that was not asked for live longer.
    const fn refresh(&mut self, until: Instant) {
        if !self.forwarded {
            self.expires = until;
        }
    }

    fn is_alive(&self, now: Instant) -> bool {
        self.expires > now
    }

    fn permits(&self, remote: SocketAddr, now: Instant) -> bool {
        self.permits.get(&remote).is_some_and(|until| *until > now)
    }

    fn accepts(&self, filtering: Dependence, remote: SocketAddr, now: Instant) -> bool {
        match filtering {
            _ if self.forwarded => true,
            Dependence::EndpointIndependent => true,
            Dependence::AddressDependent => {
                let any = |port| SocketAddr::new(remote.ip(), port);
                self.permits.range(any(0)..=any(u16::MAX)).any(|(_, until)| *until > now)
            }
            Dependence::AddressAndPortDependent => self.permits(remote, now),
        }
    }
}

/// A NAT at work.
#[derive(Debug)]
pub(crate) struct Table {
    pub(crate) nat: Nat,
    /// The external addresses. None where addresses are not translated.
    pub(crate) addresses: Vec<IpAddr>,
    random: Random,
    mappings: BTreeMap<SocketAddr, Mapping>,
    outers: BTreeMap<Key, SocketAddr>,
    /// The flows of early packets, by external endpoint and remote.
    early: BTreeMap<(SocketAddr, SocketAddr), Instant>,
    /// External endpoints that are not given out any more.
    retired: BTreeSet<SocketAddr>,
    /// The port that was given out last.
    last: u16,
    /// When the NAT started.
    started: Instant,
    /// At how many mappings the dead ones are cleared away.
    clear_at: usize,
}

impl Table {
    pub(crate) fn new(nat: Nat, addresses: Vec<IpAddr>, mut random: Random) -> Self {
        let last = random.port(FIRST_PORT, u16::MAX);
        Self {
            nat,
            addresses,
            random,
            mappings: BTreeMap::new(),
            outers: BTreeMap::new(),
            early: BTreeMap::new(),
            retired: BTreeSet::new(),
            last,
            started: Instant::ZERO,
            clear_at: 128,
        }
    }

    /// The source that a packet from inside has outside.
    pub(crate) fn outbound(
        &mut self,
        now: Instant,
        inner: SocketAddr,
        remote: SocketAddr,
    ) -> Result<SocketAddr, Dropped> {
        match self.nat.egress {
            Egress::All => {}
            Egress::Port(port) if port == remote.port() => {}
            Egress::Port(_) | Egress::Nothing => return Err(Dropped::Egress),
        }
        let pool = self.pool(inner, remote);
        let [flow, usual] = [Dependence::AddressAndPortDependent, self.nat.mapping]
            .map(|dependence| Key { pool, ..Key::new(dependence, inner, remote) });
        let outer = match self.live(flow, now) {
            Some(outer) => outer,
            None => match self.live(usual, now) {
                Some(outer) if !self.collides(outer, remote, now) => outer,
                // The tuple is taken, so this flow alone gets another port.
                Some(_) => self.map(now, flow, remote)?,
                None => self.map_anew(now, usual, flow, remote)?,
            },
        };
        let until = now + self.nat.timeout;
        let mapping = self.mappings.get_mut(&outer).expect("a live mapping");
        mapping.refresh(until);
        mapping.permits.insert(remote, until);
        Ok(outer)
    }

    /// The endpoint inside to which a packet from outside goes.
    pub(crate) fn inbound(
        &mut self,
        now: Instant,
        remote: SocketAddr,
        outer: SocketAddr,
    ) -> Result<SocketAddr, Dropped> {
        if self.nat.egress == Egress::Nothing {
            return Err(Dropped::Egress);
        }
        let mapping = self.mappings.get_mut(&outer).filter(|mapping| mapping.is_alive(now));
        let known = mapping.is_some();
        if let Some(mapping) = mapping
            && mapping.accepts(self.nat.filtering, remote, now)
        {
            if self.nat.refresh == Refresh::Both {
                let until = now + self.nat.timeout;
                mapping.refresh(until);
                if mapping.permits(remote, now) {
                    mapping.permits.insert(remote, until);
                }
            }
            let inner = mapping.key.inner;
            if mapping.forwarded {
                // The answers to what came in by a forwarded port leave by that port.
                let pool = self.pool(inner, remote);
                let flow = Key::new(Dependence::AddressAndPortDependent, inner, remote);
                self.outers.insert(Key { pool, ..flow }, outer);
            }
            return Ok(inner);
        }
        if self.nat.early == Early::Accept {
            self.early.insert((outer, remote), now + UNANSWERED);
        }
        Err(if known { Dropped::Filtered } else { Dropped::NoMapping })
    }

    /// Forwards an external port to an endpoint inside until some time, or for good. Everything that comes in is accepted.
    pub(crate) fn forward(&mut self, outer: SocketAddr, inner: SocketAddr, until: Option<Instant>) {
        let pool = self.addresses.iter().position(|address| *address == outer.ip()).unwrap_or(0);
        let pool = if self.nat.pooling == Pooling::PerFlow { pool } else { 0 };
        let key = Key { inner, remote: None, port: None, pool };
        self.remove(outer);
        let expires = until.unwrap_or(FOREVER);
        self.mappings.insert(outer, Mapping { key, expires, forwarded: true, permits: BTreeMap::new() });
        self.outers.insert(key, outer);
    }

    /// Forwards an external port for as long as the gateway grants; the wanted one if it is free or the host's own.
    pub(crate) fn lease(
        &mut self,
        now: Instant,
        inner: SocketAddr,
        wanted: u16,
        lifetime: Duration,
    ) -> Option<SocketAddr> {
        let address = *self.addresses.get(self.paired(inner.ip()))?;
        let mut leased = self.mappings.iter().filter(|(_, mapping)| mapping.forwarded);
        let renewed = leased.find(|(_, mapping)| mapping.key.inner == inner).map(|(outer, _)| *outer);
        let wanted = SocketAddr::new(address, if wanted == 0 { inner.port() } else { wanted });
        let own = self.mappings.get(&wanted).is_some_and(|mapping| mapping.key.inner == inner);
        let is_free = |table: &Self, port: &SocketAddr| table.is_free(now, *port, inner);
        let outer = match renewed {
            Some(outer) => outer,
            None if own || is_free(self, &wanted) => wanted,
            None => {
                let drawn = self.random.port(FIRST_PORT, u16::MAX);
                let ports = (drawn..=u16::MAX).chain(FIRST_PORT..drawn);
                ports.map(|port| SocketAddr::new(address, port)).find(|port| is_free(self, port))?
            }
        };
        if lifetime.is_zero() {
            self.remove(outer);
        } else {
            self.forward(outer, inner, Some(now + lifetime));
        }
        Some(outer)
    }

    /// Starts anew: loses all that was learnt or leased. The external endpoints of before are used again, or not.
    pub(crate) fn restart(&mut self, new_ports: bool, now: Instant) {
        self.started = now;
        let lost: Vec<SocketAddr> = (self.mappings.iter())
            .filter(|(_, mapping)| mapping.expires != FOREVER)
            .map(|(outer, _)| *outer)
            .collect();
        for outer in &lost {
            self.remove(*outer);
        }
        self.outers.retain(|_, outer| self.mappings.contains_key(outer));
        self.early.clear();
        self.last = self.random.port(FIRST_PORT, u16::MAX);
        if new_ports {
            self.retired.extend(lost);
        }
    }

    /// Seconds since the start, which the gateway names.
    pub(crate) fn age(&self, now: Instant) -> u32 {
        u32::try_from(now.since(self.started).as_secs()).unwrap_or(u32::MAX)
    }

    /// Takes away a mapping.
    fn remove(&mut self, outer: SocketAddr) {
        if let Some(mapping) = self.mappings.remove(&outer)
            && self.outers.get(&mapping.key) == Some(&outer)
        {
            self.outers.remove(&mapping.key);
        }
    }

    /// The number of mappings that are alive.
    pub(crate) fn mappings(&self, now: Instant) -> usize {
        self.mappings.values().filter(|mapping| mapping.is_alive(now)).count()
    }

    /// How many mappings are kept, the dead ones included, and as many internal endpoints with them.
    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        assert!(self.outers.len() <= self.mappings.len());
        self.mappings.len()
    }

    /// Whether an external port is forwarded.
    pub(crate) fn forwards(&self, now: Instant) -> bool {
        self.mappings.values().any(|mapping| mapping.forwarded && mapping.is_alive(now))
    }

    /// Whether a host inside has been granted an external port, which it knows therefore.
    pub(crate) fn leases_to(&self, host: IpAddr, now: Instant) -> bool {
        let is_lease =
            |mapping: &Mapping| mapping.forwarded && mapping.expires != FOREVER && mapping.is_alive(now);
        self.mappings.values().any(|mapping| is_lease(mapping) && mapping.key.inner.ip() == host)
    }

    /// The number of flows of early packets that are remembered.
    pub(crate) fn early(&self, now: Instant) -> usize {
        self.early.values().filter(|until| **until > now).count()
    }

    fn live(&self, key: Key, now: Instant) -> Option<SocketAddr> {
        let outer = *self.outers.get(&key)?;
        self.mappings.get(&outer).is_some_and(|mapping| mapping.is_alive(now)).then_some(outer)
    }

    /// Whether an early packet has taken the tuple that a new flow from inside would have.
    fn collides(&self, outer: SocketAddr, remote: SocketAddr, now: Instant) -> bool {
        !self.early.is_empty()
            && self.early.get(&(outer, remote)).is_some_and(|until| *until > now)
            && !self.mappings.get(&outer).is_some_and(|mapping| mapping.permits(remote, now))
    }

    /// A mapping for an internal endpoint that has none. Where the port is preserved, and an early packet has taken it
    /// for this remote, then only this flow gets another one.
    fn map_anew(
        &mut self,
        now: Instant,
        usual: Key,
        flow: Key,
        remote: SocketAddr,
    ) -> Result<SocketAddr, Dropped> {
        let preserved = self.preserved(usual);
        let collides = preserved.is_some_and(|outer| self.collides(outer, remote, now));
        self.map(now, if collides { flow } else { usual }, remote)
    }

    /// Makes a mapping.
    fn map(&mut self, now: Instant, key: Key, remote: SocketAddr) -> Result<SocketAddr, Dropped> {
        if self.mappings.len() >= self.clear_at {
            self.clear(now);
        }
        if self.mappings.len() >= self.nat.quota {
            self.clear(now);
            if self.mappings.len() >= self.nat.quota {
                return Err(Dropped::NoPort);
            }
        }
        let outer = if self.nat.translates {
            self.allocate(now, key, remote).ok_or(Dropped::NoPort)?
        } else {
            key.inner
        };
        self.remove(outer);
        if let Some(dead) = self.outers.insert(key, outer) {
            self.mappings.remove(&dead);
        }
        self.mappings
            .insert(outer, Mapping { key, expires: now, forwarded: false, permits: BTreeMap::new() });
        Ok(outer)
    }

    /// The external endpoint with the port of the internal one, where the NAT tries to preserve ports.
    fn preserved(&self, key: Key) -> Option<SocketAddr> {
        let preserves = self.nat.translates && self.nat.allocator == Allocator::Preserve;
        let choice = match self.nat.pooling {
            Pooling::PerFlow => key.pool,
            Pooling::Paired | Pooling::Arbitrary => self.paired(key.inner.ip()),
        };
        let address = *self.addresses.get(choice)?;
        preserves.then(|| SocketAddr::new(address, key.inner.port()))
    }

    fn allocate(&mut self, now: Instant, key: Key, remote: SocketAddr) -> Option<SocketAddr> {
        let choice = match self.nat.pooling {
            Pooling::PerFlow => key.pool,
            Pooling::Paired => self.paired(key.inner.ip()),
            Pooling::Arbitrary => {
                usize::try_from(self.random.below(self.addresses.len() as u64)).unwrap_or(0)
            }
        };
        let address = *self.addresses.get(choice)?;
        let is_free = |table: &Self, port| table.is_free(now, SocketAddr::new(address, port), remote);
        let (first, last) = match self.nat.allocator {
            Allocator::Preserve if is_free(self, key.inner.port()) => {
                return Some(SocketAddr::new(address, key.inner.port()));
            }
            Allocator::Step(step) => return self.step(now, step, address, remote),
            Allocator::Preserve | Allocator::Random => (FIRST_PORT, u16::MAX),
            Allocator::Block { start, size } => (start, start.saturating_add(size.saturating_sub(1))),
        };
        let drawn = self.random.port(first, last);
        // From the drawn port to the end, and around.
        let port = (drawn..=last).chain(first..drawn).find(|port| is_free(self, *port))?;
        Some(SocketAddr::new(address, port))
    }

    fn step(&mut self, now: Instant, step: u16, address: IpAddr, remote: SocketAddr) -> Option<SocketAddr> {
        for _ in 0..=u16::MAX {
            self.last = match self.last.checked_add(step) {
                Some(port) => port,
                // Around the end, with the remainder kept so that the step of 256 does not meet itself.
                None => FIRST_PORT + self.last.wrapping_add(step) % FIRST_PORT,
            };
            let outer = SocketAddr::new(address, self.last);
            if self.is_free(now, outer, remote) {
                return Some(outer);
            }
        }
        None
    }

    fn is_free(&self, now: Instant, outer: SocketAddr, remote: SocketAddr) -> bool {
        !self.mappings.get(&outer).is_some_and(|mapping| mapping.is_alive(now))
            && !self.retired.contains(&outer)
            && !self.collides(outer, remote, now)
    }

    /// Which of the external addresses belongs to an internal one.
    fn paired(&self, inner: IpAddr) -> usize {
        usize::try_from(low(inner) % self.addresses.len().max(1) as u64).unwrap_or(0)
    }

    /// Which of the external addresses a flow has, where flows are spread over them; else 0.
    fn pool(&self, inner: SocketAddr, remote: SocketAddr) -> usize {
        if self.nat.pooling != Pooling::PerFlow {
            return 0;
        }
        let ends = [inner, remote].map(|end| u64::from(end.port()) << 32 | low(end.ip()));
        let hash = Random::stream(ends[0], ends[1]).below(self.addresses.len() as u64);
        usize::try_from(hash).unwrap_or(0)
    }

    fn clear(&mut self, now: Instant) {
        self.mappings.retain(|_, mapping| {
            let alive = mapping.is_alive(now);
            if alive {
                mapping.permits.retain(|_, until| *until > now);
            }
            alive
        });
        self.outers.retain(|_, outer| self.mappings.contains_key(outer));
        self.early.retain(|_, until| *until > now);
        self.clear_at = 128.max(2 * self.mappings.len());
    }
}

/// The lower bits of an address.
fn low(address: IpAddr) -> u64 {
    match address {
        IpAddr::V4(ip) => u64::from(ip.to_bits()),
        IpAddr::V6(ip) => u64::try_from(ip.to_bits() & 0xffff_ffff).unwrap_or(0),
    }
}
