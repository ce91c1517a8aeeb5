//! Which connection has which key, by which relay of the region the others can be reached, and who must be told when a
//! key leaves.
//!
//! The map is asked on the first packet of a sender to a destination and whenever a connection comes or goes; the
//! steady state lives on the senders' route caches. No guard of the map leaves a function here.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use dashmap::DashMap;
use dashmap::mapref::entry::Entry;
use towpath_relay_proto::news::Change;
use towpath_relay_proto::presence::{Departure, Presence};
use towpath_relay_proto::whereabouts::{self, Way, Whereabouts};
use towpath_wire::key::NodePublic;
use tracing::debug;

use super::audience::Audience;
use super::peer::Peer;
use super::route::{Forwarder, Route};
use super::strangers::{Epoch, Strangers};
use super::watch::Watchers;

/// What the clients of a key are told that is in use twice; stock clients show it among the problems of the network.
const CONTESTED: &str = "another device uses the same node key; packets go to whichever sent last";
/// And when only one of them is left: a Health frame without a text takes the problem back.
const SETTLED: &str = "";

/// What somebody is told because of a change: inside the map's lock, so that each hears last what is true last.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Notice {
    /// A watcher, that a key has come or gone.
    News(NodePublic, Change),
    /// A client, how its key fares, in these words.
    Health(&'static str),
}

/// Tells a connection of it.
pub(crate) type Tell<'a> = dyn FnMut(&Arc<Peer>, Notice) + 'a;

/// Everybody who is logged in, here or at another relay of the region.
#[derive(Debug)]
pub(crate) struct Registry {
    /// Clients choose their keys, so the map's hasher is keyed (the standard library's SipHash).
    keys: DashMap<NodePublic, Entrant>,
    watchers: Watchers,
    strangers: Strangers<Peer>,
    ids: AtomicU64,
    gauges: Gauges,
}

/// How many are here.
#[derive(Debug, Default)]
pub(crate) struct Gauges {
    /// Connections.
    pub(crate) connections: AtomicI64,
    /// Distinct keys of connections.
    pub(crate) keys_here: AtomicI64,
    /// Distinct keys that other relays have, and this one has not.
    pub(crate) keys_elsewhere: AtomicI64,
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
    /// Keys that came to have a second forwarder, and that lost the last but one.
    pub(crate) multi_forwarders: [AtomicI64; 2],
    /// Links that are up.
    pub(crate) links: AtomicI64,
}

fn add(gauge: &AtomicI64, change: i64) {
    gauge.fetch_add(change, Ordering::Relaxed);
}

#[derive(Debug)]
struct Entrant {
    whereabouts: Whereabouts<Peer, Forwarder>,
    audience: Option<Box<Audience<Peer>>>,
}

impl Entrant {
    fn hear(&mut self, listener: &Arc<Peer>) {
        self.audience.get_or_insert_default().add(listener.id, listener);
    }

    fn route(&self) -> Option<Route> {
        self.whereabouts.way().map(|way| match way {
            Way::Here(peer) => Route::Here(peer.clone()),
            Way::By(forwarder) => Route::By(forwarder.clone()),
        })
    }

    /// Whoever must be told that the key is gone.
    fn into_audience(self) -> Vec<Arc<Peer>> {
        self.audience.map_or_else(Vec::new, |audience| audience.into_members())
    }
}

impl Registry {
    /// An empty registry. `watchable`: somebody may watch who comes and goes.
    pub(crate) fn new(watchable: bool) -> Self {
        Self {
            keys: DashMap::new(),
            watchers: Watchers::new(watchable),
            strangers: Strangers::default(),
            ids: AtomicU64::new(0),
            gauges: Gauges::default(),
        }
    }

    /// A number that no other connection has had.
    pub(crate) fn next_id(&self) -> u64 {
        self.ids.fetch_add(1, Ordering::Relaxed)
    }

    pub(crate) const fn gauges(&self) -> &Gauges {
        &self.gauges
    }

    /// Connections that watch.
    pub(crate) fn watchers(&self) -> usize {
        self.watchers.len()
    }

