//! A connection as its worker sees it: what its socket brings, and what its frames ask for.

use std::io::{ErrorKind, Read};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use towpath_relay_proto::egress::Pushed;
use towpath_relay_proto::outbox::Limits;
use towpath_relay_proto::rights::Rights;
use towpath_relay_proto::session::{Action, Close, Session};
use towpath_tls::Reader;
use towpath_wire::derp::frame::ServerFrame;
use towpath_wire::time::Instant;

use super::desk::Desk;
use super::inlet::{Inlet, open_records};
use super::link::{Link, LinkArrival};
use super::mesh::Roll;
use super::peer::Peer;
use super::sender::Sender;

/// How much is read at once. A fifth of what `perf` finds in a relay is system calls; larger reads save no more of it.
pub(super) const READ_SIZE: usize = 64 * 1024;

/// A logged-in connection on its way to a worker.
#[derive(Debug)]
pub(crate) struct Arrival {
    pub(crate) peer: Arc<Peer>,
    pub(crate) socket: Arc<TcpStream>,
    pub(crate) inlet: Inlet,
    /// What was read and not opened.
    pub(crate) incoming: Vec<u8>,
    /// Bytes of DERP that were read and not used.
    pub(crate) frames: Vec<u8>,
    /// What the client may ask for.
    pub(crate) rights: Rights,
    /// The client said that another relay would be nearer.
    pub(crate) not_ideal: bool,
    /// When the first keep-alive is due, counted from now.
    pub(crate) first_keepalive: Duration,
}

/// What the frames of a connection act on: everything of it but the way in.
#[derive(Debug)]
pub(super) struct Client {
    session: Session,
    pub(super) sender: Sender,
    home: bool,
    not_ideal: bool,
}

/// Who is at the other end.
#[derive(Debug)]
enum Party {
    Client(Client, Inlet),
    Relay(Box<Link>, Box<Reader<towpath_tls::Client>>),
}

/// A connection that a worker reads.
#[derive(Debug)]
pub(super) struct Connection {
    party: Party,
    socket: Arc<TcpStream>,
    /// The start of a record that is not whole yet.
    tail: Vec<u8>,
    /// The other side has closed: no event will say again that there is something to read.
    pub(super) hung_up: bool,
    /// The connection is on the worker's list of those to read.
    pub(super) listed: bool,
    /// When the other side is to hear that this one lives, or is to say so itself.
    pub(super) keepalive_at: Instant,
}

/// What a read found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ReadOutcome {
    /// Bytes read.
    pub(super) bytes: usize,
    /// There may be more; where not, epoll will tell.
    pub(super) more: bool,
}

impl Connection {
    /// Takes over an arrival, and with it what was already read.
    pub(super) fn new(arrival: Arrival, desk: &mut Desk<'_>) -> (Self, Result<(), Close>) {
        let Arrival { peer, socket, inlet, mut incoming, frames, rights, not_ideal, first_keepalive } =
            arrival;
        desk.registry.gauges().not_ideal.fetch_add(i64::from(not_ideal), Ordering::Relaxed);
        let client =
            Client { session: Session::new(rights), sender: Sender::new(peer), home: false, not_ideal };
        let mut connection = Self::of(Party::Client(client, inlet), socket, desk.now + first_keepalive);
        let opened = connection.handle(&frames, desk).and_then(|()| connection.open(&mut incoming, desk));
        (connection, opened)
    }

    /// The same for a link.
    pub(super) fn new_link(arrival: LinkArrival, desk: &mut Desk<'_>) -> (Self, Result<(), Close>) {
        let LinkArrival { peer, socket, reader, session, mut incoming, frames, events } = arrival;
        let link = Box::new(Link::new(peer, session, events, desk));
        let mut connection = Self::of(Party::Relay(link, Box::new(reader)), socket, desk.now);
        let opened = connection.handle(&frames, desk).and_then(|()| connection.open(&mut incoming, desk));
        (connection, opened)
    }

    const fn of(party: Party, socket: Arc<TcpStream>, keepalive_at: Instant) -> Self {
        let tail = Vec::new();
        Self { party, socket, tail, hung_up: false, listed: false, keepalive_at }
    }

    #[inline]
    pub(super) const fn peer(&self) -> &Arc<Peer> {
        match &self.party {
            Party::Client(client, _) => &client.sender.peer,
            Party::Relay(link, _) => &link.peer,
        }
    }

    fn handle(&mut self, frames: &[u8], desk: &mut Desk<'_>) -> Result<(), Close> {
        match &mut self.party {
            Party::Client(client, _) => client.handle(frames, desk),
            Party::Relay(link, _) => link.handle(frames, desk),
        }
    }

    pub(super) const fn socket(&self) -> &Arc<TcpStream> {
        &self.socket
    }

    /// Since when a destination has so much waiting that reading on would only be dropping.
    pub(super) fn ahead_since(&mut self, limits: &Limits) -> Option<Instant> {
        match &mut self.party {
            Party::Client(client, _) => client.sender.ahead_since(limits),
            Party::Relay(..) => None,
        }
    }

    /// Does what is due at this time, and returns when to be looked at again.
    pub(super) fn keep_alive(&mut self, keepalive: Duration, desk: &mut Desk<'_>) -> Result<Instant, Close> {
        self.keepalive_at = match &self.party {
            Party::Client(client, _) => {
                desk.tally.rare_mut().keepalives += 1;
                desk.push_control(&client.sender.peer, &ServerFrame::KeepAlive);
                desk.now + keepalive
            }
            Party::Relay(link, _) => link.ping(desk)?,
        };
        Ok(self.keepalive_at)
    }

