//! The relay under test: sessions, outboxes and presences, put together as its server does it, on one thread.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use towpath_relay_proto::egress::{Egress, Flushed, Pushed};
use towpath_relay_proto::presence::{Departure, Member, Presence};
use towpath_relay_proto::session::{Action, Session};
use towpath_wire::derp::frame::{ClientFrame, PingData, ServerFrame};
use towpath_wire::key::NodePublic;
use towpath_wire::pool::BufferPool;
use towpath_wire::time::Instant;

use super::model::{LIMITS, ModelClones, ModelOutbox, Packet};
use super::socket::{Meanwhile, Socket, SocketTransmit, push_packet, with_context};

/// A connection as its key's presence and its senders see it.
#[derive(Debug)]
struct TestPeer {
    id: u64,
    key: NodePublic,
    active: Cell<bool>,
    shared: Cell<bool>,
    egress: Rc<Egress<SocketTransmit>>,
    owed: Rc<RefCell<ModelOutbox>>,
    socket: Rc<RefCell<Socket>>,
}

impl Member for TestPeer {
    fn id(&self) -> u64 {
        self.id
    }

    fn set_active(&self, active: bool) {
        self.active.set(active);
    }

    fn set_shared(&self, shared: bool) {
        self.shared.set(shared);
    }
}

/// What a client asks for.
#[derive(Debug, PartialEq)]
enum Expected {
    Forward { to: NodePublic, packet: Vec<u8> },
    Pong(PingData),
    Preferred(bool),
}

#[derive(Debug)]
struct TestClient {
    peer: Arc<TestPeer>,
    session: Session,
    /// What the client has written and the relay has not read.
    written: VecDeque<u8>,
    /// What the relay must find in it; `None` once the client has written just anything.
    asked: Option<VecDeque<Expected>>,
}

#[derive(Debug, Default)]
pub(super) struct Relay {
    clients: Vec<TestClient>,
    registry: BTreeMap<NodePublic, Presence<TestPeer>>,
    clones: BTreeMap<NodePublic, ModelClones>,
    dirty: Vec<Arc<TestPeer>>,
    now: Instant,
    connections: u64,
    packets: u32,
}

fn key(number: u8) -> NodePublic {
    NodePublic::from_bytes([number + 1; 32])
}

impl Relay {
    pub(super) fn connect(&mut self, number: u8) {
        self.connections += 1;
        let (id, key) = (self.connections, key(number));
        let (owed, socket) = (Rc::<RefCell<ModelOutbox>>::default(), Rc::<RefCell<Socket>>::default());
        let egress = Rc::new_cyclic(|egress| {
            Egress::new(
                SocketTransmit { socket: socket.clone(), owed: owed.clone(), egress: egress.clone() },
                Arc::new(LIMITS),
            )
        });
        #[expect(clippy::arc_with_non_send_sync, reason = "a presence has its connections in Arcs")]
        let peer = Arc::new(TestPeer {
            id,
            key,
            active: Cell::default(),
            shared: Cell::default(),
            egress,
            owed,
            socket,
        });
        match self.registry.get_mut(&key) {
            Some(presence) => presence.join(peer.clone()),
            None => drop(self.registry.insert(key, Presence::new(peer.clone()))),
        }
        self.clones.entry(key).or_default().join(id);
        let (session, written, asked) = (Session::default(), VecDeque::new(), Some(VecDeque::new()));
        self.clients.push(TestClient { peer, session, written, asked });
    }

    /// The client that is meant by a number, if there is any.
    fn client(&mut self, pick: u8) -> Option<&mut TestClient> {
        let len = self.clients.len();
        self.clients.get_mut(usize::from(pick).checked_rem(len)?)
    }

    pub(super) fn write_packet(&mut self, pick: u8, to: u8, disco: bool, len: usize) {
        let packet = self.packet(disco, len);
        let frame = ClientFrame::SendPacket { to: key(to), packet: &packet };
        self.ask(pick, &frame, Expected::Forward { to: key(to), packet: packet.clone() });
    }

    /// A packet that is like no other.
    fn packet(&mut self, disco: bool, len: usize) -> Vec<u8> {
        self.packets += 1;
        let mut packet = Vec::new();
        if disco {
            packet.extend(towpath_wire::disco::MAGIC);
            packet.resize(towpath_wire::disco::MIN_LEN, 0);
        }
        packet.extend(self.packets.to_be_bytes());
        packet.resize(packet.len().max(len), self.packets as u8);
        packet
    }

