//! What a watcher is still to be told: for each key that came or went, the last that is true of it.
//!
//! A watcher keeps a set of keys, so an older change of a key is worth nothing once there is a newer one: it is
//! replaced where it stands. One thing is kept: that a key came and went again, for those who have heard from it
//! meanwhile are to be told of its end, and a relay that was never told of it would not do that. So a watcher that
//! reads slowly is owed a change for each key and never a history, is told what is true when it reads, and misses
//! nobody. It is owed at most [`MAX_CHANGES`]; whoever lets that many wait must be closed, comes back and is told
//! everything anew.

use std::collections::{HashMap, VecDeque};
use std::net::SocketAddr;

use towpath_wire::derp::frame::{GoneReason, ServerFrame};
use towpath_wire::derp::mesh::PresentFlags;
use towpath_wire::key::NodePublic;

/// Most keys of which a watcher can be owed a change: some 10 MB, and far above what is announced to a new watcher at
/// a time.
pub const MAX_CHANGES: usize = 65_536;

/// What happened to a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// It has a connection, or one more.
    Present {
        /// Where that comes from.
        address: SocketAddr,
        /// What it is.
        flags: PresentFlags,
    },
    /// Its last connection has gone.
    Gone,
}

impl Change {
    /// The frame that tells of it.
    #[must_use]
    pub const fn frame<'a>(self, peer: NodePublic) -> ServerFrame<'a> {
        match self {
            Self::Present { address, flags } => {
                ServerFrame::PeerPresent { peer, address: Some(address), flags }
            }
            Self::Gone => ServerFrame::PeerGone { peer, reason: GoneReason::Disconnected },
        }
    }
}

/// What a watcher is owed of a key.
#[derive(Clone, Copy, Debug)]
enum Owed {
    /// That.
    Last(Change),
    /// That, and that the key has gone.
    Visit(Change),
}

/// The changes that a watcher is owed, oldest first.
#[derive(Debug, Default)]
pub struct News {
    /// Clients choose their keys, so the map's hasher is keyed.
    changes: HashMap<NodePublic, Owed>,
    order: VecDeque<NodePublic>,
}

impl News {
    /// Adds a change. Returns false where that is one too many, and then the watcher must be closed.
    #[must_use]
    pub fn push(&mut self, key: NodePublic, change: Change) -> bool {
        if let Some(older) = self.changes.get_mut(&key) {
            *older = match (*older, change) {
                (Owed::Last(present @ Change::Present { .. }) | Owed::Visit(present), Change::Gone) => {
                    Owed::Visit(present)
                }
                _ => Owed::Last(change),
            };
            return true;
        }
        if self.changes.len() >= MAX_CHANGES {
            return false;
        }
        self.changes.insert(key, Owed::Last(change));
        self.order.push_back(key);
        true
    }

    /// Takes the oldest.
    pub fn pop(&mut self) -> Option<(NodePublic, Change)> {
        let key = *self.order.front()?;
        let owed = self.changes.get_mut(&key).expect("each key in order is owed something");
        if let Owed::Visit(present) = *owed {
            *owed = Owed::Last(Change::Gone);
            return Some((key, present));
        }
        self.order.pop_front();
        match self.changes.remove(&key)? {
            Owed::Last(change) | Owed::Visit(change) => Some((key, change)),
        }
    }

    /// Keys of which a change is owed.
    #[must_use]
    pub fn len(&self) -> usize {
        self.order.len()
    }

    /// Whether nothing is owed.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.order.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::HashSet;

    fn key(n: u32) -> NodePublic {
        let mut bytes = [0; 32];
        bytes[..4].copy_from_slice(&n.to_be_bytes());
        NodePublic::from_bytes(bytes)
    }

    fn present(port: u16) -> Change {
        Change::Present { address: SocketAddr::from(([192, 0, 2, 1], port)), flags: PresentFlags::REGULAR }
    }

    #[test]
    fn a_newer_change_of_a_key_replaces_the_older_where_it_stands() {
        let mut news = News::default();
        for (n, change) in [(1, present(1)), (2, present(2)), (1, Change::Gone), (1, present(3))] {
            assert!(news.push(key(n), change));
        }
        assert_eq!(news.pop(), Some((key(1), present(3))));
        assert_eq!(news.pop(), Some((key(2), present(2))));
        assert_eq!(news.pop(), None);
    }

    #[test]
    fn a_key_that_came_and_went_is_announced_and_taken_back() {
        let mut news = News::default();
        for change in [Change::Gone, present(1), present(2), Change::Gone, Change::Gone] {
            assert!(news.push(key(1), change));
        }
        assert_eq!(news.len(), 1);
        assert_eq!(news.pop(), Some((key(1), present(2))));
        assert!(news.push(key(1), Change::Gone), "and what is said twice is said once");
        assert_eq!(news.pop(), Some((key(1), Change::Gone)));
        assert_eq!((news.pop(), news.is_empty()), (None, true));
    }

    #[test]
    fn a_watcher_is_owed_so_much_and_no_more() {
        let mut news = News::default();
        for n in 0..MAX_CHANGES as u32 {
            assert!(news.push(key(n), Change::Gone));
        }
        assert!(!news.push(key(u32::MAX), Change::Gone));
        assert!(news.push(key(0), present(1)), "a change of a key that is owed already costs nothing");
        assert_eq!(news.len(), MAX_CHANGES);
    }

    proptest! {
        /// However slowly a watcher reads, once it has read everything it knows exactly the keys that are present.
        #[test]
        fn a_watcher_that_has_read_everything_knows_what_is_true(
            steps in prop::collection::vec((0u32..6, any::<bool>(), 0usize..3), 0..80),
        ) {
            let (mut news, mut true_keys, mut known) = (News::default(), HashSet::new(), HashSet::new());
            let read = |news: &mut News, known: &mut HashSet<NodePublic>, most: usize| {
                for _ in 0..most {
                    match news.pop() {
                        Some((key, Change::Present { .. })) => known.insert(key),
                        Some((key, Change::Gone)) => known.remove(&key),
                        None => break,
                    };
                }
            };
            for (n, comes, reads) in steps {
                if comes { true_keys.insert(key(n)) } else { true_keys.remove(&key(n)) };
                let change = if comes { present(1) } else { Change::Gone };
                prop_assert!(news.push(key(n), change));
                prop_assert!(news.len() <= 6, "one change for each key");
                read(&mut news, &mut known, reads);
            }
            read(&mut news, &mut known, usize::MAX);
            prop_assert_eq!(known, true_keys);
        }
    }
}
