//! What a worker comes back to later: connections held back, snapshots of watchers, write timeouts and keep-alives.

use std::time::Duration;

use towpath_relay_proto::session::Close;

use super::Worker;
use crate::counters::ColdCount;
use crate::ingress::Hold;
use crate::mesh::SnapshotCursor;
use crate::peer::ConnectionRef;

/// How long a watcher that reads slowly is left alone before it is sent more of its snapshot.
const SNAPSHOT_PAUSE: Duration = Duration::from_millis(50);

/// How long a connection is held at a time before the reason is looked at again.
const fn hold_time(hold: Hold) -> Duration {
    match hold {
        Hold::Congestion => Duration::from_millis(1),
    }
}

impl Worker<'_> {
    /// How long to wait for events.
    pub(super) fn timeout(&self) -> Option<Duration> {
        if !self.ready.is_empty() || !self.turn.snapshots.is_empty() {
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
            SnapshotCursor::At(_) => self.turn.snapshots.push_back(watcher),
            SnapshotCursor::Behind(_) => self.wheel.insert(self.turn.now + SNAPSHOT_PAUSE, watcher),
        }
    }

    pub(super) fn watch_write_timeout(&mut self, connection: ConnectionRef) {
        if self.owns(connection) {
            let peer = self.connections[connection.token].peer();
            let timeout = self.turn.config().write_timeout(peer);
            self.wheel.insert(self.turn.now + timeout, connection);
        }
    }

    pub(super) fn handle_timers(&mut self) {
        let mut due = std::mem::take(&mut self.due);
        self.wheel.advance(self.turn.now, &mut due);
        for connection in due.drain(..) {
            if self.owns(connection) {
                self.handle_timer(connection);
            }
        }
        self.due = due;
        self.flush_dirty();
    }

    fn handle_timer(&mut self, due: ConnectionRef) {
        let (now, config) = (self.turn.now, self.turn.config());
        let connection = &mut self.connections[due.token];
        let peer = connection.peer().clone();
        if peer.egress.is_blocked() {
            let progress = peer.egress.with_transmit(|outbound| outbound.progress());
            let deadline = progress + config.write_timeout(&peer);
            if deadline <= now {
                return self.close(due.token, Close::WriteTimeout);
            }
            self.wheel.insert(deadline, due);
        }
        if connection.is_behind() {
            self.turn.snapshots.push_back(due);
        }
        if connection.keepalive_at <= now {
            match connection.keep_alive(config.keepalive, &mut self.turn) {
                Ok(again) => self.wheel.insert(again, due),
                Err(close) => self.close(due.token, close),
            }
        }
    }
}
