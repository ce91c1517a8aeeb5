//! The registry: which connection has which key, which relay of the region has the other keys, and which connections
//! must be told when a key leaves.
//!
//! The map is read on the first packet of a connection to a destination and whenever a connection comes or goes. After
//! that the connections' route caches answer. No guard of the map leaves a function of this module.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use dashmap::DashMap;
use dashmap::mapref::entry::Entry;
use towpath_relay_proto::key_routes::{ForwarderChange, KeyRoutes, Route};
use towpath_relay_proto::presence::{Departure, Presence};
use towpath_relay_proto::watch_backlog::PresenceChange;
use tracing::debug;

use crate::config::CurrentLimits;
use crate::counters::{Event, Gauges, Level};
use crate::gone_subscribers::GoneSubscribers;
use crate::key::RouteKey;
use crate::peer::Peer;
use crate::routes::{Forwarder, PeerRoute};
use crate::unannounced::{Epoch, UnannouncedSenders};
use crate::watchers::{Notify, PresenceEvent, Watchers};

/// The text that the clients of a key receive while two of them use it. Stock clients show it among network problems.
const CONTESTED: &str = "another device uses the same node key; packets go to whichever sent last";
/// The text that a connection receives before it is closed because its key has too many.
const EVICTED: &str =
    "too many connections use this node key; the relay closes the one that has been silent the longest";
/// The text that the last client of such a key receives. A Health frame without a text withdraws the problem.
const RESOLVED: &str = "";

/// Every key that is logged in, here or at another relay of the region.
#[derive(Debug)]
pub(crate) struct Registry {
    /// Clients choose their keys, so the map's hasher is keyed (the standard library's SipHash).
    keys: DashMap<RouteKey, KeyEntry>,
    watchers: Watchers,
    unannounced: UnannouncedSenders<Peer>,
    ids: AtomicU64,
    gauges: Gauges,
    limits: Arc<CurrentLimits>,
}

/// What is known of one key.
#[derive(Debug)]
struct KeyEntry {
    routes: KeyRoutes<Peer, Forwarder>,
    subscribers: Option<Box<GoneSubscribers<Peer>>>,
}

impl KeyEntry {
    fn subscribe(&mut self, listener: &Arc<Peer>) {
        self.subscribers.get_or_insert_default().add(listener.id, listener);
    }

    fn route(&self) -> Option<PeerRoute> {
        self.routes.route().map(|route| match route {
            Route::Local(peer) => Route::Local(peer.clone()),
            Route::Via(forwarder) => Route::Via(forwarder.clone()),
        })
    }

    /// The connections that must be told that the key is gone.
    fn into_subscribers(self) -> Vec<Arc<Peer>> {
        self.subscribers.map_or_else(Vec::new, |subscribers| subscribers.into_live())
    }
}

impl Registry {
    /// An empty registry. `watchable`: a login can give the right to watch.
    pub(crate) fn new(watchable: bool, limits: Arc<CurrentLimits>) -> Self {
        Self {
            keys: DashMap::new(),
            watchers: Watchers::new(watchable),
            unannounced: UnannouncedSenders::default(),
            ids: AtomicU64::new(0),
            gauges: Gauges::default(),
            limits,
        }
    }

    /// A number that no other connection has had.
    pub(crate) fn next_id(&self) -> u64 {
        self.ids.fetch_add(1, Ordering::Relaxed)
    }

    pub(crate) const fn gauges(&self) -> &Gauges {
        &self.gauges
    }

