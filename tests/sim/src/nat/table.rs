//! A NAT at work: its mappings, what they let in, and the entries of early packets.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use towpath_wire::time::Instant;

use super::{Allocator, Dependence, Early, Egress, Nat, Pooling, Refresh};
use crate::random::Random;
use crate::trace::Dropped;

/// The lowest port that is given to a mapping by chance.
const FIRST_PORT: u16 = 1024;

/// How long Linux keeps the entry of a flow that was never answered.
const UNANSWERED: Duration = Duration::from_secs(30);

/// The internal endpoint of a mapping, with as much of the remote as the mapping is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Key {
    inner: SocketAddr,
    remote: Option<IpAddr>,
    port: Option<u16>,
}

impl Key {
    fn new(dependence: Dependence, inner: SocketAddr, remote: SocketAddr) -> Self {
        Self {
            inner,
            remote: (dependence > Dependence::EndpointIndependent).then(|| remote.ip()),
            port: (dependence == Dependence::AddressAndPortDependent).then(|| remote.port()),
        }
    }
}

#[derive(Debug)]
struct Mapping {
    key: Key,
    /// When it ends; `None` for one that was set up by hand.
    expires: Option<Instant>,
    /// The remotes that were sent to, each until when its packets are let in.
    permits: BTreeMap<SocketAddr, Instant>,
}

impl Mapping {
    fn is_alive(&self, now: Instant) -> bool {
        self.expires.is_none_or(|expires| expires > now)
    }

    fn permits(&self, remote: SocketAddr, now: Instant) -> bool {
        self.permits.get(&remote).is_some_and(|until| *until > now)
    }

    fn accepts(&self, filtering: Dependence, remote: SocketAddr, now: Instant) -> bool {
        if self.expires.is_none() {
            return true;
        }
        match filtering {
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
        let flow = Key::new(Dependence::AddressAndPortDependent, inner, remote);
        let usual = Key::new(self.nat.mapping, inner, remote);
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
        mapping.expires = mapping.expires.map(|_| until);
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
                mapping.expires = mapping.expires.map(|_| until);
                if mapping.permits(remote, now) {
                    mapping.permits.insert(remote, until);
                }
            }
            let inner = mapping.key.inner;
            if mapping.expires.is_none() {
                // The answers to what came in by a forwarded port leave by that port.
                let flow = Key::new(Dependence::AddressAndPortDependent, inner, remote);
                self.outers.insert(flow, outer);
            }
            return Ok(inner);
        }
        if self.nat.early == Early::Accept {
            self.early.insert((outer, remote), now + UNANSWERED);
        }
        Err(if known { Dropped::Filtered } else { Dropped::NoMapping })
    }

    /// Forwards an external port to an endpoint inside, for good. Everything that comes in is accepted.
    pub(crate) fn forward(&mut self, outer: SocketAddr, inner: SocketAddr) {
        let key = Key { inner, remote: None, port: None };
        self.mappings.insert(outer, Mapping { key, expires: None, permits: BTreeMap::new() });
        self.outers.insert(key, outer);
    }

    /// Loses all that was learnt. The external endpoints of before are used again, or not.
    pub(crate) fn forget(&mut self, new_ports: bool) {
        let (kept, lost) = std::mem::take(&mut self.mappings)
            .into_iter()
            .partition::<BTreeMap<_, _>, _>(|(_, mapping)| mapping.expires.is_none());
        self.mappings = kept;
        self.outers.retain(|_, outer| !lost.contains_key(outer));
        self.early.clear();
        self.last = self.random.port(FIRST_PORT, u16::MAX);
        if new_ports {
            self.retired.extend(lost.into_keys());
        }
    }

    /// The number of mappings that are alive.
    pub(crate) fn mappings(&self, now: Instant) -> usize {
        self.mappings.values().filter(|mapping| mapping.is_alive(now)).count()
    }

    /// How many mappings are kept, the dead ones included, and as many internal endpoints with them.
    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        assert_eq!(self.mappings.len(), self.outers.len());
        self.mappings.len()
    }

    /// Whether an external port is forwarded for good.
    pub(crate) fn forwards(&self) -> bool {
        self.mappings.values().any(|mapping| mapping.expires.is_none())
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
        if let Some(dead) = self.mappings.remove(&outer) {
            self.outers.remove(&dead.key);
        }
        if let Some(dead) = self.outers.insert(key, outer).filter(|dead| *dead != outer) {
            self.mappings.remove(&dead);
        }
        self.mappings.insert(outer, Mapping { key, expires: Some(now), permits: BTreeMap::new() });
        Ok(outer)
    }

    /// The external endpoint with the port of the internal one, where the NAT tries to preserve ports.
    fn preserved(&self, key: Key) -> Option<SocketAddr> {
        let preserves = self.nat.translates && self.nat.allocator == Allocator::Preserve;
        let address = *self.addresses.get(self.paired(key.inner.ip()))?;
        preserves.then(|| SocketAddr::new(address, key.inner.port()))
    }

    fn allocate(&mut self, now: Instant, key: Key, remote: SocketAddr) -> Option<SocketAddr> {
        let choice = match self.nat.pooling {
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
        let bits = match inner {
            IpAddr::V4(ip) => u64::from(ip.to_bits()),
            IpAddr::V6(ip) => u64::try_from(ip.to_bits() & u128::from(u64::MAX)).unwrap_or(0),
        };
        usize::try_from(bits % self.addresses.len().max(1) as u64).unwrap_or(0)
    }

    fn clear(&mut self, now: Instant) {
        let outers = &mut self.outers;
        self.mappings.retain(|_, mapping| {
            let alive = mapping.is_alive(now);
            if alive {
                mapping.permits.retain(|_, until| *until > now);
            } else {
                outers.remove(&mapping.key);
            }
            alive
        });
        self.early.retain(|_, until| *until > now);
        self.clear_at = 128.max(2 * self.mappings.len());
    }
}
