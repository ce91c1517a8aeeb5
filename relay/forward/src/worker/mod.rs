//! The loop of one data-plane thread.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token};
use slab::Slab;
use towpath_relay_proto::egress::Flushed;
use towpath_relay_proto::session::Close;
use towpath_tls::MAX_RECORD;
use towpath_wire::derp::frame::ServerFrame;
use tracing::debug;

use crate::arrival::{NewClient, NewLink};
use crate::clock::Clock;
use crate::coalesce::Coalescer;
use crate::connection::Connection;
use crate::counters::{HotCount, Level, WorkerCounters};
use crate::inbox::{OwnerRequest, WAKE, WorkerMessage};
use crate::memory::settle;
use crate::peer::{ConnectionRef, Peer};
use crate::shared::PlaneShared;
use crate::transport::READ_SIZE;
use crate::turn::Turn;
use crate::wheel::Wheel;
pub(crate) use departing::continue_departures;
use holds::Holds;

mod departing;
mod holds;
mod reporting;
#[cfg(test)]
mod reuse_tests;
#[cfg(test)]
mod tests;
mod timers;

/// Events taken from epoll at once.
const EVENTS: usize = 1024;
/// The bytes read after which dirty outboxes are flushed, so that no packet waits until all connections are read.
const FLUSH_AFTER: usize = 256 * 1024;
/// How often the outbox of a connection that is being closed is flushed. Its socket takes less than that in a moment.
const CLOSING_FLUSHES: usize = 4;

/// One thread's share of the connections, and what it needs to serve them.
#[derive(Debug)]
pub(crate) struct Worker<'a> {
    index: usize,
    poll: Poll,
    clock: Clock,
    counters: Arc<WorkerCounters>,
    coalescer: Coalescer,
    connections: Slab<Connection>,
    buffer: Box<[u8]>,
    turn: Turn<'a>,
    /// Connections that may have something to read.
    ready: VecDeque<usize>,
    holds: Holds,
    wheel: Wheel,
    due: Vec<usize>,
    /// The work of all turns before this one, and of the one that did the most.
    work_before: u64,
    most_work: u64,
}

impl<'a> Worker<'a> {
    pub(crate) fn new(
        index: usize,
        poll: Poll,
        shared: &'a PlaneShared,
        counters: Arc<WorkerCounters>,
        clock: Clock,
    ) -> Self {
        let now = clock.now();
        Self {
            index,
            poll,
            clock,
            counters,
            coalescer: Coalescer::new(shared.config.poll.gather, now),
            connections: Slab::new(),
            buffer: vec![0; READ_SIZE + MAX_RECORD].into(),
            turn: Turn::new(shared, now),
            ready: VecDeque::new(),
            holds: Holds::default(),
            wheel: Wheel::new(now),
            due: Vec::new(),
            work_before: 0,
            most_work: 0,
        }
    }

    /// Runs until told to stop.
    pub(crate) fn run(mut self) {
        let mut events = Events::with_capacity(EVENTS);
        while self.turn(&mut events) {}
        for token in 0..self.connections.capacity() {
            self.close(token, Close::Shutdown);
        }
        self.flush_dirty();
        self.publish();
    }