    /// Adds a connection; from now on packets for its key go to it. Watchers are told. Returns the connection of the key
    /// that must be closed because there are too many; the key has forgotten it already.
    pub(crate) fn join(&self, peer: &Arc<Peer>, notify: &mut Notify<'_>) -> Option<Arc<Peer>> {
        self.gauges.change(Level::Connections, 1);
        let mut evicted = None;
        let _entry = match self.keys.entry(peer.key) {
            Entry::Vacant(vacant) => {
                self.gauges.change(Level::KeysLocal, 1);
                vacant.insert(self.new_entry(&peer.key, KeyRoutes::local(peer.clone())))
            }
            Entry::Occupied(mut occupied) => {
                let routes = &mut occupied.get_mut().routes;
                match routes.connections() {
                    0 => {
                        self.gauges.change(Level::KeysLocal, 1);
                        self.gauges.change(Level::KeysRemote, -1);
                    }
                    others => {
                        self.gauges.change(Level::SharedKeys, i64::from(others == 1));
                        self.gauges.change(Level::SharedConnections, if others == 1 { 2 } else { 1 });
                        self.gauges.note(Event::SharedConnection);
                    }
                }
                routes.join(peer.clone());
                let most = self.limits.max_connections_per_key();
                evicted = routes.presence_mut().and_then(|presence| presence.evict(most));
                if let Some(evicted) = &evicted {
                    let alone = routes.connections() == 1;
                    self.gauges.change(Level::SharedKeys, -i64::from(alone));
                    self.gauges.change(Level::SharedConnections, if alone { -2 } else { -1 });
                    self.gauges.change(Level::Connections, -1);
                    notify(evicted, PresenceEvent::Health(EVICTED));
                }
                if routes.presence().is_some_and(Presence::is_contested) {
                    notify(peer, PresenceEvent::Health(CONTESTED));
                }
                occupied.into_ref()
            }
        };
        self.watchers.insert(&peer.key);
        self.watchers.notify(peer.key, peer.arrival(), notify);
        evicted
    }

    /// The route that packets for `key` take.
    pub(crate) fn find(&self, key: &RouteKey) -> Option<PeerRoute> {
        self.keys.get(key)?.route()
    }

    /// The connection of this relay that packets for `key` go to.
    pub(crate) fn find_local(&self, key: &RouteKey) -> Option<Arc<Peer>> {
        self.keys.get(key)?.routes.presence().map(|presence| presence.active().clone())
    }

    /// All connections of `key`.
    pub(crate) fn connections(&self, key: &RouteKey) -> Vec<Arc<Peer>> {
        let Some(entry) = self.keys.get(key) else { return Vec::new() };
        entry.routes.presence().map_or_else(Vec::new, |presence| presence.connections().cloned().collect())
    }

    /// Notes that `peer` has sent a frame, which makes it the active connection of its key.
    pub(crate) fn note_sent(&self, peer: &Peer, notify: &mut Notify<'_>) {
        if let Some(mut entry) = self.keys.get_mut(&peer.key)
            && let Some(presence) = entry.routes.presence_mut()
            && presence.note_sent(peer.id)
        {
            self.gauges.note(Event::ContestedKey);
            debug!(connection = peer.id, peer = ?peer.key.node(), address = %peer.address, "two clients use this key");
            presence.connections().for_each(|each| notify(each, PresenceEvent::Health(CONTESTED)));
        }
    }

    /// Subscribes `listener` to the departure of the key `from`, from which it receives packets. Returns the route to
    /// that key. Where no connection and no link has announced the key, the subscription is noted until one does, and
    /// the note holds until the next [`epoch`](Self::epoch).
    pub(crate) fn subscribe(&self, from: &RouteKey, listener: &Arc<Peer>) -> Result<PeerRoute, Epoch> {
        match self.keys.entry(*from) {
            Entry::Occupied(mut occupied) => {
                let entry = occupied.get_mut();
                entry.subscribe(listener);
                entry.route().ok_or_else(|| self.epoch())
            }
            // The note is made with the lock held, so that the announcement of the key finds it.
            Entry::Vacant(_vacant) => Err(self.unannounced.note(from, listener.id, listener)),
        }
    }

    /// The current epoch. Notes on unannounced keys hold until it ends.
    pub(crate) fn epoch(&self) -> Epoch {
        self.unannounced.epoch()
    }

