//! Which connection has which key, and who must be told when a key leaves.
//!
//! The map is asked on the first packet of a sender to a destination and whenever a connection comes or goes; the
//! steady state lives on the senders' route caches. No guard of the map leaves an expression here.

use std::collections::HashMap;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Weak};

use dashmap::DashMap;
use dashmap::mapref::entry::Entry;
use relay_proto::presence::{Departure, Presence};
use tracing::debug;
use wire::key::NodePublic;

use super::peer::Peer;

/// Most connections that are told when one key leaves. A key that has sent to more is a server of a large network; the
/// clients beyond find out by their own timeouts.
const MAX_AUDIENCE: usize = 4096;

/// What the clients of a key are told that is in use twice; stock clients show it among the problems of the network.
const CONTESTED: &str = "another device uses the same node key; packets go to whichever sent last";
/// And when only one of them is left: a Health frame without a text takes the problem back.
const SETTLED: &str = "";

/// Everybody who is logged in.
#[derive(Debug, Default)]
pub(crate) struct Registry {
    /// Clients choose their keys, so the map's hasher is keyed (the standard library's SipHash).
    keys: DashMap<NodePublic, Entrant>,
    ids: AtomicU64,
    gauges: Gauges,
}

/// How many are here.
#[derive(Debug, Default)]
pub(crate) struct Gauges {
    /// Connections.
    pub(crate) connections: AtomicI64,
    /// Connections that called this relay their home.
    pub(crate) home: AtomicI64,
    /// Connections that said that another relay would be nearer.
    pub(crate) not_ideal: AtomicI64,
    /// Keys that have two connections or more.
    pub(crate) shared_keys: AtomicI64,
    /// The connections of those keys.
    pub(crate) shared_connections: AtomicI64,
    /// Connections that came while their key had one.
    pub(crate) shared_total: AtomicI64,
    /// Times that a key was found to be in use by two clients.
    pub(crate) contested_total: AtomicI64,
}

#[derive(Debug)]
struct Entrant {
    connections: Presence<Peer>,
    audience: Option<Box<Audience<Peer>>>,
}

/// The connections that have received something from a key, by their numbers.
#[derive(Debug)]
struct Audience<C> {
    members: HashMap<u64, Weak<C>>,
    /// After so many more additions those that left are removed: as many as there were members, so that an addition
    /// costs the same on average however many there are.
    until_sweep: usize,
}

impl<C> Default for Audience<C> {
    fn default() -> Self {
        Self { members: HashMap::new(), until_sweep: Self::LEAST_UNTIL_SWEEP }
    }
}

impl<C> Audience<C> {
    const LEAST_UNTIL_SWEEP: usize = 8;

    fn add(&mut self, id: u64, connection: &Arc<C>) {
        self.until_sweep -= 1;
        if self.until_sweep == 0 {
            self.members.retain(|_, member| member.strong_count() > 0);
            self.until_sweep = self.members.len().max(Self::LEAST_UNTIL_SWEEP);
        }
        if self.members.len() < MAX_AUDIENCE {
            self.members.insert(id, Arc::downgrade(connection));
        }
    }
}

impl Registry {
    /// A number that no other connection has had.
    pub(crate) fn next_id(&self) -> u64 {
        self.ids.fetch_add(1, Ordering::Relaxed)
    }

    pub(crate) const fn gauges(&self) -> &Gauges {
        &self.gauges
    }

    /// Distinct keys.
    pub(crate) fn keys(&self) -> usize {
        self.keys.len()
    }

