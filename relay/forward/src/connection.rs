//! A connection as its owner sees it: its role, and the inbound side of its transport.

use std::os::fd::RawFd;
use std::sync::Arc;
use std::time::Duration;

use towpath_relay_proto::account::connections::Seat;
use towpath_relay_proto::egress::Pushed;
use towpath_relay_proto::session::Close;
use towpath_wire::pool::BufferPool;
use towpath_wire::time::Instant;

use crate::arrival::{NewClient, NewLink};
use crate::client::ClientState;
use crate::counters::HotCount;
use crate::ingress::Hold;
use crate::link::Link;
use crate::mesh::SnapshotCursor;
use crate::peer::Peer;
use crate::report::ConnectionReport;
use crate::transport::{FrameSink, Inbound, ReadOutcome};
use crate::turn::Turn;

/// What is at the other end of a connection.
#[derive(Debug)]
enum Role {
    /// The seat is kept for its drop, which gives it back.
    Client(ClientState, #[allow(dead_code, reason = "its drop is its use")] Seat),
    Link(Box<Link>),
}

/// A connection that a worker owns.
#[derive(Debug)]
pub(crate) struct Connection {
    role: Role,
    inbound: Inbound,
    /// When its owner took it over, in seconds of the worker's clock: they fit beside the flag below.
    since: u32,
    /// The connection is on the worker's list of those to read.
    pub(crate) listed: bool,
    /// When to send the next keep-alive to a client, or the next ping to a relay.
    pub(crate) keepalive_at: Instant,
    unfinished: Option<Unfinished>,
}

/// A frame or a record that the other end has begun. It must be whole in time: until then it holds memory, and
/// keep-alives and acknowledgements show no harm.
#[derive(Clone, Copy, Debug)]
struct Unfinished {
    part: Part,
    whole_by: Instant,
}

/// What is unfinished, by its number on this connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    Frame(u32),
    Record(u32),
}

/// How long a frame or a record may take from its first byte to its last. The longest frame, of 64 KiB, then comes at
/// 2 KiB a second.
pub(crate) const FRAME_TIMEOUT: Duration = Duration::from_secs(30);

/// The whole seconds of a time, of which 32 bits count 136 years.
const fn seconds(time: Instant) -> u32 {
    (time.as_nanos() / 1_000_000_000) as u32
}

/// A client that takes frames in a turn.
struct ClientSink<'s, 't> {
    client: &'s mut ClientState,
    turn: &'s mut Turn<'t>,
    /// The key has other connections, and this one has yet to be noted as the one that sends.
    unnoted: bool,
}

impl<'s, 't> ClientSink<'s, 't> {
    #[inline]
    fn new(client: &'s mut ClientState, turn: &'s mut Turn<'t>) -> Self {
        let unnoted = client.peer().is_shared();
        Self { client, turn, unnoted }
    }
}

impl FrameSink for ClientSink<'_, '_> {
    fn pool(&mut self) -> &mut BufferPool {
        &mut self.turn.pool
    }

    #[inline]
    fn receive(&mut self, frames: &[u8]) -> Result<(), Close> {
        self.client.handle(frames, &mut self.unnoted, self.turn)
    }
}

