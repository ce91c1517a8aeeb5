//! A connection as its worker sees it: what its socket brings, and what its frames ask for.

use std::io::{ErrorKind, Read};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use relay_proto::egress::Pushed;
use relay_proto::outbox::{DropReason, DropSink, Limits};
use relay_proto::session::{Action, Close, PacketKind, Session};
use wire::derp::frame::{GoneReason, ServerFrame};
use wire::key::NodePublic;
use wire::pool::BufferPool;
use wire::time::Instant;

use super::counters::Tally;
use super::inlet::Inlet;
use super::peer::Peer;
use super::registry::Registry;

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
    /// The client said that another relay would be nearer.
    pub(crate) not_ideal: bool,
    /// When the first keep-alive is due, counted from now.
    pub(crate) first_keepalive: Duration,
}

/// What handling frames needs besides the connection itself.
pub(super) struct Desk<'a> {
    pub(super) now: Instant,
    pub(super) limits: &'a Limits,
    pub(super) registry: &'a Registry,
    pub(super) pool: &'a mut BufferPool,
    pub(super) tally: &'a mut Tally,
    /// Peers whose outbox this turn made dirty, once each.
    pub(super) dirty: &'a mut Vec<Arc<Peer>>,
}

impl Desk<'_> {
    /// Appends a control frame for `peer`.
    pub(super) fn push_control(&mut self, peer: &Arc<Peer>, frame: &ServerFrame<'_>) {
        let pool = &mut *self.pool;
        match peer.egress.push(|outbox| outbox.push_control(frame, pool)) {
            Pushed::MustFlush => self.dirty.push(peer.clone()),
            Pushed::Queued => {}
            Pushed::Full | Pushed::Closed => self.tally.control_dropped += 1,
        }
    }

    /// Tells `peer` how its key fares.
    pub(super) fn push_health(&mut self, peer: &Arc<Peer>, health: &str) {
        self.push_control(peer, &ServerFrame::Health(health));
    }

    /// Notes that `peer`, whose key has other connections, has sent something.
    fn note_sent(&mut self, peer: &Peer) {
        let registry = self.registry;
        registry.note_sent(peer, |each, health| self.push_health(each, health));
    }

    /// Appends a packet for `peer`; how much then waits there.
    #[inline]
    fn push_packet(&mut self, peer: &Arc<Peer>, from: &NodePublic, packet: &[u8]) -> usize {
        let (now, limits) = (self.now, self.limits);
        let (pool, tally) = (&mut *self.pool, &mut *self.tally);
        let mut waiting = 0;
        let pushed = peer.egress.push(|outbox| {
            outbox.push_packet(now, from, packet, limits, pool, tally);
            waiting = outbox.len();
            true
        });
        match pushed {
            Pushed::MustFlush => self.dirty.push(peer.clone()),
            Pushed::Queued => {}
            Pushed::Full | Pushed::Closed => {
                self.tally.dropped(DropReason::Gone, PacketKind::of(packet), packet.len());
            }
        }
        waiting
    }
}

/// A connection's own memory of where its packets go.
#[derive(Debug, Default)]
struct Routes(Option<Box<[Option<Arc<Peer>>; Self::SIZE]>>);

impl Routes {
    /// A developer's machine talks to a handful of peers at a time.
    const SIZE: usize = 16;

    const fn slot(key: &NodePublic) -> usize {
        key.as_bytes()[0] as usize % Self::SIZE
    }

    /// The connection of `key`, if it was found before and is still the active one.
    #[inline]
    fn get(&self, key: &NodePublic) -> Option<&Arc<Peer>> {
        self.0.as_ref()?[Self::slot(key)].as_ref().filter(|peer| peer.key == *key && peer.is_active())
    }

    fn put(&mut self, peer: Arc<Peer>) -> &Arc<Peer> {
        let slot = Self::slot(&peer.key);
        self.0.get_or_insert_default()[slot].insert(peer)
    }
}

/// How often a client is told that a peer is not here: as upstream, three at once and then one a second.
#[derive(Clone, Copy, Debug)]
struct NotHereBudget {
    left: u8,
    since: Instant,
}

