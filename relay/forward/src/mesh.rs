//! The state of a connection that has to do with other relays: caches of routes and pairs, and the snapshot that a
//! watcher is sent.

use std::sync::Arc;

use crate::counters::ColdCount;
use crate::key::RouteKey;
use crate::pairs::PairCache;
use crate::peer::Peer;
use crate::routes::RemoteRouteCache;
use crate::turn::Turn;

/// How many keys of its snapshot a watcher is sent in one turn: a fraction of a millisecond of a worker.
const SNAPSHOT_STEP: usize = 1024;

/// The state of a connection that exchanges packets or announcements with other relays. Most connections have none.
#[derive(Debug, Default)]
pub(crate) struct MeshState {
    /// The links that packets of the connection go over.
    pub(crate) routes: RemoteRouteCache,
    /// The connections that packets of a relay go to.
    pub(crate) pairs: PairCache,
    cursor: SnapshotCursor,
    /// The watcher is on its worker's list of those that are sent the next step.
    listed: bool,
}

/// How far a watcher has been sent its snapshot.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) enum SnapshotCursor {
    /// Not at all, or to its end.
    #[default]
    Done,
    /// To this key; the next turn continues.
    At(RouteKey),
    /// To this key; the snapshot continues when the watcher has read some of it.
    Behind(RouteKey),
}

impl MeshState {
    /// Sends the first step of its snapshot to `watcher`.
    pub(crate) fn begin_snapshot(&mut self, watcher: &Arc<Peer>, turn: &mut Turn<'_>) {
        self.send_step(watcher, None, turn);
    }

    /// Notes that the watcher is listed for the next step. Returns false if it is listed already.
    pub(crate) const fn list(&mut self) -> bool {
        !std::mem::replace(&mut self.listed, true)
    }

    /// Sends the next step of its snapshot to `watcher`, unless it has all or is behind in reading. It is no longer
    /// listed.
    pub(crate) fn continue_snapshot(&mut self, watcher: &Arc<Peer>, turn: &mut Turn<'_>) -> SnapshotCursor {
        self.listed = false;
        match self.cursor {
            SnapshotCursor::Done => {}
            SnapshotCursor::At(after) | SnapshotCursor::Behind(after) => {
                if watcher.egress.backlog() < SNAPSHOT_STEP {
                    self.send_step(watcher, Some(after), turn);
                } else {
                    self.cursor = SnapshotCursor::Behind(after);
                }
            }
        }
        self.cursor
    }

    /// Whether a watcher has not been sent all because it is behind in reading.
    pub(crate) const fn is_behind(&self) -> bool {
        matches!(self.cursor, SnapshotCursor::Behind(_))
    }

    fn send_step(&mut self, watcher: &Arc<Peer>, after: Option<RouteKey>, turn: &mut Turn<'_>) {
        let registry = turn.registry();
        let mut keys = 0;
        let mut notify = |watcher: &Arc<Peer>, event| {
            keys += 1;
            turn.notify(watcher, event);
        };
        let last = registry.send_snapshot(watcher, after, SNAPSHOT_STEP, &mut notify);
        turn.tally.add_cold(ColdCount::SnapshotKeys, keys);
        self.cursor = last.map_or(SnapshotCursor::Done, SnapshotCursor::At);
    }
}
