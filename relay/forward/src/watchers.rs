//! Watchers: connections that are told of every key that comes and goes, and the initial snapshot of a new one.
//!
//! A change is pushed to each watcher while the map's lock on its key is held, so that the last change of a key that a
//! watcher receives is its current state. A new watcher receives changes at once and, in parallel, a snapshot of the
//! keys present, in key order and some at a time, so that a hundred thousand keys delay no packet. The keys of the
//! snapshot are a list of their own because a hash map cannot be walked in pieces.

use std::collections::BTreeSet;
use std::ops::Bound;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, RwLock};

use towpath_relay_proto::watch_backlog::PresenceChange;
use towpath_wire::sync::{lock, read, write};

use crate::key::RouteKey;
use crate::peer::Peer;

/// A change of the registry that a connection is told of.
#[derive(Clone, Copy, Debug)]
pub(crate) enum PresenceEvent {
    /// For a watcher: a key has come or gone.
    Changed(RouteKey, PresenceChange),
    /// For a client: the state of its own key, as the text of a Health frame.
    Health(&'static str),
}

/// Delivers an event to a connection. It is called with the map's lock held, so that the last event is the current
/// state.
pub(crate) type Notify<'a> = dyn FnMut(&Arc<Peer>, PresenceEvent) + 'a;

/// The watchers, and the keys of their snapshots.
#[derive(Debug, Default)]
pub(crate) struct Watchers {
    /// The number of watchers, so that a change needs no lock while there is none.
    count: AtomicUsize,
    list: RwLock<Vec<Arc<Peer>>>,
    /// Every key that is here; `None` where no login can give the right to watch.
    keys: Option<Mutex<BTreeSet<RouteKey>>>,
}

impl Watchers {
    pub(crate) fn new(allowed: bool) -> Self {
        Self { keys: allowed.then(Mutex::default), ..Self::default() }
    }

    /// Adds a key to the snapshots.
    pub(crate) fn insert(&self, key: &RouteKey) {
        if let Some(keys) = &self.keys {
            lock(keys).insert(*key);
        }
    }

    /// Takes a key out of the snapshots.
    pub(crate) fn remove(&self, key: &RouteKey) {
        if let Some(keys) = &self.keys {
            lock(keys).remove(key);
        }
    }

    /// Returns at most `most` keys after `after`, in order. If there are fewer than `most`, they are the last.
    pub(crate) fn keys_after(&self, after: Option<RouteKey>, most: usize) -> Vec<RouteKey> {
        let Some(keys) = &self.keys else { return Vec::new() };
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        lock(keys).range((from, Bound::Unbounded)).take(most).copied().collect()
    }

    /// Adds a watcher. Returns false if it is one already.
    pub(crate) fn add(&self, watcher: &Arc<Peer>) -> bool {
        let mut list = write(&self.list);
        if list.iter().any(|other| other.id == watcher.id) {
            return false;
        }
        list.push(watcher.clone());
        self.count.store(list.len(), Ordering::SeqCst);
        true
    }

    /// Removes a watcher. Returns false if the connection does not watch.
    pub(crate) fn end(&self, watcher: &Peer) -> bool {
        let mut list = write(&self.list);
        let before = list.len();
        list.retain(|other| other.id != watcher.id);
        self.count.store(list.len(), Ordering::SeqCst);
        list.len() < before
    }

    /// Notifies each watcher of a change. The caller has changed the keys of the snapshots before, and holds the lock
    /// on the key.
    pub(crate) fn notify(&self, key: RouteKey, change: PresenceChange, notify: &mut Notify<'_>) {
        // A watcher that is being added at this moment may be missed here; it has yet to be sent its snapshot.
        if self.count.load(Ordering::SeqCst) > 0 {
            let list = read(&self.list);
            list.iter().for_each(|watcher| notify(watcher, PresenceEvent::Changed(key, change)));
        }
    }
}

#[cfg(test)]
mod tests {
    use towpath_wire::key::NodePublic;

    use super::*;

    fn key(n: u32) -> RouteKey {
        let mut bytes = [0; 32];
        bytes[..4].copy_from_slice(&n.to_be_bytes());
        NodePublic::from_bytes(bytes).into()
    }

    #[test]
    fn a_snapshot_comes_in_pieces_and_to_its_end_whatever_comes_and_goes_meanwhile() {
        let watchers = Watchers::new(true);
        (0..100_000).map(key).for_each(|key| watchers.insert(&key));
        let (mut sent, mut after) = (0, None);
        loop {
            let piece = watchers.keys_after(after, 4096);
            assert!(piece.is_sorted() && piece.first() > after.as_ref());
            sent += piece.len();
            after = piece.last().copied();
            // The last key that was sent leaves, and one that was sent before comes again.
            after.inspect(|last| watchers.remove(last));
            watchers.insert(&key(0));
            if piece.len() < 4096 {
                break;
            }
        }
        assert_eq!(sent, 100_000);
    }

    #[test]
    fn without_a_right_to_watch_no_keys_are_kept() {
        let watchers = Watchers::new(false);
        watchers.insert(&key(1));
        assert!(watchers.keys_after(None, 10).is_empty());
    }
}
