//! Subscriptions to keys that no connection and no link has announced yet.
//!
//! Two relays have two connections, one in each direction. Packets come on the connection that the other relay dialled,
//! and its announcements on the connection that this relay dialled. So a packet may come before its sender is
//! announced, and its receiver must still be told when the sender leaves. A note is handed on when the announcement
//! comes. It is forgotten when no announcement comes, because this relay then does not watch the other one.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, Weak};

use towpath_wire::sync::lock;

use crate::key::RouteKey;

/// Notes in one generation. An announcement follows its packet within a fraction of a second, in which fewer keys than
/// this come.
const GENERATION: usize = 4096;

type Notes<C> = HashMap<RouteKey, Vec<Weak<C>>>;

/// The listeners of each unannounced key, in two generations.
#[derive(Debug)]
pub(crate) struct UnannouncedSenders<C> {
    /// The number of keys that are noted, so that a look-up needs no lock while there is none.
    count: AtomicUsize,
    /// Counts the times that notes were handed on or forgotten.
    epoch: AtomicU64,
    notes: Mutex<[Notes<C>; 2]>,
}

/// When a note was made. A note holds until the next epoch, in which it may have been handed on or forgotten. It must
/// then be made again, or its listener is not told of the next departure of the sender.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Epoch(u64);

impl<C> Default for UnannouncedSenders<C> {
    fn default() -> Self {
        Self { count: AtomicUsize::new(0), epoch: AtomicU64::new(0), notes: Mutex::default() }
    }
}

impl<C> UnannouncedSenders<C> {
    pub(crate) fn epoch(&self) -> Epoch {
        Epoch(self.epoch.load(Ordering::Acquire))
    }

    /// Notes that `listener` has received something from `sender`.
    pub(crate) fn note(&self, sender: &RouteKey, listener: &Arc<C>) -> Epoch {
        let mut notes = lock(&self.notes);
        let [recent, older] = &mut *notes;
        if recent.len() >= GENERATION {
            *older = std::mem::take(recent);
            self.epoch.fetch_add(1, Ordering::AcqRel);
        }
        let listeners = recent.entry(*sender).or_default();
        if listeners.len() < GENERATION && !listeners.iter().any(|other| is(other, listener)) {
            listeners.push(Arc::downgrade(listener));
        }
        self.count.store(recent.len() + older.len(), Ordering::Release);
        self.epoch()
    }

    /// Takes the listeners that are noted for a key that is being announced.
    pub(crate) fn take(&self, key: &RouteKey) -> Vec<Arc<C>> {
        if self.count.load(Ordering::Acquire) == 0 {
            return Vec::new();
        }
        let mut notes = lock(&self.notes);
        let taken: Vec<_> = notes.iter_mut().filter_map(|notes| notes.remove(key)).flatten().collect();
        if !taken.is_empty() {
            self.epoch.fetch_add(1, Ordering::AcqRel);
        }
        self.count.store(notes.iter().map(HashMap::len).sum(), Ordering::Release);
        taken.iter().filter_map(Weak::upgrade).collect()
    }
}

fn is<C>(weak: &Weak<C>, listener: &Arc<C>) -> bool {
    std::ptr::eq(weak.as_ptr(), Arc::as_ptr(listener))
}

#[cfg(test)]
mod tests {
    use towpath_wire::key::NodePublic;

    use super::*;

    fn key(n: usize) -> RouteKey {
        let mut bytes = [0; 32];
        bytes[..8].copy_from_slice(&n.to_be_bytes());
        RouteKey::new(NodePublic::from_bytes(bytes))
    }

    #[test]
    fn a_note_is_handed_on_once_and_then_does_not_hold_any_more() {
        let (senders, listener, other) = (UnannouncedSenders::default(), Arc::new(1), Arc::new(2));
        let noted = senders.note(&key(1), &listener);
        assert_eq!(senders.note(&key(1), &listener), noted, "the same note again changes nothing");
        senders.note(&key(1), &other);
        assert!(senders.take(&key(2)).is_empty());
        assert_eq!(senders.epoch(), noted, "nothing was handed on");
        assert_eq!(senders.take(&key(1)), [listener.clone(), other]);
        assert_ne!(senders.epoch(), noted, "so that a key that comes back is noted again");
        assert!(senders.take(&key(1)).is_empty());
    }

    #[test]
    fn notes_are_bounded_and_those_that_are_forgotten_hold_no_more() {
        let (senders, listener) = (UnannouncedSenders::default(), Arc::new(()));
        let first = senders.note(&key(0), &listener);
        for n in 1..=2 * GENERATION {
            senders.note(&key(n), &listener);
        }
        assert_ne!(senders.epoch(), first);
        assert!(senders.take(&key(0)).is_empty(), "forgotten");
        assert_eq!(senders.take(&key(2 * GENERATION)).len(), 1);
        assert!(lock(&senders.notes).iter().map(HashMap::len).sum::<usize>() <= 2 * GENERATION);
    }

    #[test]
    fn a_listener_that_has_left_is_not_told() {
        let (senders, listener) = (UnannouncedSenders::default(), Arc::new(()));
        senders.note(&key(1), &listener);
        drop(listener);
        assert!(senders.take(&key(1)).is_empty());
    }
}