    /// Adds a connection; from now on packets for its key go to it. Watchers are told.
    pub(crate) fn join(&self, peer: &Arc<Peer>, tell: &mut Tell<'_>) {
        add(&self.gauges.connections, 1);
        let _entrant = match self.keys.entry(peer.key) {
            Entry::Vacant(vacant) => {
                add(&self.gauges.keys_here, 1);
                vacant.insert(self.entrant(&peer.key, Whereabouts::here(peer.clone())))
            }
            Entry::Occupied(mut occupied) => {
                let whereabouts = &mut occupied.get_mut().whereabouts;
                match whereabouts.connections() {
                    0 => {
                        add(&self.gauges.keys_here, 1);
                        add(&self.gauges.keys_elsewhere, -1);
                    }
                    others => {
                        add(&self.gauges.shared_keys, i64::from(others == 1));
                        add(&self.gauges.shared_connections, if others == 1 { 2 } else { 1 });
                        add(&self.gauges.shared_total, 1);
                    }
                }
                whereabouts.join(peer.clone());
                if whereabouts.presence().is_some_and(Presence::is_contested) {
                    tell(peer, Notice::Health(CONTESTED));
                }
                occupied.into_ref()
            }
        };
        self.watchers.enrol(&peer.key);
        self.watchers.tell(peer.key, peer.change(), tell);
    }

    /// The way that packets for `key` take.
    pub(crate) fn find(&self, key: &NodePublic) -> Option<Route> {
        self.keys.get(key)?.route()
    }

    /// The connection here that packets for `key` go to.
    pub(crate) fn find_here(&self, key: &NodePublic) -> Option<Arc<Peer>> {
        self.keys.get(key)?.whereabouts.presence().map(|presence| presence.active().clone())
    }

    /// All connections of `key`.
    pub(crate) fn connections(&self, key: &NodePublic) -> Vec<Arc<Peer>> {
        let Some(entrant) = self.keys.get(key) else { return Vec::new() };
        entrant.whereabouts.presence().map_or_else(Vec::new, |here| here.connections().cloned().collect())
    }

    /// Notes that `peer` has sent a frame, which makes it the active connection of its key.
    pub(crate) fn note_sent(&self, peer: &Peer, tell: &mut Tell<'_>) {
        if let Some(mut entrant) = self.keys.get_mut(&peer.key)
            && let Some(presence) = entrant.whereabouts.presence_mut()
            && presence.note_sent(peer.id)
        {
            add(&self.gauges.contested_total, 1);
            debug!(peer = ?peer.key, address = %peer.address, "two clients use this key");
            presence.connections().for_each(|each| tell(each, Notice::Health(CONTESTED)));
        }
    }

    /// Notes that `listener` receives from the key `from`, so that it is told when that key leaves. Returns where that key
    /// is; where nobody has announced it, the note is kept until somebody does, and holds until the next
    /// [`epoch`](Self::epoch).
    pub(super) fn note_heard(&self, from: &NodePublic, listener: &Arc<Peer>) -> Result<Route, Epoch> {
        match self.keys.entry(*from) {
            Entry::Occupied(mut occupied) => {
                let entrant = occupied.get_mut();
                entrant.hear(listener);
                entrant.route().ok_or_else(|| self.epoch())
            }
            // With the lock held, so that whoever announces the key finds the note.
            Entry::Vacant(_vacant) => Err(self.strangers.note(from, listener)),
        }
    }

    /// How long notes on keys hold that nobody has announced.
    pub(super) fn epoch(&self) -> Epoch {
        self.strangers.epoch()
    }