    /// Does one turn. Returns whether to go on. Not inlined, so that profilers see where a turn begins.
    #[inline(never)]
    fn turn(&mut self, events: &mut Events) -> bool {
        self.let_gather();
        match self.wait(events) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return true,
            Err(error) => panic!("epoll fails only on a bug of its caller: {error}"),
        }
        self.turn.now = self.clock.now();
        self.turn.tally.add(HotCount::Wakeups);
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
        let bytes = self.read_ready();
        self.coalescer.note(self.turn.now, bytes);
        self.continue_snapshots();
        if !self.turn.departures.is_empty() {
            continue_departures(&mut self.turn);
        }
        self.flush_dirty();
        self.handle_timers();
        self.publish();
        running
    }

    /// Sleeps for a moment if packets gather meanwhile.
    fn let_gather(&self) {
        if self.coalescer.is_on()
            && self.ready.is_empty()
            && let Some(pause) = self.coalescer.pause(self.clock.now())
        {
            std::thread::sleep(pause);
        }
    }

    /// Waits for events: polls for a while if `busy_poll` is set, and then blocks.
    fn wait(&mut self, events: &mut Events) -> io::Result<()> {
        let timeout = self.timeout();
        let busy_poll = self.turn.config().poll.busy_poll.min(timeout.unwrap_or(Duration::MAX));
        let mut spent = Duration::ZERO;
        while spent < busy_poll {
            self.poll.poll(events, Some(Duration::ZERO))?;
            if !events.is_empty() {
                return Ok(());
            }
            spent = self.clock.now().since(self.turn.now);
        }
        self.poll.poll(events, timeout.map(|timeout| timeout.saturating_sub(spent)))
    }

    fn note_event(&mut self, token: usize, readable: bool, closed: bool, writable: bool) {
        let Some(connection) = self.connections.get_mut(token) else { return };
        if closed {
            connection.note_hang_up();
        }
        if (readable || closed) && !std::mem::replace(&mut connection.listed, true) {
            self.ready.push_back(token);
        }
        if writable {
            let (egress, id) = (&connection.peer().egress, connection.peer().id);
            match egress.flush_writable(&mut self.turn.flush_context()) {
                Flushed::Done => {}
                Flushed::Unfinished => self.turn.dirty.push(connection.peer().clone()),
                Flushed::BecameBlocked => self.watch_write_timeout(ConnectionRef { token, id }),
            }
        }
    }

    /// Handles the messages of other threads. Returns whether to go on.
    fn handle_messages(&mut self) -> bool {
        for message in self.turn.shared.inboxes[self.index].take() {
            match message {
                WorkerMessage::Attach(client) => self.attach(*client),
                WorkerMessage::AttachLink(link) => self.attach_link(*link),
                WorkerMessage::Owned(connection, request) => self.handle_request(connection, request),
                WorkerMessage::List(token, reply) => self.list_page(token, reply),
                WorkerMessage::Inspect(connection, reply) => self.inspect(connection, reply),
                WorkerMessage::Stop => return false,
            }
        }
        true
    }

    fn handle_request(&mut self, connection: ConnectionRef, request: OwnerRequest) {
        match request {
            OwnerRequest::WatchWriteTimeout => self.watch_write_timeout(connection),
            OwnerRequest::Close(reason) => {
                if self.owns(connection) {
                    if let Some(text) = reason.health() {
                        let peer = self.connections[connection.token].peer().clone();
                        self.turn.push_control(&peer, &ServerFrame::Health(text));
                    }
                    self.close(connection.token, reason);
                }
            }
        }
    }

    /// Handles the request if this worker owns `peer`; otherwise asks the owner.
    fn at_owner(&mut self, peer: &Peer, request: OwnerRequest) {
        let (owner, connection) = peer.place();
        if owner == self.index {
            self.handle_request(connection, request);
        } else {
            self.turn.shared.ask_owner(peer, request);
        }
    }

    fn attach(&mut self, client: NewClient) {
        let peer = client.peer.clone();
        peer.assign(self.index, self.connections.vacant_key());
        let turn = &mut self.turn;
        // The outbox is new and has room. It is flushed at the end of the turn.
        let _ = peer.egress.push(|outbox| outbox.push_encoded(&client.server_info, &mut turn.pool));
        // The client joins before its outbox sends the ServerInfo, so that a client that has read it can be reached.
        let evicted = turn.registry().join(&peer, &mut |each, event| turn.notify(each, event));
        let (connection, resumed) = Connection::new(client, turn);
        turn.dirty.push(peer);
        self.register(connection, resumed);
        if let Some(evicted) = evicted {
            self.at_owner(&evicted, OwnerRequest::Close(Close::KeyLimit));
        }
    }

    fn attach_link(&mut self, link: NewLink) {
        link.peer.assign(self.index, self.connections.vacant_key());
        let (connection, resumed) = Connection::new_link(link, &mut self.turn);
        self.register(connection, resumed);
    }

    /// Registers a connection with epoll and the timer wheel, and closes it if `resumed` is an error.
    fn register(&mut self, mut connection: Connection, resumed: Result<(), Close>) {
        let fd = connection.descriptor();
        let keepalive_at = connection.keepalive_at;
        // Without this, the kernel would give up sooner than the relay.
        let patient = connection.inbound().set_patience(self.turn.limits().write_timeout(connection.peer()));
        let whole_by = connection.note_unfinished(self.turn.now);
        let token = self.connections.insert(connection);
        self.wheel.schedule(token, whole_by.map_or(keepalive_at, |whole_by| whole_by.min(keepalive_at)));
        // Edge-triggered: both directions once and for all, whichever thread finds the socket full.
        let interest = Interest::READABLE | Interest::WRITABLE;
        let registered = self.poll.registry().register(&mut SourceFd(&fd), Token(token), interest);
        if let Err(close) = resumed.and(patient.and(registered).map_err(|_| Close::Socket)) {
            self.flush_dirty();
            self.close(token, close);
        }
    }

    /// Reads once from each connection that may have something. Returns the number of bytes.
    fn read_ready(&mut self) -> usize {
        let (mut bytes, mut since_flush) = (0, 0);
        for _ in 0..self.ready.len() {
            let Some(token) = self.ready.pop_front() else { break };
            if !self.connections.contains(token) || self.hold_back(token) {
                continue;
            }
            let connection = &mut self.connections[token];
            connection.listed = false;
            match connection.read(&mut self.buffer, &mut self.turn) {
                Ok(received) => {
                    bytes += received.bytes;
                    since_flush += received.bytes;
                    if let Some(whole_by) = connection.note_unfinished(self.turn.now) {
                        self.wheel.schedule(token, whole_by);
                    }
                    if received.more {
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
        bytes
    }

    fn list(&mut self, token: usize) {
        let connection = &mut self.connections[token];
        if !std::mem::replace(&mut connection.listed, true) {
            self.ready.push_back(token);
        }
    }

    fn owns(&self, connection: ConnectionRef) -> bool {
        self.connections.get(connection.token).is_some_and(|owned| owned.peer().id == connection.id)
    }

    /// Flushes every peer whose outbox this turn made dirty, each once. A flush that is not finished goes on in the next
    /// turn, after the other connections have been served.
    fn flush_dirty(&mut self) {
        let mut dirty = std::mem::take(&mut self.turn.dirty);
        dirty.retain(|peer| match peer.egress.flush(&mut self.turn.flush_context()) {
            Flushed::Done => false,
            Flushed::Unfinished => true,
            Flushed::BecameBlocked => {
                self.at_owner(peer, OwnerRequest::WatchWriteTimeout);
                false
            }
        });
        dirty.append(&mut self.turn.dirty);
        self.turn.dirty = dirty;
    }

    fn close(&mut self, token: usize, reason: Close) {
        let Some(mut connection) = self.connections.try_remove(token) else { return };
        self.wheel.cancel(token);
        let peer = connection.peer().clone();
        let (connection_id, key) = (peer.id, peer.key.node());
        debug!(connection = connection_id, peer = ?key, address = %peer.address, reason = reason.label(), "closed");
        // Flush before closing: frames that wait for the connection reach it as far as its socket takes them. Its last
        // packets reach their destinations before the news that it is gone, which would overtake them.
        self.flush_dirty();
        for _ in 0..CLOSING_FLUSHES {
            if peer.egress.flush(&mut self.turn.flush_context()) != Flushed::Unfinished {
                break;
            }
        }
        let _ = self.poll.registry().deregister(&mut SourceFd(&connection.descriptor()));
        connection.depart(reason, &mut self.turn);
        peer.egress.close(&mut self.turn.flush_context(), |outbound, context| {
            outbound.end(reason, context.pool, context.scratch);
        });
        self.turn.tally.closed(reason);
    }

    fn publish(&mut self) {
        debug_assert_eq!(self.wheel.len(), self.connections.len(), "each connection has one timer");
        debug_assert!(self.turn.snapshots.len() <= self.connections.len(), "a watcher is listed once");
        self.turn.tally.set(HotCount::Writes, self.turn.scratch.writes);
        let work = self.turn.tally.work();
        if work - self.work_before > self.most_work {
            self.most_work = work - self.work_before;
            self.turn.registry().gauges().raise(Level::MostWork, self.most_work);
        }
        self.work_before = work;
        let (most, gauges) = (self.turn.config().max_frame_memory, self.turn.registry().gauges());
        let above = settle(&mut self.turn.pool, most, gauges);
        if above > 0 {
            self.shed(above);
        }
        self.counters.publish(&mut self.turn.tally);
    }
}
