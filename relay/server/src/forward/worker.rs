//! The loop of one data-plane thread.

use std::collections::VecDeque;
use std::io;
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::time::Duration;

use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token};
use slab::Slab;
use socket2::SockRef;
use towpath_relay_proto::egress::{Flushed, Hand};
use towpath_relay_proto::session::Close;
use towpath_tls::MAX_RECORD;
use towpath_wire::pool::BufferPool;
use towpath_wire::time::Instant;
use tracing::debug;

use super::connection::{Arrival, Connection, READ_SIZE};
use super::counters::{Counters, Tally};
use super::desk::Desk;
use super::inbox::{Inbox, Message, WAKE};
use super::link::LinkArrival;
use super::moderation::Moderation;
use super::peer::{Peer, Scratch};
use super::registry::Registry;
use super::wheel::Wheel;
use super::{Clock, Rules};
use crate::server::TCP_USER_TIMEOUT;

/// Events taken from epoll at once.
const EVENTS: usize = 1024;
/// After so many bytes read, what is dirty is flushed, so that no packet waits for the reading of all connections.
const FLUSH_AFTER: usize = 256 * 1024;
/// A connection in the slab, by place and number: a place is used again, a number is not.
pub(super) type Entry = (usize, u64);

/// One thread's share of the connections, and what it needs to serve them.
#[derive(Debug)]
pub(crate) struct Worker {
    index: usize,
    poll: Poll,
    inboxes: Arc<[Arc<Inbox>]>,
    registry: Arc<Registry>,
    rules: Arc<Rules>,
    counters: Arc<Counters>,
    clock: Clock,
    now: Instant,
    moderation: Moderation,
    connections: Slab<Connection>,
    buffer: Box<[u8]>,
    scratch: Scratch,
    pool: BufferPool,
    tally: Tally,
    dirty: Vec<Arc<Peer>>,
    /// Connections that this turn found reason to close, whoever owns them.
    closing: Vec<(Arc<Peer>, Close)>,
    /// Connections that may have something to read.
    ready: VecDeque<usize>,
    /// Connections that are held back, and until when. All are held equally long, so the first is due first.
    held: VecDeque<(Instant, Entry)>,
    /// Watchers that are being told of all who are here, some in each turn.
    rolls: VecDeque<Entry>,
    wheel: Wheel<Entry>,
    due: Vec<Entry>,
}

/// Lends out the fields of a worker that handling frames needs, while others of its fields are borrowed.
macro_rules! desk {
    ($worker:ident) => {
        Desk {
            now: $worker.now,
            limits: &$worker.rules.limits,
            own_key: &$worker.rules.own_key,
            registry: &$worker.registry,
            pool: &mut $worker.pool,
            tally: &mut $worker.tally,
            dirty: &mut $worker.dirty,
            closing: &mut $worker.closing,
            rolls: &mut $worker.rolls,
        }
    };
}

/// The same for flushing.
macro_rules! hand {
    ($worker:ident) => {
        Hand {
            now: $worker.now,
            limits: &$worker.rules.limits,
            pool: &mut $worker.pool,
            drops: &mut $worker.tally,
            scratch: &mut $worker.scratch,
        }
    };
}

mod later;

impl Worker {
    pub(super) fn new(
        index: usize,
        poll: Poll,
        inboxes: Arc<[Arc<Inbox>]>,
        registry: Arc<Registry>,
        rules: Arc<Rules>,
        counters: Arc<Counters>,
        clock: Clock,
    ) -> Self {
        let now = clock.now();
        Self {
            index,
            poll,
            inboxes,
            registry,
            counters,
            clock,
            now,
            moderation: Moderation::new(rules.waiting.gather, now),
            rules,
            connections: Slab::new(),
            buffer: vec![0; READ_SIZE + MAX_RECORD].into(),
            scratch: Scratch::new(),
            pool: BufferPool::default(),
            tally: Tally::default(),
            dirty: Vec::new(),
            closing: Vec::new(),
            ready: VecDeque::new(),
            held: VecDeque::new(),
            rolls: VecDeque::new(),
            wheel: Wheel::new(now),
            due: Vec::new(),
        }
    }

