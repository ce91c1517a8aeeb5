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

/// Keys in one generation, and listeners of one key. An announcement follows its packet within a fraction of a second,
/// in which fewer keys than this come.
const GENERATION: usize = 4096;
/// Listeners in one generation, of all its keys together. Each costs some 40 bytes, so the two generations cost 3 MB at
/// most.
const GENERATION_LISTENERS: usize = 32_768;

/// The listeners of each unannounced key, in two generations.
#[derive(Debug)]
pub(crate) struct UnannouncedSenders<C> {
    /// The number of keys that are noted, so that a look-up needs no lock while there is none.
    count: AtomicUsize,
    /// Counts the times that notes were handed on or forgotten.
    epoch: AtomicU64,
    notes: Mutex<[Generation<C>; 2]>,
}

/// The listeners of some unannounced keys, by their numbers.
#[derive(Debug)]
struct Generation<C> {
    of_key: HashMap<RouteKey, HashMap<u64, Weak<C>>>,
    /// The listeners of all keys together.
    listeners: usize,
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

    /// Notes that `listener`, the connection with the number `id`, has received something from `sender`.
    pub(crate) fn note(&self, sender: &RouteKey, id: u64, listener: &Arc<C>) -> Epoch {
        let mut notes = lock(&self.notes);
        let [recent, older] = &mut *notes;
        if recent.is_full() {
            *older = std::mem::take(recent);
            self.epoch.fetch_add(1, Ordering::AcqRel);
        }
        recent.add(sender, id, listener);
        self.count.store(recent.of_key.len() + older.of_key.len(), Ordering::Release);
        self.epoch()
    }

    /// Takes the listeners that are noted for a key that is being announced.
    pub(crate) fn take(&self, key: &RouteKey) -> Vec<Arc<C>> {
        if self.count.load(Ordering::Acquire) == 0 {
            return Vec::new();
        }
        let mut notes = lock(&self.notes);
        let mut taken = notes[1].remove(key);
        taken.extend(notes[0].remove(key));
        if !taken.is_empty() {
            self.epoch.fetch_add(1, Ordering::AcqRel);
        }
        self.count.store(notes.iter().map(|generation| generation.of_key.len()).sum(), Ordering::Release);
        taken.values().filter_map(Weak::upgrade).collect()
    }
}

impl<C> Default for Generation<C> {
    fn default() -> Self {
        Self { of_key: HashMap::new(), listeners: 0 }
    }
}

impl<C> Generation<C> {
    fn is_full(&self) -> bool {
        self.of_key.len() >= GENERATION || self.listeners >= GENERATION_LISTENERS
    }

    fn add(&mut self, sender: &RouteKey, id: u64, listener: &Arc<C>) {
        let listeners = self.of_key.entry(*sender).or_default();
        if listeners.len() < GENERATION && listeners.insert(id, Arc::downgrade(listener)).is_none() {
            self.listeners += 1;
        }
    }

    fn remove(&mut self, key: &RouteKey) -> HashMap<u64, Weak<C>> {
        let removed = self.of_key.remove(key).unwrap_or_default();
        self.listeners -= removed.len();
        removed
    }
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

    /// The listeners that are noted, counted one by one. Their number is the one that is kept.
    fn listeners(senders: &UnannouncedSenders<u64>) -> usize {
        let mut noted = 0;
        for generation in &*lock(&senders.notes) {
            let counted: usize = generation.of_key.values().map(HashMap::len).sum();
            assert_eq!(generation.listeners, counted);
            noted += counted;
        }
        noted
    }

    #[test]
    fn a_note_is_handed_on_once_and_then_does_not_hold_any_more() {
        let (senders, listener, other) = (UnannouncedSenders::default(), Arc::new(1), Arc::new(2));
        let noted = senders.note(&key(1), 1, &listener);
        assert_eq!(senders.note(&key(1), 1, &listener), noted, "the same note again changes nothing");
        senders.note(&key(1), 2, &other);
        assert!(senders.take(&key(2)).is_empty());
        assert_eq!(senders.epoch(), noted, "nothing was handed on");
        assert_eq!(listeners(&senders), 2);
        let mut taken = senders.take(&key(1));
        taken.sort_unstable();
        assert_eq!(taken, [listener, other]);
        assert_ne!(senders.epoch(), noted, "so that a key that comes back is noted again");
        assert!(senders.take(&key(1)).is_empty());
        assert_eq!(listeners(&senders), 0);
    }

    #[test]
    fn notes_are_bounded_and_those_that_are_forgotten_hold_no_more() {
        let (senders, listener) = (UnannouncedSenders::default(), Arc::new(0));
        let first = senders.note(&key(0), 0, &listener);
        for n in 1..=2 * GENERATION {
            senders.note(&key(n), 0, &listener);
        }
        assert_ne!(senders.epoch(), first);
        assert!(senders.take(&key(0)).is_empty(), "forgotten");
        assert_eq!(senders.take(&key(2 * GENERATION)).len(), 1);
        let notes = lock(&senders.notes);
        assert!(notes.iter().map(|generation| generation.of_key.len()).sum::<usize>() <= 2 * GENERATION);
    }

    /// Clients of which each receives from many unannounced keys.
    #[test]
    fn the_listeners_of_all_keys_together_are_bounded() {
        let (senders, mut most, mut forgotten) = (UnannouncedSenders::default(), 0, false);
        let clients: Vec<_> = (0..100).map(Arc::new).collect();
        for (n, client) in (0..2_000).flat_map(|n| clients.iter().map(move |client| (n, client))) {
            let before = senders.epoch();
            let noted = senders.note(&key(n), **client, client);
            let kept: usize = lock(&senders.notes).iter().map(|generation| generation.listeners).sum();
            most = most.max(kept);
            forgotten |= noted != before;
        }
        assert!(forgotten, "the epoch says so");
        assert_eq!(most, 2 * GENERATION_LISTENERS);
        assert_eq!(senders.take(&key(0)).len(), 0, "forgotten");
        assert_eq!(senders.take(&key(1_999)).len(), clients.len(), "the newest notes hold");
        listeners(&senders);
    }

    #[test]
    fn the_listeners_of_one_key_are_bounded() {
        let senders = UnannouncedSenders::default();
        let clients: Vec<_> = (0..2 * GENERATION as u64).map(Arc::new).collect();
        clients.iter().for_each(|client| _ = senders.note(&key(1), **client, client));
        assert_eq!((listeners(&senders), senders.take(&key(1)).len()), (GENERATION, GENERATION));
    }

    #[test]
    fn a_listener_that_has_left_is_not_told() {
        let (senders, listener) = (UnannouncedSenders::default(), Arc::new(0));
        senders.note(&key(1), 0, &listener);
        drop(listener);
        assert!(senders.take(&key(1)).is_empty());
    }
}