    /// Tells a watcher of more who are here, if it has not been told of all.
    pub(super) fn continue_roll(&mut self, desk: &mut Desk<'_>) -> Roll {
        match &mut self.party {
            Party::Client(client, _) => client.sender.continue_roll(desk),
            Party::Relay(..) => Roll::Done,
        }
    }

    /// Whether a watcher has not been told of all because it is behind in reading.
    pub(super) fn is_behind(&self) -> bool {
        match &self.party {
            Party::Client(client, _) => client.sender.is_behind(),
            Party::Relay(..) => false,
        }
    }

    /// Reads once and acts on what came. `buffer` has room for [`READ_SIZE`] and a record more.
    pub(super) fn read(&mut self, buffer: &mut [u8], desk: &mut Desk<'_>) -> Result<ReadOutcome, Close> {
        let kept = self.tail.len();
        let room = &mut buffer[kept..kept + READ_SIZE];
        desk.tally.reads += 1;
        let read = match (&*self.socket).read(room) {
            Ok(0) => return Err(Close::PeerClosed),
            Ok(read) => read,
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                return Ok(ReadOutcome { bytes: 0, more: false });
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => {
                return Ok(ReadOutcome { bytes: 0, more: true });
            }
            Err(error) if error.kind() == ErrorKind::ConnectionReset => return Err(Close::PeerClosed),
            Err(_) => return Err(Close::Socket),
        };
        if kept > 0 {
            buffer[..kept].copy_from_slice(&self.tail);
            desk.pool.give(std::mem::take(&mut self.tail));
        }
        self.open(&mut buffer[..kept + read], desk)?;
        Ok(ReadOutcome { bytes: read, more: read == READ_SIZE || self.hung_up })
    }

    /// Acts on the frames in `bytes`, as they came from the socket, and keeps what is not a whole record.
    fn open(&mut self, bytes: &mut [u8], desk: &mut Desk<'_>) -> Result<(), Close> {
        let consumed = match &mut self.party {
            Party::Client(client, inlet) => inlet.open(bytes, client, desk)?,
            Party::Relay(link, reader) => {
                open_records(reader, bytes, |plaintext| link.handle(plaintext, desk))?
            }
        };
        let rest = &bytes[consumed..];
        if !rest.is_empty() {
            self.tail = desk.pool.take();
            self.tail.extend_from_slice(rest);
        }
        Ok(())
    }

    /// Forgets the connection everywhere but in the worker's slab.
    pub(super) fn depart(&mut self, desk: &mut Desk<'_>) {
        match &mut self.party {
            Party::Client(client, _) => client.depart(desk),
            Party::Relay(link, _) => link.depart(desk),
        }
    }

    /// Tells whoever waits for it that the connection is closed and forgotten.
    pub(super) fn report(&self, reason: Close) {
        if let Party::Relay(link, _) = &self.party {
            link.report(reason);
        }
    }
}

impl Client {
    /// Has what the way out owes the client on its own account sent.
    pub(super) fn nudge(&self, desk: &mut Desk<'_>) {
        if self.sender.peer.egress.nudge() == Pushed::MustFlush {
            desk.dirty.push(self.sender.peer.clone());
        }
    }

    /// Acts on the frames in `plaintext`, and counts those that it skips.
    #[inline]
    pub(super) fn handle(&mut self, plaintext: &[u8], desk: &mut Desk<'_>) -> Result<(), Close> {
        // Each frame makes the connection the active one of its key, one of an unknown type, too; the first of a record
        // settles it for the others.
        let mut unnoted = self.sender.peer.is_shared();
        let skipped = self.session.skipped();
        let acted = self.act(plaintext, &mut unnoted, desk);
        let skipped = self.session.skipped() - skipped;
        if skipped > 0 {
            desk.tally.rare_mut().unknown_frames += skipped;
            if unnoted {
                desk.note_sent(&self.sender.peer);
            }
        }
        acted
    }

    fn act(&mut self, mut plaintext: &[u8], unnoted: &mut bool, desk: &mut Desk<'_>) -> Result<(), Close> {
        while let Some(action) = self.session.next(&mut plaintext, desk.pool)? {
            if std::mem::take(unnoted) {
                desk.note_sent(&self.sender.peer);
            }
            match action {
                Action::Forward { to, packet } => self.sender.send(&to, packet, desk),
                Action::Relay(relayed) => self.sender.relay(relayed, desk),
                Action::Watch => self.sender.watch(desk),
                Action::ClosePeer(key) => self.sender.close_peer(&key, desk),
                Action::Pong(data) => {
                    desk.tally.rare_mut().pings += 1;
                    desk.push_control(&self.sender.peer, &ServerFrame::Pong(data));
                    desk.tally.rare_mut().pongs += 1;
                }
                Action::Preferred(home) => {
                    if std::mem::replace(&mut self.home, home) != home {
                        let change = if home { 1 } else { -1 };
                        desk.registry.gauges().home.fetch_add(change, Ordering::Relaxed);
                    }
                }
            }
        }
        Ok(())
    }

    fn depart(&self, desk: &mut Desk<'_>) {
        let gauges = desk.registry.gauges();
        gauges.home.fetch_sub(i64::from(self.home), Ordering::Relaxed);
        gauges.not_ideal.fetch_sub(i64::from(self.not_ideal), Ordering::Relaxed);
        if self.session.rights().may_watch() {
            desk.registry.unwatch(&self.sender.peer);
        }
        let registry = desk.registry;
        for listener in registry.leave(&self.sender.peer, &mut |each, notice| desk.notify(each, notice)) {
            desk.push_gone(&listener, &self.sender.peer.key);
        }
    }
}