impl NotHereBudget {
    const BURST: u8 = 3;
    const INTERVAL: Duration = Duration::from_secs(1);

    const fn new(now: Instant) -> Self {
        Self { left: Self::BURST, since: now }
    }

    fn spend(&mut self, now: Instant) -> bool {
        let earned = now.since(self.since).as_nanos() / Self::INTERVAL.as_nanos();
        if earned > 0 {
            self.left = Self::BURST.min(self.left.saturating_add(u8::try_from(earned).unwrap_or(u8::MAX)));
            self.since += Self::INTERVAL * u32::try_from(earned).unwrap_or(u32::MAX);
        }
        let granted = self.left > 0;
        self.left -= u8::from(granted);
        granted
    }
}

/// What the frames of a connection act on: everything of it but the way in.
#[derive(Debug)]
pub(super) struct Client {
    peer: Arc<Peer>,
    session: Session,
    routes: Routes,
    not_here: NotHereBudget,
    home: bool,
    /// A destination that had much waiting when this client last sent to it.
    ahead_of: Option<Arc<Peer>>,
}

/// A connection that a worker reads.
#[derive(Debug)]
pub(super) struct Connection {
    client: Client,
    socket: Arc<TcpStream>,
    inlet: Inlet,
    /// The start of a record that is not whole yet.
    tail: Vec<u8>,
    not_ideal: bool,
    /// The other side has closed: no event will say again that there is something to read.
    pub(super) hung_up: bool,
    /// The connection is on the worker's list of those to read.
    pub(super) listed: bool,
    pub(super) keepalive_at: Instant,
    /// When the connection was first held back for the destination that it is ahead of.
    pub(super) held_since: Option<Instant>,
}

/// How much may wait at a destination before those who send to it are held back: half of what may wait at all, and so
/// little that what one read brings still fits.
pub(super) fn hold_above(limits: &Limits) -> usize {
    (limits.bytes / 2).min(limits.bytes.saturating_sub(READ_SIZE))
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
        let Arrival { peer, socket, inlet, incoming, frames, not_ideal, first_keepalive } = arrival;
        desk.registry.gauges().not_ideal.fetch_add(i64::from(not_ideal), Ordering::Relaxed);
        let mut connection = Self {
            client: Client {
                peer,
                session: Session::default(),
                routes: Routes::default(),
                not_here: NotHereBudget::new(desk.now),
                home: false,
                ahead_of: None,
            },
            socket,
            inlet,
            tail: Vec::new(),
            not_ideal,
            hung_up: false,
            listed: false,
            keepalive_at: desk.now + first_keepalive,
            held_since: None,
        };
        let mut incoming = incoming;
        let opened =
            connection.client.handle(&frames, desk).and_then(|()| connection.open(&mut incoming, desk));
        (connection, opened)
    }

    pub(super) const fn peer(&self) -> &Arc<Peer> {
        &self.client.peer
    }

    pub(super) const fn socket(&self) -> &Arc<TcpStream> {
        &self.socket
    }

    /// Whether a destination has more waiting than [`hold_above`], so that reading on would only be dropping. Once it
    /// has caught up it is forgotten.
    pub(super) fn is_ahead(&mut self, limits: &Limits) -> bool {
        let Some(peer) = &self.client.ahead_of else { return false };
        let ahead = peer.egress.waiting() > hold_above(limits);
        if !ahead {
            self.client.ahead_of = None;
            self.held_since = None;
        }
        ahead
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
        let consumed = self.inlet.open(bytes, &mut self.client, desk)?;
        let rest = &bytes[consumed..];
        if !rest.is_empty() {
            self.tail = desk.pool.take();
            self.tail.extend_from_slice(rest);
        }
        Ok(())
    }

    /// Forgets the connection everywhere but in the worker's slab.
    pub(super) fn depart(&self, desk: &mut Desk<'_>) {
        let peer = &self.client.peer;
        let gauges = desk.registry.gauges();
        gauges.home.fetch_sub(i64::from(self.client.home), Ordering::Relaxed);
        gauges.not_ideal.fetch_sub(i64::from(self.not_ideal), Ordering::Relaxed);
        let registry = desk.registry;
        for listener in registry.leave(peer, |other, health| desk.push_health(other, health)) {
            let gone = ServerFrame::PeerGone { peer: peer.key, reason: GoneReason::Disconnected };
            desk.push_control(&listener, &gone);
            desk.tally.gone_disconnected += 1;
        }
    }
}

