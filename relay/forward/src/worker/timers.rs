//! What a worker comes back to later: connections held back, snapshots of watchers, write timeouts and keep-alives.

use std::time::Duration;

use towpath_relay_proto::session::Close;

use super::Worker;
use crate::connection::Connection;
use crate::counters::ColdCount;
use crate::ingress::{HOLD, Hold};
use crate::mesh::SnapshotCursor;
use crate::peer::ConnectionRef;

/// How long a watcher that reads slowly is left alone before it is sent more of its snapshot.
const SNAPSHOT_PAUSE: Duration = Duration::from_millis(50);

/// The least time between two looks for packets that have waited too long while the socket is full.
const EXPIRE_EVERY: Duration = Duration::from_millis(100);

/// How long a connection is held at a time before the reason is looked at again.
const fn hold_time(hold: Hold) -> Duration {
    match hold {
        Hold::Congestion => HOLD,
    }
}

impl Worker<'_> {
    /// How long to wait for events.
    pub(super) fn timeout(&self) -> Option<Duration> {
        let turn = &self.turn;
        let is_work_left =
            !turn.dirty.is_empty() || !turn.snapshots.is_empty() || !turn.departures.is_empty();
        if is_work_left || !self.ready.is_empty() {
            return Some(Duration::ZERO);
        }
        let now = self.turn.now;
        self.holds.idle(now).into_iter().chain(self.wheel.idle(now)).min()
    }

    /// Holds a connection back that has a reason for it. Returns whether it did.
    #[inline]
    pub(super) fn hold_back(&mut self, token: usize) -> bool {
        let connection = &mut self.connections[token];
        let Some(hold) = connection.hold(self.turn.now) else { return false };
        let held = ConnectionRef { token, id: connection.peer().id };
        self.holds.push(self.turn.now + hold_time(hold), held, hold);
        self.turn.tally.add_cold(ColdCount::Holds, 1);
        true
    }

    pub(super) fn release_held(&mut self) {
        while let Some(connection) = self.holds.pop_due(self.turn.now) {
            if self.owns(connection) {
                self.ready.push_back(connection.token);
            }
        }
    }

    /// Sends one watcher the next step of its snapshot.
    #[inline]
    pub(super) fn continue_snapshots(&mut self) {
        let Some(watcher) = self.turn.snapshots.pop_front() else { return };
        if !self.owns(watcher) {
            return;
        }
        match self.connections[watcher.token].continue_snapshot(&mut self.turn) {
            SnapshotCursor::Done => {}
            SnapshotCursor::At(_) => self.list_snapshot(watcher),
            SnapshotCursor::Behind(_) => self.wheel.schedule(watcher.token, self.turn.now + SNAPSHOT_PAUSE),
        }
    }

    fn list_snapshot(&mut self, watcher: ConnectionRef) {
        if self.connections[watcher.token].list_snapshot() {
            self.turn.snapshots.push_back(watcher);
        }
    }

    pub(super) fn watch_write_timeout(&mut self, connection: ConnectionRef) {
        if self.owns(connection) {
            let peer = self.connections[connection.token].peer();
            let timeout = self.turn.limits().write_timeout(peer);
            let expiry = peer.egress.expire(&mut self.turn.flush_context());
            let deadline = self.turn.now + timeout;
            self.wheel.schedule(connection.token, deadline.min(expiry));
        }
    }

    pub(super) fn handle_timers(&mut self) {
        let mut due = std::mem::take(&mut self.due);
        self.wheel.advance(self.turn.now, &mut due);
        for token in due.drain(..) {
            if self.connections.contains(token) {
                self.handle_timer(token);
            }
        }
        self.due = due;
        self.flush_dirty();
    }

    /// Frees `above` bytes, as far as it can: returns free buffers to the allocator, and closes the connections whose
    /// unfinished frames are the oldest. The frames of honest clients are young: a frame that is cut between two reads is
    /// whole a moment later.
    #[cold]
    pub(super) fn shed(&mut self, above: usize) {
        self.turn.pool.clear();
        let whole_by = |(token, connection): (usize, &Connection)| Some((connection.whole_by()?, token));
        let mut unfinished: Vec<_> = self.connections.iter().filter_map(whole_by).collect();
        unfinished.sort_unstable();
        let mut freed = 0;
        for (_, token) in unfinished {
            if freed >= above {
                break;
            }
            freed += self.connections[token].held();
            self.close(token, Close::Memory);
        }
    }

    /// Checks everything for which the connection may have a timer, and sets its timer for what is due next.
    fn handle_timer(&mut self, token: usize) {
        let (now, config) = (self.turn.now, self.turn.config());
        let connection = &mut self.connections[token];
        let peer = connection.peer().clone();
        if peer.egress.is_blocked() {
            let progress = peer.egress.with_transmit(|outbound| outbound.progress());
            let deadline = progress + self.turn.limits().write_timeout(&peer);
            if deadline <= now {
                return self.close(token, Close::WriteTimeout);
            }
            // A flood that goes on has something to drop at every look, so the looks are spaced.
            let expiry = peer.egress.expire(&mut self.turn.flush_context());
            self.wheel.schedule(token, deadline.min(expiry.max(now + EXPIRE_EVERY)));
        }
        if let Some(whole_by) = connection.whole_by() {
            if whole_by <= now {
                return self.close(token, Close::FrameTimeout);
            }
            self.wheel.schedule(token, whole_by);
        }
        if connection.keepalive_at <= now
            && let Err(close) = connection.keep_alive(config.keepalive, &mut self.turn)
        {
            return self.close(token, close);
        }
        self.wheel.schedule(token, connection.keepalive_at);
        if connection.is_behind() {
            self.list_snapshot(peer.place().1);
        }
    }
}
