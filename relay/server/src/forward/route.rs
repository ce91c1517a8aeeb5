//! The ways that packets take from here, and a connection's own memory of them.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use towpath_relay_proto::whereabouts;
use towpath_wire::key::NodePublic;

use super::peer::Peer;

/// A key that another relay of the region has, and the link to that relay.
#[derive(Debug)]
pub(crate) struct Forwarder {
    key: NodePublic,
    link: Arc<Peer>,
    /// Whether packets for the key go over this link.
    active: AtomicBool,
}

impl Forwarder {
    pub(crate) fn new(key: NodePublic, link: Arc<Peer>) -> Arc<Self> {
        Arc::new(Self { key, link, active: AtomicBool::new(false) })
    }

    pub(crate) const fn link(&self) -> &Arc<Peer> {
        &self.link
    }

    fn leads_to(&self, key: &NodePublic) -> bool {
        self.key == *key && self.active.load(Ordering::Acquire)
    }
}

impl whereabouts::Forwarder for Forwarder {
    fn link(&self) -> u64 {
        self.link.id
    }

    fn set_active(&self, active: bool) {
        self.active.store(active, Ordering::Release);
    }
}

/// The way to a key. Whoever keeps one asks whether it is still active; where not, the registry knows the new one.
#[derive(Clone, Debug)]
pub(crate) enum Route {
    /// To a connection of this relay.
    Here(Arc<Peer>),
    /// Over a link to another relay.
    By(Arc<Forwarder>),
}

impl Route {
    /// Whether packets for `key` go this way.
    pub(crate) fn leads_to(&self, key: &NodePublic) -> bool {
        match self {
            Self::Here(peer) => peer.key == *key && peer.is_active(),
            Self::By(forwarder) => forwarder.leads_to(key),
        }
    }
}

/// Which slot of a memory is a key's.
const fn slot<const SLOTS: usize>(key: &NodePublic) -> usize {
    key.as_bytes()[0] as usize % SLOTS
}

/// A developer's machine talks to a handful of peers at a time.
const SLOTS: usize = 16;

/// A connection's own memory of where its packets go that stay here.
#[derive(Debug, Default)]
pub(super) struct Routes(Option<Box<[Option<Arc<Peer>>; SLOTS]>>);

/// Where in a memory a connection is that was just found.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place(usize);

impl Routes {
    /// The place of the connection of `key`, if it was found before and is still the active one.
    #[inline]
    pub(super) fn find(&self, key: &NodePublic) -> Option<Place> {
        let slot = slot::<SLOTS>(key);
        let peer = self.0.as_ref()?[slot].as_ref()?;
        (peer.key == *key && peer.is_active()).then_some(Place(slot))
    }

    /// The connection at a place. It may have become inactive since; then what is sent to it is dropped when it leaves.
    #[inline]
    pub(super) fn at(&self, place: Place) -> &Arc<Peer> {
        let slots = self.0.as_ref().expect("a place is one of some slots");
        slots[place.0].as_ref().expect("a place is one that is taken")
    }

    pub(super) fn put(&mut self, peer: Arc<Peer>) -> Place {
        let slot = slot::<SLOTS>(&peer.key);
        self.0.get_or_insert_default()[slot] = Some(peer);
        Place(slot)
    }
}

/// The same for those that go on to another relay: apart, so that the others cost nothing more for it.
#[derive(Debug, Default)]
pub(super) struct Detours(Option<Box<[Option<Arc<Forwarder>>; SLOTS]>>);

impl Detours {
    /// The forwarder of `key`, if it was found before and is still the active one.
    pub(super) fn get(&self, key: &NodePublic) -> Option<&Arc<Forwarder>> {
        self.0.as_ref()?[slot::<SLOTS>(key)].as_ref().filter(|forwarder| forwarder.leads_to(key))
    }

    pub(super) fn put(&mut self, forwarder: Arc<Forwarder>) {
        let slot = slot::<SLOTS>(&forwarder.key);
        self.0.get_or_insert_default()[slot] = Some(forwarder);
    }
}