    /// Removes a connection. Tells watchers if it was the last of its key here. Returns the other connections that must
    /// be told that its key is gone: none while another connection or relay has the key.
    pub(crate) fn leave(&self, peer: &Peer, notify: &mut Notify<'_>) -> Vec<Arc<Peer>> {
        let Entry::Occupied(mut occupied) = self.keys.entry(peer.key) else { return Vec::new() };
        let routes = &mut occupied.get_mut().routes;
        match routes.leave(peer.id) {
            Departure::Unknown => return Vec::new(),
            Departure::OthersRemain { resolved } => {
                if resolved && let Some(presence) = routes.presence() {
                    notify(presence.active(), PresenceEvent::Health(RESOLVED));
                }
                let last = routes.connections() == 1;
                self.gauges.change(Level::SharedKeys, -i64::from(last));
                self.gauges.change(Level::SharedConnections, if last { -2 } else { -1 });
                self.gauges.change(Level::Connections, -1);
                return Vec::new();
            }
            Departure::KeyGone => {}
        }
        let is_gone = routes.is_gone();
        self.gauges.change(Level::Connections, -1);
        self.gauges.change(Level::KeysLocal, -1);
        self.watchers.remove(&peer.key);
        self.watchers.notify(peer.key, PresenceChange::Gone, notify);
        if is_gone {
            return occupied.remove().into_subscribers();
        }
        self.gauges.change(Level::KeysRemote, 1);
        Vec::new()
    }

    /// Creates the entry of an arriving key, with the connections that have received something from it before.
    fn new_entry(&self, key: &RouteKey, routes: KeyRoutes<Peer, Forwarder>) -> KeyEntry {
        let mut entry = KeyEntry { routes, subscribers: None };
        self.unannounced.take(key).iter().for_each(|listener| entry.subscribe(listener));
        entry
    }

    /// Notes that the relay at the other end of `link` has `key`. Returns whether that is new.
    pub(crate) fn add_forwarder(&self, key: RouteKey, link: &Arc<Peer>) -> bool {
        let forwarder = Forwarder::new(key, link.clone());
        let change = match self.keys.entry(key) {
            Entry::Vacant(vacant) => {
                self.gauges.change(Level::KeysRemote, 1);
                vacant.insert(self.new_entry(&key, KeyRoutes::remote(forwarder)));
                ForwarderChange::OnlyOne
            }
            Entry::Occupied(mut occupied) => occupied.get_mut().routes.add_forwarder(forwarder),
        };
        if change == ForwarderChange::Second {
            self.gauges.note(Event::SecondForwarder);
        }
        change != ForwarderChange::Nothing
    }

    /// Removes the forwarder that [`add_forwarder`](Self::add_forwarder) added. Returns the connections that must be
    /// told that the key is gone: none while a connection or another relay has it.
    pub(crate) fn remove_forwarder(&self, key: &RouteKey, link: &Peer) -> Vec<Arc<Peer>> {
        let Entry::Occupied(mut occupied) = self.keys.entry(*key) else { return Vec::new() };
        let routes = &mut occupied.get_mut().routes;
        if routes.remove_forwarder(link.id) == ForwarderChange::Second {
            self.gauges.note(Event::LastForwarder);
        }
        if !routes.is_gone() {
            return Vec::new();
        }
        self.gauges.change(Level::KeysRemote, -1);
        occupied.remove().into_subscribers()
    }

    /// Adds `watcher`, which is told of every change from now on. Returns false if it watches already.
    pub(crate) fn watch(&self, watcher: &Arc<Peer>) -> bool {
        let added = self.watchers.add(watcher);
        self.gauges.change(Level::Watchers, added.into());
        added
    }

    /// Tells `watcher` of at most `most` of the keys here, in order, beginning after
    /// `after`. Returns the last of them, or `None` if there are no more.
    pub(crate) fn send_snapshot(
        &self,
        watcher: &Arc<Peer>,
        after: Option<RouteKey>,
        most: usize,
        notify: &mut Notify<'_>,
    ) -> Option<RouteKey> {
        let keys = self.watchers.keys_after(after, most);
        for key in &keys {
            if let Some(entry) = self.keys.get(key)
                && let Some(presence) = entry.routes.presence()
            {
                notify(watcher, PresenceEvent::Changed(*key, presence.active().arrival()));
            }
        }
        keys.last().filter(|_| keys.len() == most).copied()
    }

    /// Removes the watcher that [`watch`](Self::watch) added.
    pub(crate) fn unwatch(&self, watcher: &Peer) {
        let ended = self.watchers.end(watcher);
        self.gauges.change(Level::Watchers, -i64::from(ended));
    }
}

#[cfg(test)]
mod tests;
