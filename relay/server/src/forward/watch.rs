//! Who is told of every key that comes and goes, and how a new watcher is told of those that are here.
//!
//! A change is pushed to each watcher while the map's lock on its key is held, so that the last that a watcher hears of a
//! key is what is true of it. A new watcher hears of changes at once, and besides is called the roll: all keys that are
//! here, in order, some thousands at a time, so that a hundred thousand of them delay nobody. The roll is a list of its
//! own because a hash map cannot be walked in pieces.

use std::collections::BTreeSet;
use std::ops::Bound;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, RwLock};

use towpath_relay_proto::news::Change;
use towpath_wire::key::NodePublic;

use super::peer::Peer;
use super::registry::{Notice, Tell};

/// Those who watch, and what they are called.
#[derive(Debug, Default)]
pub(super) struct Watchers {
    /// How many there are, for those who have something to tell.
    count: AtomicUsize,
    list: RwLock<Vec<Arc<Peer>>>,
    /// Every key that is here; `None` where nobody may watch.
    roll: Option<Mutex<BTreeSet<NodePublic>>>,
}

impl Watchers {
    pub(super) fn new(allowed: bool) -> Self {
        Self { roll: allowed.then(Mutex::default), ..Self::default() }
    }

    pub(super) fn len(&self) -> usize {
        self.count.load(Ordering::Relaxed)
    }

    fn roll(&self) -> Option<MutexGuard<'_, BTreeSet<NodePublic>>> {
        let roll = self.roll.as_ref()?;
        Some(roll.lock().unwrap_or_else(|poisoned| poisoned.into_inner()))
    }

    /// Has a key called from now on.
    pub(super) fn enrol(&self, key: &NodePublic) {
        if let Some(mut roll) = self.roll() {
            roll.insert(*key);
        }
    }

    pub(super) fn strike_off(&self, key: &NodePublic) {
        if let Some(mut roll) = self.roll() {
            roll.remove(key);
        }
    }

    /// At most `most` keys after `after`, in order. After the last of them, fewer.
    pub(super) fn call(&self, after: Option<NodePublic>, most: usize) -> Vec<NodePublic> {
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let Some(roll) = self.roll() else { return Vec::new() };
        roll.range((from, Bound::Unbounded)).take(most).copied().collect()
    }

    /// Adds a watcher. Returns false where it is one already.
    pub(super) fn add(&self, watcher: &Arc<Peer>) -> bool {
        let mut list = self.list.write().unwrap_or_else(|poisoned| poisoned.into_inner());
        if list.iter().any(|other| other.id == watcher.id) {
            return false;
        }
        list.push(watcher.clone());
        self.count.store(list.len(), Ordering::SeqCst);
        true
    }

    pub(super) fn remove(&self, watcher: &Peer) {
        let mut list = self.list.write().unwrap_or_else(|poisoned| poisoned.into_inner());
        list.retain(|other| other.id != watcher.id);
        self.count.store(list.len(), Ordering::SeqCst);
    }

    /// Has `tell` tell each watcher. Whoever calls it has changed the roll before, and holds the lock on the key.
    pub(super) fn tell(&self, key: NodePublic, change: Change, tell: &mut Tell<'_>) {
        // Where this misses a watcher that is being added, that one has yet to be called the roll.
        if self.count.load(Ordering::SeqCst) > 0 {
            let list = self.list.read().unwrap_or_else(|poisoned| poisoned.into_inner());
            list.iter().for_each(|watcher| tell(watcher, Notice::News(key, change)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(n: u32) -> NodePublic {
        let mut bytes = [0; 32];
        bytes[..4].copy_from_slice(&n.to_be_bytes());
        NodePublic::from_bytes(bytes)
    }

    #[test]
    fn the_roll_is_called_in_pieces_and_to_its_end_whatever_comes_and_goes_meanwhile() {
        let watchers = Watchers::new(true);
        (0..100_000).map(key).for_each(|key| watchers.enrol(&key));
        let (mut called, mut after) = (0, None);
        loop {
            let piece = watchers.call(after, 4096);
            assert!(piece.is_sorted() && piece.first() > after.as_ref());
            called += piece.len();
            after = piece.last().copied();
            // The last one that was called leaves, and one that was called before comes again.
            after.inspect(|last| watchers.strike_off(last));
            watchers.enrol(&key(0));
            if piece.len() < 4096 {
                break;
            }
        }
        assert_eq!(called, 100_000);
    }

    #[test]
    fn where_nobody_may_watch_no_roll_is_kept() {
        let watchers = Watchers::new(false);
        watchers.enrol(&key(1));
        assert!(watchers.call(None, 10).is_empty());
    }
}