    pub(super) fn write_ping(&mut self, pick: u8, data: PingData) {
        self.ask(pick, &ClientFrame::Ping(data), Expected::Pong(data));
    }

    pub(super) fn write_preferred(&mut self, pick: u8, on: bool) {
        self.ask(pick, &ClientFrame::NotePreferred(on), Expected::Preferred(on));
    }

    fn ask(&mut self, pick: u8, frame: &ClientFrame<'_>, asked: Expected) {
        let Some(client) = self.client(pick) else { return };
        let mut bytes = Vec::new();
        frame.encode(&mut bytes);
        client.written.extend(bytes);
        if let Some(all) = &mut client.asked {
            all.push_back(asked);
        }
    }

    pub(super) fn write_unknown(&mut self, pick: u8, len: u8) {
        let Some(client) = self.client(pick) else { return };
        client.written.extend([0x77, 0, 0, 0, len]);
        client.written.extend(vec![4; len.into()]);
    }

    pub(super) fn write_anything(&mut self, pick: u8, bytes: &[u8]) {
        let Some(client) = self.client(pick) else { return };
        client.written.extend(bytes);
        client.asked = None;
    }

    /// Reads once from a client, up to so many bytes, and does what it asks for.
    pub(super) fn read(&mut self, pick: u8, bytes: usize) {
        let Some(client) = self.client(pick) else { return };
        let bytes: Vec<_> = client.written.drain(..bytes.min(client.written.len())).collect();
        let (peer, mut session) = (client.peer.clone(), std::mem::take(&mut client.session));
        let (mut input, mut pool) = (&bytes[..], BufferPool::default());
        let closed = loop {
            let skipped = session.skipped();
            let action = match session.next(&mut input, &mut pool) {
                Ok(Some(action)) => Some(Expected::from(action)),
                Ok(None) => None,
                Err(close) => break Some(close),
            };
            if action.is_some() || session.skipped() > skipped {
                self.note_sent(&peer);
            }
            let Some(action) = action else { break None };
            self.act(pick, &peer, action);
        };
        self.flush_dirty();
        let client = self.client(pick).expect("no client left meanwhile");
        client.session = session;
        if let Some(close) = closed {
            assert!(client.asked.is_none(), "a client that keeps to the rules is closed: {close:?}");
            self.leave(pick);
        }
    }

    /// Makes a connection that sends the active one.
    fn note_sent(&mut self, peer: &TestPeer) {
        if peer.shared.get() {
            let shown = self.registry.get_mut(&peer.key).expect("who sends is here").note_sent(peer.id);
            let expected = self.clones.get_mut(&peer.key).expect("who sends is here").note_sent(peer.id);
            assert_eq!(shown, expected, "a key is contested by who takes the place a second time");
        }
    }

    fn act(&mut self, pick: u8, peer: &Arc<TestPeer>, action: Expected) {
        if let Some(asked) = &mut self.client(pick).expect("who asks is here").asked {
            assert_eq!(asked.pop_front().as_ref(), Some(&action), "what is asked for is what is found");
        }
        match action {
            Expected::Forward { to, packet } => self.forward(peer.key, to, packet),
            Expected::Pong(data) => {
                let pong = ServerFrame::Pong(data);
                let room = peer.owed.borrow_mut().push_control(&pong);
                let pushed =
                    peer.egress.push(|outbox| outbox.push_control(&pong, &mut BufferPool::default()));
                assert_eq!(pushed != Pushed::Full, room, "control frames have a bound");
                self.note_push(peer, pushed);
            }
            Expected::Preferred(_) => {}
        }
    }

    fn forward(&mut self, from: NodePublic, to: NodePublic, bytes: Vec<u8>) {
        let destination = self.registry.get(&to).map(|presence| presence.active().clone());
        let expected = self.clones.get(&to).and_then(ModelClones::active);
        assert_eq!(destination.as_ref().map(|peer| peer.id), expected, "the active connection gets it");
        if let Some(destination) = destination {
            let packet = Packet { from, bytes, at: self.now };
            let pushed = push_packet(&destination.egress, &destination.owed, packet);
            self.note_push(&destination, pushed);
        }
    }

    fn note_push(&mut self, peer: &Arc<TestPeer>, pushed: Pushed) {
        match pushed {
            Pushed::MustFlush => self.dirty.push(peer.clone()),
            Pushed::Queued | Pushed::Full => {}
            Pushed::Closed => panic!("who has left is not found"),
        }
    }

