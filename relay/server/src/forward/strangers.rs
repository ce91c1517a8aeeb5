//! Who has heard from keys that nobody has announced.
//!
//! Two relays have two connections, one in each direction: packets come on the one that the other dialled, and what it
//! says of its clients on our own. So a packet may come before its sender is announced, and who received it shall be
//! told all the same when the sender leaves. What is noted here is handed on when the announcement comes, and forgotten
//! when it does not: the other relay is then one that this one does not watch.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, Weak};

use towpath_wire::key::NodePublic;

/// Notes in one generation. An announcement is behind its packet by a fraction of a second, in which so many keys do not
/// come.
const GENERATION: usize = 4096;

type Notes<C> = HashMap<NodePublic, Vec<Weak<C>>>;

/// Notes of the last two generations.
#[derive(Debug)]
pub(super) struct Strangers<C> {
    /// How many keys are noted, for those who look for one where there is none.
    count: AtomicUsize,
    /// Counts the times that notes were handed on or forgotten.
    epoch: AtomicU64,
    notes: Mutex<[Notes<C>; 2]>,
}

/// When a note was made. It holds until the next epoch, when it may have been handed on or forgotten; then it must be
/// made again, or the next departure of its stranger goes untold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Epoch(u64);

impl<C> Default for Strangers<C> {
    fn default() -> Self {
        Self { count: AtomicUsize::new(0), epoch: AtomicU64::new(0), notes: Mutex::default() }
    }
}

impl<C> Strangers<C> {
    fn lock(&self) -> MutexGuard<'_, [Notes<C>; 2]> {
        self.notes.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    pub(super) fn epoch(&self) -> Epoch {
        Epoch(self.epoch.load(Ordering::Acquire))
    }

    /// Notes that `listener` has heard from `stranger`.
    pub(super) fn note(&self, stranger: &NodePublic, listener: &Arc<C>) -> Epoch {
        let mut notes = self.lock();
        let [recent, older] = &mut *notes;
        if recent.len() >= GENERATION {
            *older = std::mem::take(recent);
            self.epoch.fetch_add(1, Ordering::AcqRel);
        }
        let listeners = recent.entry(*stranger).or_default();
        if listeners.len() < GENERATION && !listeners.iter().any(|other| is(other, listener)) {
            listeners.push(Arc::downgrade(listener));
        }
        self.count.store(recent.len() + older.len(), Ordering::Release);
        self.epoch()
    }

    /// Takes the notes on a key that is a stranger no more.
    pub(super) fn take(&self, key: &NodePublic) -> Vec<Arc<C>> {
        if self.count.load(Ordering::Acquire) == 0 {
            return Vec::new();
        }
        let mut notes = self.lock();
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
    use super::*;

    fn key(n: usize) -> NodePublic {
        let mut bytes = [0; 32];
        bytes[..8].copy_from_slice(&n.to_be_bytes());
        NodePublic::from_bytes(bytes)
    }

    #[test]
    fn a_note_is_handed_on_once_and_then_does_not_hold_any_more() {
        let (strangers, listener, other) = (Strangers::default(), Arc::new(1), Arc::new(2));
        let noted = strangers.note(&key(1), &listener);
        assert_eq!(strangers.note(&key(1), &listener), noted, "the same note again changes nothing");
        strangers.note(&key(1), &other);
        assert!(strangers.take(&key(2)).is_empty());
        assert_eq!(strangers.epoch(), noted, "nothing was handed on");
        assert_eq!(strangers.take(&key(1)), [listener.clone(), other]);
        assert_ne!(strangers.epoch(), noted, "so that a key that comes back is noted again");
        assert!(strangers.take(&key(1)).is_empty());
    }

    #[test]
    fn notes_are_bounded_and_those_that_are_forgotten_hold_no_more() {
        let (strangers, listener) = (Strangers::default(), Arc::new(()));
        let first = strangers.note(&key(0), &listener);
        for n in 1..=2 * GENERATION {
            strangers.note(&key(n), &listener);
        }
        assert_ne!(strangers.epoch(), first);
        assert!(strangers.take(&key(0)).is_empty(), "forgotten");
        assert_eq!(strangers.take(&key(2 * GENERATION)).len(), 1);
        assert!(strangers.lock().iter().map(HashMap::len).sum::<usize>() <= 2 * GENERATION);
    }

    #[test]
    fn who_has_left_is_not_told() {
        let (strangers, listener) = (Strangers::default(), Arc::new(()));
        strangers.note(&key(1), &listener);
        drop(listener);
        assert!(strangers.take(&key(1)).is_empty());
    }
}
