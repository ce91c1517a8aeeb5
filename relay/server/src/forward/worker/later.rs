//! What a worker comes back to later: connections that are held back, watchers that are not told of all yet, and timers.

use std::time::Duration;

use towpath_relay_proto::session::Close;

use super::{Desk, Worker};
use crate::forward::mesh::Roll;

/// How long a reader that is ahead of a destination is held back at a time, and at most until the destination catches
/// up. A destination that needs longer is slow, and its packets are dropped rather than those for others delayed.
const HOLD: Duration = Duration::from_millis(1);
const MAX_HOLD: Duration = Duration::from_millis(20);

/// How long a watcher that reads slowly is left alone before it is told of more.
const ROLL_PAUSE: Duration = Duration::from_millis(50);

impl Worker {
    /// How long to wait for events.
    pub(super) fn timeout(&self) -> Option<Duration> {
        if !self.ready.is_empty() || !self.rolls.is_empty() {
            return Some(Duration::ZERO);
        }
        let held = self.held.front().map(|(until, _)| until.since(self.now));
        let timer = self.wheel.idle(self.now);
        held.into_iter().chain(timer).min()
    }

    /// Holds a connection back that is far ahead of a destination. Returns whether it did.
    pub(super) fn hold_back(&mut self, token: usize) -> bool {
        let connection = &mut self.connections[token];
        match connection.ahead_since(&self.rules.limits) {
            Some(since) if self.now.since(since) < MAX_HOLD => {}
            _ => return false,
        }
        self.held.push_back((self.now + HOLD, (token, connection.peer().id)));
        self.tally.rare_mut().pauses += 1;
        true
    }

    pub(super) fn release_held(&mut self) {
        while let Some(&(until, (token, id))) = self.held.front()
            && until <= self.now
        {
            self.held.pop_front();
            if self.is_here(token, id) {
                self.ready.push_back(token);
            }
        }
    }

    /// Tells one watcher of some more who are here.
    #[inline]
    pub(super) fn call_rolls(&mut self) {
        let Some((token, id)) = self.rolls.pop_front() else { return };
        if !self.is_here(token, id) {
            return;
        }
        match self.connections[token].continue_roll(&mut desk!(self)) {
            Roll::Done => {}
            Roll::At(_) => self.rolls.push_back((token, id)),
            Roll::Behind(_) => self.wheel.insert(self.now + ROLL_PAUSE, (token, id)),
        }
    }

    pub(super) fn watch_write_timeout(&mut self, token: usize, id: u64) {
        if self.is_here(token, id) {
            let timeout = self.rules.write_timeout(self.connections[token].peer());
            self.wheel.insert(self.now + timeout, (token, id));
        }
    }

    pub(super) fn handle_timers(&mut self) {
        let mut due = std::mem::take(&mut self.due);
        self.wheel.advance(self.now, &mut due);
        for (token, id) in due.drain(..) {
            if self.is_here(token, id) {
                self.handle_timer(token, id);
            }
        }
        self.due = due;
        self.close_closing();
        self.flush_dirty();
    }

    fn handle_timer(&mut self, token: usize, id: u64) {
        let connection = &mut self.connections[token];
        let peer = connection.peer().clone();
        if peer.egress.is_blocked() {
            let deadline = peer.progress() + self.rules.write_timeout(&peer);
            if deadline <= self.now {
                return self.close(token, Close::WriteTimeout);
            }
            self.wheel.insert(deadline, (token, id));
        }
        if connection.is_behind() {
            self.rolls.push_back((token, id));
        }
        if connection.keepalive_at <= self.now {
            match connection.keep_alive(self.rules.keepalive, &mut desk!(self)) {
                Ok(again) => self.wheel.insert(again, (token, id)),
                Err(close) => self.close(token, close),
            }
        }
    }
}

#[cfg(test)]
#[path = "later_tests.rs"]
mod tests;