    /// Adds a connection; from now on packets for its key go to it.
    ///
    /// Here and below `tell` is given who shall be told of the health of its key, and in which words: inside the map's
    /// lock, so that each hears last what is true last.
    pub(crate) fn join(&self, peer: &Arc<Peer>, tell: impl FnOnce(&Arc<Peer>, &str)) {
        self.gauges.connections.fetch_add(1, Ordering::Relaxed);
        match self.keys.entry(peer.key) {
            Entry::Vacant(vacant) => {
                vacant.insert(Entrant { connections: Presence::new(peer.clone()), audience: None });
            }
            Entry::Occupied(mut occupied) => {
                let connections = &mut occupied.get_mut().connections;
                let (keys, both) = if connections.len() == 1 { (1, 2) } else { (0, 1) };
                connections.join(peer.clone());
                self.gauges.shared_keys.fetch_add(keys, Ordering::Relaxed);
                self.gauges.shared_connections.fetch_add(both, Ordering::Relaxed);
                self.gauges.shared_total.fetch_add(1, Ordering::Relaxed);
                if connections.is_contested() {
                    tell(peer, CONTESTED);
                }
            }
        }
    }

    /// The connection that packets for `key` go to.
    pub(crate) fn find(&self, key: &NodePublic) -> Option<Arc<Peer>> {
        self.keys.get(key).map(|presence| presence.connections.active().clone())
    }

    /// Notes that `peer` has sent a frame, which makes it the active connection of its key.
    pub(crate) fn note_sent(&self, peer: &Peer, mut tell: impl FnMut(&Arc<Peer>, &str)) {
        if let Some(mut presence) = self.keys.get_mut(&peer.key)
            && presence.connections.note_sent(peer.id)
        {
            self.gauges.contested_total.fetch_add(1, Ordering::Relaxed);
            debug!(peer = ?peer.key, address = %peer.address, "two clients use this key");
            presence.connections.connections().for_each(|each| tell(each, CONTESTED));
        }
    }

    /// Notes that `listener` receives from the key `from`, so that it is told when that key leaves.
    pub(crate) fn note_heard(&self, from: &NodePublic, listener: &Arc<Peer>) {
        if let Some(mut presence) = self.keys.get_mut(from) {
            presence.audience.get_or_insert_default().add(listener.id, listener);
        }
    }

    /// Removes a connection. Returns who must be told that its key is gone: nobody while the key has other connections.
    pub(crate) fn leave(&self, peer: &Peer, tell: impl FnOnce(&Arc<Peer>, &str)) -> Vec<Arc<Peer>> {
        let Entry::Occupied(mut occupied) = self.keys.entry(peer.key) else { return Vec::new() };
        let connections = &mut occupied.get_mut().connections;
        match connections.leave(peer.id) {
            Departure::Unknown => return Vec::new(),
            Departure::OthersRemain { settled } => {
                if settled {
                    tell(connections.active(), SETTLED);
                }
                let (keys, both) = if connections.len() == 1 { (1, 2) } else { (0, 1) };
                self.gauges.shared_keys.fetch_sub(keys, Ordering::Relaxed);
                self.gauges.shared_connections.fetch_sub(both, Ordering::Relaxed);
                self.gauges.connections.fetch_sub(1, Ordering::Relaxed);
                return Vec::new();
            }
            Departure::KeyGone => {}
        }
        self.gauges.connections.fetch_sub(1, Ordering::Relaxed);
        let gone = occupied.remove();
        gone.audience.map_or_else(Vec::new, |audience| {
            audience.members.into_values().filter_map(|member| member.upgrade()).collect()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_audience_is_bounded_and_those_who_left_make_room() {
        let mut audience = Audience::default();
        let early: Vec<_> = (0..MAX_AUDIENCE as u64).map(|id| (id, Arc::new(()))).collect();
        let late: Vec<_> = (MAX_AUDIENCE as u64..).take(100).map(|id| (id, Arc::new(()))).collect();
        for (id, connection) in early.iter().chain(&late).chain(&early) {
            audience.add(*id, connection);
        }
        assert_eq!(audience.members.len(), MAX_AUDIENCE);
        assert!(late.iter().all(|(id, _)| !audience.members.contains_key(id)), "the first ones stay");
        drop(early);
        for (id, connection) in late.iter().cycle().take(2 * MAX_AUDIENCE) {
            audience.add(*id, connection);
        }
        assert_eq!(audience.members.len(), late.len());
    }
}