impl Client {
    /// Has what the way out owes the client on its own account sent.
    pub(super) fn nudge(&self, desk: &mut Desk<'_>) {
        if self.peer.egress.nudge() == Pushed::MustFlush {
            desk.dirty.push(self.peer.clone());
        }
    }

    /// Acts on the frames in `plaintext`, and counts those that it skips.
    #[inline]
    pub(super) fn handle(&mut self, plaintext: &[u8], desk: &mut Desk<'_>) -> Result<(), Close> {
        // Each frame makes the connection the active one of its key, one of an unknown type, too; the first of a record
        // settles it for the others.
        let mut unnoted = self.peer.is_shared();
        let skipped = self.session.skipped();
        let acted = self.act(plaintext, &mut unnoted, desk);
        let skipped = self.session.skipped() - skipped;
        desk.tally.unknown_frames += skipped;
        if unnoted && skipped > 0 {
            desk.note_sent(&self.peer);
        }
        acted
    }

    fn act(&mut self, mut plaintext: &[u8], unnoted: &mut bool, desk: &mut Desk<'_>) -> Result<(), Close> {
        while let Some(action) = self.session.next(&mut plaintext, desk.pool)? {
            if std::mem::take(unnoted) {
                desk.note_sent(&self.peer);
            }
            match action {
                Action::Forward { to, packet } => {
                    desk.tally.received(PacketKind::of(packet), packet.len());
                    let Some(peer) = find(&mut self.routes, &self.peer, &to, desk) else {
                        desk.tally.dropped(
                            DropReason::UnknownDestination,
                            PacketKind::of(packet),
                            packet.len(),
                        );
                        if PacketKind::of(packet) == PacketKind::Disco && self.not_here.spend(desk.now) {
                            let gone = ServerFrame::PeerGone { peer: to, reason: GoneReason::NotHere };
                            desk.push_control(&self.peer, &gone);
                            desk.tally.gone_not_here += 1;
                        }
                        continue;
                    };
                    let waiting = desk.push_packet(peer, &self.peer.key, packet);
                    if waiting > hold_above(desk.limits) && self.ahead_of.is_none() {
                        self.ahead_of = Some(peer.clone());
                    }
                }
                Action::Pong(data) => {
                    desk.tally.pings += 1;
                    desk.push_control(&self.peer, &ServerFrame::Pong(data));
                    desk.tally.pongs += 1;
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
}

/// The active connection of `to`. One that was not known here is asked of the registry, remembered, and put into the
/// audience of the sender's key, so that it is told when that key leaves.
#[inline]
fn find<'r>(
    routes: &'r mut Routes,
    sender: &Peer,
    to: &NodePublic,
    desk: &Desk<'_>,
) -> Option<&'r Arc<Peer>> {
    // Looked up twice where it is there: the borrow checker does not yet see that the first borrow ends with `None`.
    if routes.get(to).is_some() {
        return routes.get(to);
    }
    let peer = desk.registry.find(to)?;
    desk.registry.note_heard(&sender.key, &peer);
    Some(routes.put(peer))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn not_here_is_told_three_times_at_once_and_then_once_a_second() {
        let at = |ms: u64| Instant::from_nanos(ms * 1_000_000);
        let mut budget = NotHereBudget::new(at(0));
        let granted =
            |budget: &mut NotHereBudget, ms, tries| (0..tries).filter(|_| budget.spend(at(ms))).count();
        assert_eq!(granted(&mut budget, 10, 6), 3);
        assert_eq!(granted(&mut budget, 900, 6), 0);
        assert_eq!(granted(&mut budget, 1_000, 6), 1);
        assert_eq!(granted(&mut budget, 100_000, 6), 3);
    }
}
