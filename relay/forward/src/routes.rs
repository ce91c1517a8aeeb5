//! Forwarders, and a connection's own caches of the routes that its packets take.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use towpath_relay_proto::key_routes::{Forwards, Route};
use towpath_wire::key::NodePublic;

use crate::key::RouteKey;
use crate::peer::Peer;

/// A key that another relay of the region has, and the link to that relay.
#[derive(Debug)]
pub(crate) struct Forwarder {
    key: RouteKey,
    link: Arc<Peer>,
    /// Whether packets for the key go over this link.
    active: AtomicBool,
}

impl Forwarder {
    pub(crate) fn new(key: RouteKey, link: Arc<Peer>) -> Arc<Self> {
        Arc::new(Self { key, link, active: AtomicBool::new(false) })
    }

    pub(crate) const fn link(&self) -> &Arc<Peer> {
        &self.link
    }

    fn leads_to(&self, key: &RouteKey) -> bool {
        self.key == *key && self.active.load(Ordering::Acquire)
    }
}

impl Forwards for Forwarder {
    fn link(&self) -> u64 {
        self.link.id
    }

    fn set_active(&self, active: bool) {
        self.active.store(active, Ordering::Release);
    }
}

/// The route to a key. Its holder checks with [`leads_to`] that it is still in use. If it is not, the registry knows
/// the new route.
pub(crate) type PeerRoute = Route<Arc<Peer>, Arc<Forwarder>>;

/// Whether packets for `key` take `route`.
pub(crate) fn leads_to(route: &PeerRoute, key: &RouteKey) -> bool {
    match route {
        Route::Local(peer) => peer.key == *key && peer.is_active(),
        Route::Via(forwarder) => forwarder.leads_to(key),
    }
}

/// The index of a key in a cache.
const fn index<const SLOTS: usize>(node: &NodePublic) -> usize {
    node.as_bytes()[0] as usize % SLOTS
}

/// The slots of a cache. A developer's machine talks to a handful of peers at a time.
const SLOTS: usize = 16;

/// A connection's own cache of the connections of this relay that its packets go to. It has routes of one network only,
/// so the node key is enough to find them.
#[derive(Debug, Default)]
pub(crate) struct RouteCache(Option<Box<[Option<Arc<Peer>>; SLOTS]>>);

/// A slot of a [`RouteCache`] that is taken.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RouteSlot(usize);

impl RouteCache {
    /// The slot of the connection of `node`, if it was found before and is still the active one.
    #[inline]
    pub(crate) fn find(&self, node: &NodePublic) -> Option<RouteSlot> {
        let index = index::<SLOTS>(node);
        let peer = self.0.as_ref()?[index].as_ref()?;
        (peer.key.node() == node && peer.is_active()).then_some(RouteSlot(index))
    }

    /// The connection in a slot. If it has become inactive since, packets that are sent to it are dropped when it
    /// leaves.
    #[inline]
    pub(crate) fn at(&self, slot: RouteSlot) -> &Arc<Peer> {
        let slots = self.0.as_ref().expect("a slot is one of a cache that has some");
        slots[slot.0].as_ref().expect("a slot is taken")
    }

    pub(crate) fn put(&mut self, peer: Arc<Peer>) -> RouteSlot {
        let index = index::<SLOTS>(peer.key.node());
        self.0.get_or_insert_default()[index] = Some(peer);
        RouteSlot(index)
    }
}

/// A connection's own cache of forwarders. It is not part of [`RouteCache`], so that local packets do not pay for it.
#[derive(Debug, Default)]
pub(crate) struct RemoteRouteCache(Option<Box<[Option<Arc<Forwarder>>; SLOTS]>>);

impl RemoteRouteCache {
    /// The forwarder of `key`, if it was found before and is still the active one.
    pub(crate) fn get(&self, key: &RouteKey) -> Option<&Arc<Forwarder>> {
        self.0.as_ref()?[index::<SLOTS>(key.node())].as_ref().filter(|forwarder| forwarder.leads_to(key))
    }

    pub(crate) fn put(&mut self, forwarder: Arc<Forwarder>) {
        let index = index::<SLOTS>(forwarder.key.node());
        self.0.get_or_insert_default()[index] = Some(forwarder);
    }
}