    fn flush_dirty(&mut self) {
        for peer in std::mem::take(&mut self.dirty) {
            let flushed = flush(self.now, &peer);
            assert_eq!(flushed == Flushed::BecameBlocked, peer.egress.is_blocked());
        }
    }

    /// A client's socket takes so many bytes more.
    pub(super) fn take(&mut self, pick: u8, room: Option<usize>) {
        let now = self.now;
        let Some(TestClient { peer, .. }) = self.client(pick) else { return };
        peer.socket.borrow_mut().room = room;
        if room != Some(0) {
            let flushed = with_context(now, &peer.owed, |context| peer.egress.flush_writable(context));
            if flushed == Flushed::Unfinished {
                let _ = flush(now, peer);
            }
        }
    }

    pub(super) fn break_socket(&mut self, pick: u8) {
        if let Some(client) = self.client(pick) {
            client.peer.socket.borrow_mut().broken = true;
        }
    }

    pub(super) fn meanwhile(&mut self, pick: u8, packets: u8, writable: bool) {
        let (from, at) = (key(4), self.now);
        let packets =
            (0..packets).map(|number| Packet { from, bytes: self.packet(number % 3 == 0, 500), at });
        let packets = packets.collect();
        if let Some(client) = self.client(pick) {
            client.peer.socket.borrow_mut().meanwhile = Some(Meanwhile { packets, writable });
        }
    }

    pub(super) fn wait(&mut self, ms: u8) {
        self.now += Duration::from_millis(ms.into());
    }

    pub(super) fn leave(&mut self, pick: u8) {
        let Some(index) = usize::from(pick).checked_rem(self.clients.len()) else { return };
        let TestClient { peer, .. } = self.clients.remove(index);
        let departure = self.registry.get_mut(&peer.key).expect("who leaves was here").leave(peer.id);
        let expected = self.clones.get_mut(&peer.key).expect("who leaves was here").leave(peer.id);
        assert_eq!(departure, expected);
        if departure == Departure::KeyGone {
            self.registry.remove(&peer.key);
        }
        assert!(!peer.active.get() && !peer.shared.get());
        with_context(self.now, &peer.owed, |context| peer.egress.close(context, |_, _| ()));
        peer.owed.borrow_mut().assert_closed();
        assert_eq!(peer.egress.waiting(), 0);
        assert_eq!(peer.egress.push(|_| true), Pushed::Closed);
    }

    /// What must hold after every operation.
    pub(super) fn assert_nothing_is_forgotten(&self) {
        for TestClient { peer, .. } in &self.clients {
            let clones = &self.clones[&peer.key];
            assert_eq!(peer.active.get(), clones.active() == Some(peer.id));
            assert_eq!(peer.shared.get(), clones.ids().count() > 1);
            let presence = &self.registry[&peer.key];
            assert_eq!(presence.is_contested(), clones.is_contested());
            assert!(presence.connections().map(|connection| connection.id).eq(clones.ids()));
            let (socket, blocked) = (peer.socket.borrow(), peer.egress.is_blocked());
            assert_eq!(peer.egress.waiting(), peer.owed.borrow().waiting());
            peer.owed.borrow().assert_bounds();
            let waits = peer.egress.waiting() > 0 || socket.has_unsent();
            assert!(!waits || blocked || socket.broken, "packets wait and no thread owes a flush");
            assert!(!blocked || socket.is_full() || socket.broken, "what waits could be sent");
        }
    }

    /// Reads everything that the clients have written, and closes their connections.
    pub(super) fn end(&mut self) {
        for pick in (0..self.clients.len()).rev() {
            self.read(pick as u8, usize::MAX);
        }
        self.assert_nothing_is_forgotten();
        while !self.clients.is_empty() {
            self.leave(0);
            self.assert_nothing_is_forgotten();
        }
    }
}

impl From<Action<'_>> for Expected {
    fn from(action: Action<'_>) -> Self {
        match action {
            Action::Forward { to, packet } => Self::Forward { to, packet: packet.to_vec() },
            Action::Pong(data) => Self::Pong(data),
            Action::Preferred(on) => Self::Preferred(on),
            Action::Relay(_) | Action::Watch | Action::ClosePeer(_) => {
                panic!("no client here has the right to {action:?}")
            }
        }
    }
}

/// Flushes until the flush is finished, as a worker does over several turns.
fn flush(now: Instant, peer: &TestPeer) -> Flushed {
    loop {
        let flushed = with_context(now, &peer.owed, |context| peer.egress.flush(context));
        if flushed != Flushed::Unfinished {
            return flushed;
        }
    }
}