    /// Runs until told to stop.
    pub(super) fn run(mut self) {
        let mut events = Events::with_capacity(EVENTS);
        while self.turn(&mut events) {}
        for token in 0..self.connections.capacity() {
            self.close(token, Close::Shutdown);
        }
        self.flush_dirty();
        self.publish();
    }

    /// One turn. Returns whether there shall be another. Kept out of line so that profilers see where it begins.
    #[inline(never)]
    fn turn(&mut self, events: &mut Events) -> bool {
        self.let_gather();
        match self.wait(events) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return true,
            Err(error) => panic!("epoll fails only on a bug of its caller: {error}"),
        }
        self.set_now();
        self.tally.polls += 1;
        let mut woken = false;
        for event in events.iter() {
            match event.token() {
                WAKE => woken = true,
                Token(token) => {
                    let closed = event.is_read_closed() || event.is_error();
                    self.note_event(token, event.is_readable(), closed, event.is_writable());
                }
            }
        }
        let running = !woken || self.handle_messages();
        self.release_held();
        let (connections, bytes) = self.read_ready();
        self.moderation.note(self.now, connections, bytes);
        self.call_rolls();
        self.close_closing();
        self.flush_dirty();
        self.handle_timers();
        self.publish();
        running
    }

    /// Sleeps for a moment when that lets packets gather.
    fn let_gather(&self) {
        if self.moderation.is_on()
            && self.ready.is_empty()
            && let Some(pause) = self.moderation.pause(self.clock.now())
        {
            std::thread::sleep(pause);
        }
    }

    /// Waits for events: looks for them for a while, if that is wished, and then asleep.
    fn wait(&mut self, events: &mut Events) -> io::Result<()> {
        let timeout = self.timeout();
        let busy_poll = self.rules.waiting.busy_poll.min(timeout.unwrap_or(Duration::MAX));
        let mut spent = Duration::ZERO;
        while spent < busy_poll {
            self.poll.poll(events, Some(Duration::ZERO))?;
            if !events.is_empty() {
                return Ok(());
            }
            spent = self.clock.now().since(self.now);
        }
        self.poll.poll(events, timeout.map(|timeout| timeout.saturating_sub(spent)))
    }

    fn set_now(&mut self) {
        self.now = self.clock.now();
        self.scratch.now = self.now;
    }

    fn note_event(&mut self, token: usize, readable: bool, closed: bool, writable: bool) {
        let Some(connection) = self.connections.get_mut(token) else { return };
        connection.hung_up |= closed;
        if (readable || closed) && !std::mem::replace(&mut connection.listed, true) {
            self.ready.push_back(token);
        }
        if writable {
            let (egress, id) = (&connection.peer().egress, connection.peer().id);
            if egress.flush_writable(&mut hand!(self)) == Flushed::BecameBlocked {
                self.watch_write_timeout(token, id);
            }
        }
    }

    /// Handles what others told. Returns whether to go on.
    fn handle_messages(&mut self) -> bool {
        for message in self.inboxes[self.index].take() {
            match message {
                Message::Attach(arrival) => self.attach(*arrival),
                Message::AttachLink(arrival) => self.attach_link(*arrival),
                Message::Blocked { token, id } => self.watch_write_timeout(token, id),
                Message::Close { token, id, reason } => {
                    if self.is_here(token, id) {
                        self.close(token, reason);
                    }
                }
                Message::Stop => return false,
            }
        }
        true
    }

    fn attach(&mut self, arrival: Arrival) {
        let peer = arrival.peer.clone();
        peer.settle(self.index, self.connections.vacant_key());
        let mut desk = desk!(self);
        // Before the ServerInfo that waits in the outbox is sent, so that who has read it can be reached.
        let registry = desk.registry;
        registry.join(&peer, &mut |each, notice| desk.notify(each, notice));
        let (connection, handled) = Connection::new(arrival, &mut desk);
        self.dirty.push(peer);
        self.settle(connection, handled);
    }

    fn attach_link(&mut self, arrival: LinkArrival) {
        arrival.peer.settle(self.index, self.connections.vacant_key());
        let (connection, handled) = Connection::new_link(arrival, &mut desk!(self));
        self.settle(connection, handled);
    }

    /// Has a connection's events and timers looked after from now on.
    fn settle(&mut self, connection: Connection, handled: Result<(), Close>) {
        let (id, fd) = (connection.peer().id, connection.socket().as_raw_fd());
        let keepalive_at = connection.keepalive_at;
        let write_timeout = self.rules.write_timeout(connection.peer());
        // The kernel would give up sooner.
        let patient = if write_timeout > TCP_USER_TIMEOUT {
            SockRef::from(connection.socket()).set_tcp_user_timeout(Some(write_timeout))
        } else {
            Ok(())
        };
        let token = self.connections.insert(connection);
        self.wheel.insert(keepalive_at, (token, id));
        // Edge-triggered: both directions once and for all, whichever thread finds the socket full.
        let interest = Interest::READABLE | Interest::WRITABLE;
        let registered = self.poll.registry().register(&mut SourceFd(&fd), Token(token), interest);
        if let Err(close) = handled.and(patient.and(registered).map_err(|_| Close::Socket)) {
            self.flush_dirty();
            self.close(token, close);
        }
    }

    /// Reads once from each connection that may have something. Returns from how many, and how many bytes.
    fn read_ready(&mut self) -> (usize, usize) {
        let (mut connections, mut bytes, mut since_flush) = (0, 0, 0);
        for _ in 0..self.ready.len() {
            let Some(token) = self.ready.pop_front() else { break };
            if !self.connections.contains(token) || self.hold_back(token) {
                continue;
            }
            let connection = &mut self.connections[token];
            connection.listed = false;
            match connection.read(&mut self.buffer, &mut desk!(self)) {
                Ok(read) => {
                    connections += 1;
                    bytes += read.bytes;
                    since_flush += read.bytes;
                    if read.more {
                        self.list(token);
                    }
                }
                Err(close) => self.close(token, close),
            }
            if since_flush >= FLUSH_AFTER {
                self.flush_dirty();
                since_flush = 0;
            }
        }
        (connections, bytes)
    }

    fn list(&mut self, token: usize) {
        let connection = &mut self.connections[token];
        if !std::mem::replace(&mut connection.listed, true) {
            self.ready.push_back(token);
        }
    }

    fn is_here(&self, token: usize, id: u64) -> bool {
        self.connections.get(token).is_some_and(|connection| connection.peer().id == id)
    }

    /// Seals and writes what this turn made dirty, each destination once.
    fn flush_dirty(&mut self) {
        let mut dirty = std::mem::take(&mut self.dirty);
        for peer in dirty.drain(..) {
            if peer.egress.flush(&mut hand!(self)) == Flushed::BecameBlocked {
                let (owner, token) = peer.place();
                if owner == self.index {
                    self.watch_write_timeout(token, peer.id);
                } else if let Some(inbox) = self.inboxes.get(owner) {
                    inbox.send(Message::Blocked { token, id: peer.id });
                }
            }
        }
        self.dirty = dirty;
    }

    /// Closes what there was reason to close, or has it closed by whoever owns it.
    fn close_closing(&mut self) {
        while let Some((peer, reason)) = self.closing.pop() {
            let (owner, token) = peer.place();
            if owner != self.index {
                if let Some(inbox) = self.inboxes.get(owner) {
                    inbox.send(Message::Close { token, id: peer.id, reason });
                }
            } else if self.is_here(token, peer.id) {
                self.close(token, reason);
            }
        }
    }

    fn close(&mut self, token: usize, reason: Close) {
        let Some(mut connection) = self.connections.try_remove(token) else { return };
        let peer = connection.peer().clone();
        debug!(peer = ?peer.key, address = %peer.address, reason = reason.label(), "closed");
        // What the connection was told before it is closed shall reach it, as far as it goes, and its last packets those
        // for whom they are before they hear that it is gone, for control frames overtake packets.
        self.flush_dirty();
        let _ = peer.egress.flush(&mut hand!(self));
        let _ = self.poll.registry().deregister(&mut SourceFd(&connection.socket().as_raw_fd()));
        connection.depart(&mut desk!(self));
        peer.egress.close(&mut hand!(self), |outlet, scratch| outlet.end(reason, scratch));
        connection.report(reason);
        self.tally.closed(reason);
    }

    fn publish(&mut self) {
        self.tally.writes = self.scratch.writes;
        self.counters.publish(&mut self.tally);
    }
}