/// A link that takes frames in a turn.
struct LinkSink<'s, 't>(&'s mut Link, &'s mut Turn<'t>);

impl FrameSink for LinkSink<'_, '_> {
    fn pool(&mut self) -> &mut BufferPool {
        &mut self.1.pool
    }

    fn receive(&mut self, frames: &[u8]) -> Result<(), Close> {
        self.0.handle(frames, self.1)
    }
}

impl Connection {
    /// Takes over a client, and acts on the frames that were already read from it.
    pub(crate) fn new(client: NewClient, turn: &mut Turn<'_>) -> (Self, Result<(), Close>) {
        let NewClient { peer, inbound, server_info: _, frames, traits, first_keepalive, seat } = client;
        let client = ClientState::new(peer, traits, turn);
        let due = turn.now + first_keepalive;
        let mut connection = Self::of(Role::Client(client, seat), inbound, turn.now, due);
        let resumed = connection.resume(&frames, turn);
        (connection, resumed)
    }

    /// Takes over a link, and acts on the frames that were already read from it.
    pub(crate) fn new_link(link: NewLink, turn: &mut Turn<'_>) -> (Self, Result<(), Close>) {
        let NewLink { peer, inbound, session, frames, on_event } = link;
        let link = Box::new(Link::new(peer, session, on_event, turn));
        let mut connection = Self::of(Role::Link(link), inbound, turn.now, turn.now);
        let resumed = connection.resume(&frames, turn);
        (connection, resumed)
    }

    const fn of(role: Role, inbound: Inbound, since: Instant, keepalive_at: Instant) -> Self {
        Self { role, inbound, since: seconds(since), listed: false, keepalive_at, unfinished: None }
    }

    fn resume(&mut self, frames: &[u8], turn: &mut Turn<'_>) -> Result<(), Close> {
        let resumed = match &mut self.role {
            Role::Client(client, _) => {
                let mut sink = ClientSink::new(client, turn);
                sink.receive(frames).and_then(|()| self.inbound.resume(&mut sink))
            }
            Role::Link(link) => {
                let mut sink = LinkSink(link, turn);
                sink.receive(frames).and_then(|()| self.inbound.resume(&mut sink))
            }
        };
        self.hand_over_reply(turn);
        resumed
    }

    #[inline]
    pub(crate) const fn peer(&self) -> &Arc<Peer> {
        match &self.role {
            Role::Client(client, _) => client.peer(),
            Role::Link(link) => link.peer(),
        }
    }

    /// The descriptor to register with epoll.
    pub(crate) fn descriptor(&self) -> RawFd {
        self.inbound.descriptor()
    }

    /// The inbound side of the transport.
    pub(crate) const fn inbound(&self) -> &Inbound {
        &self.inbound
    }

    /// Notes that the other end has closed. No later event reports that there is something to read.
    pub(crate) fn note_hang_up(&mut self) {
        self.inbound.note_hang_up();
    }

    /// The reason not to read the connection at `now`, if there is one.
    #[inline]
    pub(crate) fn hold(&mut self, now: Instant) -> Option<Hold> {
        match &mut self.role {
            Role::Client(client, _) => client.hold(now),
            Role::Link(_) => None,
        }
    }

    /// Reads once and acts on the frames. `buffer` has room for [`crate::transport::READ_SIZE`] and a record more.
    pub(crate) fn read(&mut self, buffer: &mut [u8], turn: &mut Turn<'_>) -> Result<ReadOutcome, Close> {
        turn.tally.add(HotCount::Reads);
        let received = match &mut self.role {
            Role::Client(client, _) => self.inbound.read(buffer, &mut ClientSink::new(client, turn)),
            Role::Link(link) => self.inbound.read(buffer, &mut LinkSink(link, turn)),
        };
        self.hand_over_reply(turn);
        received
    }

    /// Notes what has begun and is not whole after a read or an arrival. Returns when it must be whole, if it is new.
    #[inline]
    pub(crate) fn note_unfinished(&mut self, now: Instant) -> Option<Instant> {
        let frame = match &self.role {
            Role::Client(client, _) => client.unfinished(),
            Role::Link(link) => link.unfinished(),
        };
        let part = frame.map(Part::Frame).or_else(|| self.inbound.unfinished().map(Part::Record));
        if part == self.unfinished.map(|unfinished| unfinished.part) {
            return None;
        }
        let whole_by = now + FRAME_TIMEOUT;
        self.unfinished = part.map(|part| Unfinished { part, whole_by });
        part.map(|_| whole_by)
    }

    /// Bytes of what has begun and is not whole.
    pub(crate) fn held(&self) -> usize {
        let frame = match &self.role {
            Role::Client(client, _) => client.held(),
            Role::Link(link) => link.held(),
        };
        frame + self.inbound.held()
    }

    /// When what has begun must be whole; `None` if nothing has.
    pub(crate) fn whole_by(&self) -> Option<Instant> {
        self.unfinished.map(|unfinished| unfinished.whole_by)
    }

    /// Hands replies that the last read made due, such as a WebSocket pong, to the outbound side.
    #[inline]
    fn hand_over_reply(&mut self, turn: &mut Turn<'_>) {
        if let Some(reply) = self.inbound.take_reply() {
            let peer = self.peer();
            peer.egress.with_transmit(|outbound| outbound.owe(reply));
            if peer.egress.nudge() == Pushed::MustFlush {
                turn.dirty.push(peer.clone());
            }
        }
    }

    /// Sends the keep-alive or ping that is due, and notes when the next one is.
    pub(crate) fn keep_alive(&mut self, keepalive: Duration, turn: &mut Turn<'_>) -> Result<(), Close> {
        self.keepalive_at = match &self.role {
            Role::Client(client, _) => client.keep_alive(keepalive, turn),
            Role::Link(link) => link.ping(turn)?,
        };
        Ok(())
    }

    /// Sends the next step of the snapshot if the client is a watcher that has not been sent all of it.
    pub(crate) fn continue_snapshot(&mut self, turn: &mut Turn<'_>) -> SnapshotCursor {
        match &mut self.role {
            Role::Client(client, _) => client.continue_snapshot(turn),
            Role::Link(_) => SnapshotCursor::Done,
        }
    }

    /// Notes that a watcher is listed for the next step of its snapshot. Returns false if it is listed already.
    pub(crate) fn list_snapshot(&mut self) -> bool {
        match &mut self.role {
            Role::Client(client, _) => client.list_snapshot(),
            Role::Link(_) => false,
        }
    }

    /// Whether a watcher has not been sent all of its snapshot because it is behind in reading.
    pub(crate) fn is_behind(&self) -> bool {
        match &self.role {
            Role::Client(client, _) => client.is_behind(),
            Role::Link(_) => false,
        }
    }

    fn age(&self, now: Instant) -> Duration {
        Duration::from_secs(seconds(now).saturating_sub(self.since).into())
    }

    /// What an operator is shown of the connection at `now`.
    pub(crate) fn report(&self, now: Instant) -> ConnectionReport {
        let client = match &self.role {
            Role::Client(client, _) => Some((client.report(), client.received())),
            Role::Link(_) => None,
        };
        ConnectionReport::new(self.peer(), client, self.age(now), self.inbound.kind())
    }

    /// Forgets the connection everywhere but in its owner's slab, or leaves it to later turns.
    pub(crate) fn depart(&mut self, reason: Close, turn: &mut Turn<'_>) {
        match &mut self.role {
            Role::Client(client, _) => {
                client.clear(&mut turn.pool);
                client.depart(turn);
            }
            Role::Link(link) => {
                link.clear(&mut turn.pool);
                link.depart(reason, turn);
            }
        }
        self.inbound.clear(&mut turn.pool);
    }
}