    /// Removes a connection. Watchers are told when it was the last of its key here. Returns who else must be told that
    /// its key is gone: nobody while the key is here or elsewhere in the region.
    pub(crate) fn leave(&self, peer: &Peer, tell: &mut Tell<'_>) -> Vec<Arc<Peer>> {
        let Entry::Occupied(mut occupied) = self.keys.entry(peer.key) else { return Vec::new() };
        let whereabouts = &mut occupied.get_mut().whereabouts;
        match whereabouts.leave(peer.id) {
            Departure::Unknown => return Vec::new(),
            Departure::OthersRemain { settled } => {
                if settled && let Some(presence) = whereabouts.presence() {
                    tell(presence.active(), Notice::Health(SETTLED));
                }
                let last = whereabouts.connections() == 1;
                add(&self.gauges.shared_keys, -i64::from(last));
                add(&self.gauges.shared_connections, if last { -2 } else { -1 });
                add(&self.gauges.connections, -1);
                return Vec::new();
            }
            Departure::KeyGone => {}
        }
        let is_gone = whereabouts.is_gone();
        add(&self.gauges.connections, -1);
        add(&self.gauges.keys_here, -1);
        self.watchers.strike_off(&peer.key);
        self.watchers.tell(peer.key, Change::Gone, tell);
        if is_gone {
            return occupied.remove().into_audience();
        }
        add(&self.gauges.keys_elsewhere, 1);
        Vec::new()
    }

    /// A key that comes, with those who have heard from it before anybody announced it.
    fn entrant(&self, key: &NodePublic, whereabouts: Whereabouts<Peer, Forwarder>) -> Entrant {
        let mut entrant = Entrant { whereabouts, audience: None };
        self.strangers.take(key).iter().for_each(|listener| entrant.hear(listener));
        entrant
    }

    /// Notes that the relay at the other end of `link` has `key`. Returns whether that is new.
    pub(crate) fn add_forwarder(&self, key: NodePublic, link: &Arc<Peer>) -> bool {
        let forwarder = Forwarder::new(key, link.clone());
        let change = match self.keys.entry(key) {
            Entry::Vacant(vacant) => {
                add(&self.gauges.keys_elsewhere, 1);
                vacant.insert(self.entrant(&key, Whereabouts::elsewhere(forwarder)));
                whereabouts::Change::OnlyOne
            }
            Entry::Occupied(mut occupied) => occupied.get_mut().whereabouts.add_forwarder(forwarder),
        };
        add(&self.gauges.multi_forwarders[0], i64::from(change == whereabouts::Change::Second));
        change != whereabouts::Change::Nothing
    }

    /// Takes that back. Returns who must be told that the key is gone: nobody while it is here or elsewhere.
    pub(crate) fn remove_forwarder(&self, key: &NodePublic, link: &Peer) -> Vec<Arc<Peer>> {
        let Entry::Occupied(mut occupied) = self.keys.entry(*key) else { return Vec::new() };
        let whereabouts = &mut occupied.get_mut().whereabouts;
        let change = whereabouts.remove_forwarder(link.id);
        add(&self.gauges.multi_forwarders[1], i64::from(change == whereabouts::Change::Second));
        if !whereabouts.is_gone() {
            return Vec::new();
        }
        add(&self.gauges.keys_elsewhere, -1);
        occupied.remove().into_audience()
    }

    /// Has `watcher` told of every change from now on. Returns false where it watches already.
    pub(crate) fn watch(&self, watcher: &Arc<Peer>) -> bool {
        self.watchers.add(watcher)
    }

    /// Tells `watcher` of at most `most` of the keys here, those after `after`. Returns the last of them, or `None` where
    /// there are no more.
    pub(crate) fn call_roll(
        &self,
        watcher: &Arc<Peer>,
        after: Option<NodePublic>,
        most: usize,
        tell: &mut Tell<'_>,
    ) -> Option<NodePublic> {
        let called = self.watchers.call(after, most);
        for key in &called {
            if let Some(entrant) = self.keys.get(key)
                && let Some(presence) = entrant.whereabouts.presence()
            {
                tell(watcher, Notice::News(*key, presence.active().change()));
            }
        }
        called.last().filter(|_| called.len() == most).copied()
    }

    /// Ends what [`watch`](Self::watch) began.
    pub(crate) fn unwatch(&self, watcher: &Peer) {
        self.watchers.remove(watcher);
    }
}
