//! The backlog of a watcher: for each key that came or went, the last change that the watcher has not been told.
//!
//! A watcher keeps a set of keys, so a newer change of a key replaces the older one in its place. One case is kept: a
//! key that came and went again. Clients that have received packets from that key meanwhile must be told that it is
//! gone, and a relay that was never told of the key would not tell them. So a watcher that reads slowly is owed one
//! change for each key and never a history, is told the current state when it reads, and misses no key. It is owed at
//! most [`MAX_CHANGES`]. A watcher that lets more wait must be closed. It reconnects and receives a new snapshot.

use std::collections::{HashMap, VecDeque};
use std::net::SocketAddr;

use towpath_wire::derp::app_name::AppName;
use towpath_wire::derp::frame::{GoneReason, ServerFrame};
use towpath_wire::derp::mesh::PresentFlags;
use towpath_wire::key::NodePublic;

/// Most keys of which a watcher can be owed a change: some 16 MB, and far above what is announced to a new watcher at
/// a time.
pub const MAX_CHANGES: usize = 65_536;

/// What happened to a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PresenceChange {
    /// It has a connection, or one more.
    Present {
        /// The address of the connection.
        address: SocketAddr,
        /// The flags of the connection.
        flags: PresentFlags,
        /// The program that the client says it is part of.
        app_name: AppName,
    },
    /// Its last connection has gone.
    Gone,
}

impl PresenceChange {
    /// Returns the frame that announces the change.
    #[must_use]
    pub const fn frame<'a>(self, peer: NodePublic) -> ServerFrame<'a> {
        match self {
            Self::Present { address, flags, app_name } => {
                ServerFrame::PeerPresent { peer, address: Some(address), flags, app_name }
            }
            Self::Gone => ServerFrame::PeerGone { peer, reason: GoneReason::Disconnected },
        }
    }
}

/// The news of a key that a watcher is owed.
#[derive(Clone, Copy, Debug)]
enum OwedChange {
    /// This change.
    Latest(PresenceChange),
    /// This arrival of the key, and its departure after that.
    CameAndWent(PresenceChange),
}

/// The changes that a watcher is owed, oldest first.
#[derive(Debug, Default)]
pub struct WatchBacklog {
    /// Clients choose their keys, so the map's hasher is keyed.
    changes: HashMap<NodePublic, OwedChange>,
    order: VecDeque<NodePublic>,
}

impl WatchBacklog {
    /// Adds a change. Returns false if the backlog is full. The watcher must then be closed.
    #[must_use]
    pub fn push(&mut self, key: NodePublic, change: PresenceChange) -> bool {
        if let Some(older) = self.changes.get_mut(&key) {
            *older = match (*older, change) {
                (
                    OwedChange::Latest(present @ PresenceChange::Present { .. })
                    | OwedChange::CameAndWent(present),
                    PresenceChange::Gone,
                ) => OwedChange::CameAndWent(present),
                _ => OwedChange::Latest(change),
            };
            return true;
        }
        if self.changes.len() >= MAX_CHANGES {
            return false;
        }
        self.changes.insert(key, OwedChange::Latest(change));
        self.order.push_back(key);
        true
    }

    /// Takes the oldest change.
    pub fn pop(&mut self) -> Option<(NodePublic, PresenceChange)> {
        let key = *self.order.front()?;
        let owed = self.changes.get_mut(&key).expect("each key in order is owed something");
        if let OwedChange::CameAndWent(present) = *owed {
            *owed = OwedChange::Latest(PresenceChange::Gone);
            return Some((key, present));
        }
        self.order.pop_front();
        match self.changes.remove(&key)? {
            OwedChange::Latest(change) | OwedChange::CameAndWent(change) => Some((key, change)),
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
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::*;

    fn key(n: u32) -> NodePublic {
        let mut bytes = [0; 32];
        bytes[..4].copy_from_slice(&n.to_be_bytes());
        NodePublic::from_bytes(bytes)
    }

    fn present(port: u16) -> PresenceChange {
        PresenceChange::Present {
            address: SocketAddr::from(([192, 0, 2, 1], port)),
            flags: PresentFlags::REGULAR,
            app_name: AppName::default(),
        }
    }

    #[test]
    fn a_newer_change_of_a_key_replaces_the_older_where_it_stands() {
        let mut backlog = WatchBacklog::default();
        for (n, change) in [(1, present(1)), (2, present(2)), (1, PresenceChange::Gone), (1, present(3))] {
            assert!(backlog.push(key(n), change));
        }
        assert_eq!(backlog.pop(), Some((key(1), present(3))));
        assert_eq!(backlog.pop(), Some((key(2), present(2))));
        assert_eq!(backlog.pop(), None);
    }

    #[test]
    fn a_key_that_came_and_went_is_announced_and_taken_back() {
        let mut backlog = WatchBacklog::default();
        for change in
            [PresenceChange::Gone, present(1), present(2), PresenceChange::Gone, PresenceChange::Gone]
        {
            assert!(backlog.push(key(1), change));
        }
        assert_eq!(backlog.len(), 1);
        assert_eq!(backlog.pop(), Some((key(1), present(2))));
        assert!(backlog.push(key(1), PresenceChange::Gone), "and what is said twice is said once");
        assert_eq!(backlog.pop(), Some((key(1), PresenceChange::Gone)));
        assert_eq!((backlog.pop(), backlog.is_empty()), (None, true));
    }

    #[test]
    fn a_watcher_is_owed_so_much_and_no_more() {
        let mut backlog = WatchBacklog::default();
        for n in 0..MAX_CHANGES as u32 {
            assert!(backlog.push(key(n), PresenceChange::Gone));
        }
        assert!(!backlog.push(key(u32::MAX), PresenceChange::Gone));
        assert!(backlog.push(key(0), present(1)), "a change of a key that is owed already costs nothing");
        assert_eq!(backlog.len(), MAX_CHANGES);
    }

    proptest! {
        /// However slowly a watcher reads, once it has read everything it knows exactly the keys that are present.
        #[test]
        fn a_watcher_that_has_read_everything_knows_what_is_true(
            steps in prop::collection::vec((0u32..6, any::<bool>(), 0usize..3), 0..80),
        ) {
            let (mut backlog, mut true_keys, mut known) = (WatchBacklog::default(), HashSet::new(), HashSet::new());
            let read = |backlog: &mut WatchBacklog, known: &mut HashSet<NodePublic>, most: usize| {
                for _ in 0..most {
                    match backlog.pop() {
                        Some((key, PresenceChange::Present { .. })) => known.insert(key),
                        Some((key, PresenceChange::Gone)) => known.remove(&key),
                        None => break,
                    };
                }
            };
            for (n, comes, reads) in steps {
                if comes { true_keys.insert(key(n)) } else { true_keys.remove(&key(n)) };
                let change = if comes { present(1) } else { PresenceChange::Gone };
                prop_assert!(backlog.push(key(n), change));
                prop_assert!(backlog.len() <= 6, "one change for each key");
                read(&mut backlog, &mut known, reads);
            }
            read(&mut backlog, &mut known, usize::MAX);
            prop_assert_eq!(known, true_keys);
        }
    }
}
