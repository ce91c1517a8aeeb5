//! A worker on virtual time: real sockets, and a clock that goes where the test says.

use std::collections::HashSet;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::mpsc;

use towpath_relay_proto::account::connections::Seat;
use towpath_relay_proto::admission::PolicyName;
use towpath_relay_proto::egress::Pushed;
use towpath_relay_proto::outbox::{DropReason, Limits};
use towpath_relay_proto::rights::Rights;
use towpath_wire::derp::app_name::AppName;
use towpath_wire::derp::frame::{ClientFrame, ServerFrame};
use towpath_wire::derp::mesh::PresentFlags;
use towpath_wire::key::NodePublic;
use towpath_wire::time::Instant;

use super::departing::STEPS;
use super::*;
use crate::arrival::ClientArrival;
use crate::config::{DataPlaneConfig, PlaneLimits, PollPolicy};
use crate::counters::{ColdCount, Traffic};
use crate::inbox::WorkerInbox;
use crate::key::RouteKey;
use crate::report::{ListCursor, ListPage, ReportSink};
use crate::testing::traits;
use crate::transport::{Inbound, Outbound, TCP_USER_TIMEOUT, Transport, TransportKind, set_socket_options};

const MILLISECOND: Duration = Duration::from_millis(1);
const MINUTE: Duration = Duration::from_secs(60);
const KEEPALIVE: [u8; 5] = [6, 0, 0, 0, 0];
/// When every test begins: well after the start of its worker's clock.
const START: Instant = Instant::from_nanos(1_000_000_000_000);

/// A worker that no thread runs.
struct Driver(Worker<'static>);

/// A connection of the worker, without TLS, and the client's end of it.
struct Wire {
    peer: Arc<Peer>,
    token: usize,
    client: TcpStream,
}

impl Driver {
    fn new(keepalive: Duration, write_timeout: Duration) -> Self {
        let poll = Poll::new().expect("an epoll");
        let inboxes = Box::from([WorkerInbox::new(&poll).expect("an inbox")]);
        let config = DataPlaneConfig {
            limits: PlaneLimits { write_timeout, max_connections_per_key: 8, max_link_keys: 4 },
            keepalive,
            poll: PollPolicy { busy_poll: Duration::ZERO, gather: Duration::ZERO },
            own_key: NodePublic::from_bytes([0; 32]),
            watchable: true,
            max_frame_memory: 64 << 20,
        };
        let shared = Box::leak(Box::new(PlaneShared::new(config, inboxes)));
        let mut worker = Worker::new(0, poll, shared, Arc::default(), Clock::start());
        worker.turn.now = START;
        worker.wheel.advance(START, &mut Vec::new());
        Self(worker)
    }

    fn set(&mut self, now: Instant) {
        self.0.turn.now = now;
    }

    fn attach(&mut self, first_keepalive: Duration) -> Wire {
        let id = self.0.turn.registry().next_id();
        self.attach_as(id, key(id as u8 + 1), Rights::Client, first_keepalive)
    }

    fn attach_as(&mut self, id: u64, key: RouteKey, rights: Rights, first_keepalive: Duration) -> Wire {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address");
        let client = TcpStream::connect(address).expect("a connection");
        let socket = listener.accept().expect("a connection").0;
        socket.set_nonblocking(true).expect("not to wait");
        set_socket_options(&socket).expect("options");
        let arrival = ClientArrival {
            id,
            key,
            address,
            flags: PresentFlags::of(false, false, false),
            app_name: AppName::default(),
            version: 2,
            policy: PolicyName::Open,
            transport: Transport::plain(socket),
            frames: Vec::new(),
            server_info: ServerFrame::KeepAlive,
            rights,
            limits: Arc::new(limits()),
            not_ideal: false,
            first_keepalive,
            seat: Seat::unbounded(),
        };
        let new = NewClient::new(arrival);
        let peer = new.peer.clone();
        self.0.attach(new);
        self.0.flush_dirty();
        (&client).read_exact(&mut [0; KEEPALIVE.len()]).expect("what stands in for the ServerInfo");
        let token = peer.place().1.token;
        Wire { peer, token, client }
    }

    /// Reads what the client of `from` has written, unless it is held back, and flushes the outboxes that it fills.
    fn read(&mut self, from: &Wire) {
        self.0.note_event(from.token, true, false, false);
        self.turn();
    }

    /// What a turn does with connections that are held back.
    fn turn(&mut self) {
        self.0.release_held();
        self.0.read_ready();
        self.0.flush_dirty();
    }

    /// Appends a packet and does not flush, as another worker does in the middle of its turn.
    fn push_as_another_worker(&mut self, to: &Wire, from: &NodePublic) {
        let turn = &mut self.0.turn;
        let pushed = to.peer.egress.push(|outbox| {
            outbox.push_packet(turn.now, from, b"the last", &mut turn.pool, &mut turn.tally);
            true
        });
        assert_eq!(pushed, Pushed::MustFlush);
    }

    fn finish_departures(&mut self) {
        while !self.0.turn.departures.is_empty() {
            continue_departures(&mut self.0.turn);
        }
    }

    fn count(&self, count: ColdCount) -> u64 {
        self.0.turn.tally.cold(count)
    }

    fn dropped(&self) -> u64 {
        self.0.turn.tally.all_dropped().packets
    }
}

/// The kernel ends a connection whose window stays shut. It must not do so before the relay would.
#[test]
fn the_kernel_has_as_much_patience_as_the_relay() {
    let user_timeout = |write_timeout| {
        let mut driver = Driver::new(MINUTE, write_timeout);
        let wire = driver.attach(MINUTE);
        driver.0.connections[wire.token].inbound().patience().expect("an option")
    };
    assert_eq!(user_timeout(MILLISECOND * 2000), Some(TCP_USER_TIMEOUT));
    assert_eq!(user_timeout(MINUTE), Some(MINUTE));
}

fn limits() -> Limits {
    let bytes = 128 * 1024;
    Limits { bytes, packets: 32, disco_bytes: 32 * 1024, age: MINUTE, hold_above: crate::hold_above(bytes) }
}

fn key(number: u8) -> RouteKey {
    NodePublic::from_bytes([number; 32]).into()
}

fn frame(frame: &ClientFrame<'_>) -> Vec<u8> {
    let mut bytes = Vec::new();
    frame.encode(&mut bytes);
    bytes
}

#[test]
fn a_sender_is_held_back_for_a_moment_and_then_the_destination_loses_packets() {
    let mut driver = Driver::new(MINUTE, MINUTE);
    let (deaf, sender) = (driver.attach(MINUTE), driver.attach(MINUTE));
    let flood = frame(&ClientFrame::SendPacket { to: *deaf.peer.key.node(), packet: &[0; 1400] }).repeat(20);
    // Send until the socket of the deaf client is full and packets wait. No reading is held back before that.
    while deaf.peer.egress.waiting() <= 64 * 1024 {
        (&sender.client).write_all(&flood).expect("the relay reads all of it");
        driver.read(&sender);
    }
    assert_eq!((driver.count(ColdCount::Holds), driver.dropped()), (0, 0));

    // Later frames, of whatever type, wait for 20 ms, and for a tenth of that time besides. The reason is checked each
    // millisecond.
    (&sender.client).write_all(&frame(&ClientFrame::Ping([7; 8]))).expect("sent");
    driver.read(&sender);
    for passed in 1..22 {
        assert_eq!((driver.count(ColdCount::Holds), driver.count(ColdCount::Pings)), (passed, 0));
        driver.set(START + MILLISECOND * passed as u32 - Duration::from_nanos(1));
        driver.turn();
        assert_eq!(driver.count(ColdCount::Holds), passed, "not looked at before");
        driver.set(START + MILLISECOND * passed as u32);
        driver.turn();
    }
    driver.set(START + MILLISECOND * 22);
    driver.turn();
    assert_eq!((driver.count(ColdCount::Holds), driver.count(ColdCount::Pings)), (22, 1));
    // After that, frames are read as they come.
    for _ in 0..20 {
        (&sender.client).write_all(&flood).expect("the relay reads all of it");
        driver.read(&sender);
    }
    assert_eq!(driver.count(ColdCount::Holds), 22);
    assert!(driver.dropped() > 0);
}

#[test]
fn keepalives_come_at_the_interval_that_is_set() {
    let mut driver = Driver::new(MINUTE, MINUTE);
    let first = MINUTE + Duration::from_secs(3);
    let mut wire = driver.attach(first);
    let (mut came, step) = (Vec::new(), Duration::from_millis(10));
    for passed in (0..500_000).step_by(10).map(Duration::from_millis) {
        driver.set(START + passed);
        let before = driver.count(ColdCount::Keepalives);
        driver.0.handle_timers();
        if driver.count(ColdCount::Keepalives) > before {
            came.push(passed);
        }
    }
    assert_eq!(came.len(), 8, "{came:?}");
    // The wheel is late by one tick, or by two at most.
    let late = Duration::from_millis(100) + step;
    assert!((first..first + late).contains(&came[0]), "{came:?}");
    for pair in came.windows(2) {
        assert!((MINUTE..MINUTE + late).contains(&(pair[1] - pair[0])), "{came:?}");
    }
    let mut frames = vec![0; 8 * KEEPALIVE.len()];
    wire.client.read_exact(&mut frames).expect("all of them");
    assert_eq!(frames, KEEPALIVE.repeat(8));
}

/// A watcher that reads slowly, such as a prober behind a congested link, once multiplied its timers: each that found a
/// reason set another, and two reasons set two.
#[test]
fn a_slow_watcher_has_one_timer_and_one_place_in_the_list_of_snapshots() {
    const KEYS: u64 = 40_000;
    let mut driver = Driver::new(MINUTE, MINUTE);
    let stand_in = Arc::new(driver.attach(MINUTE).client);
    for number in 0..KEYS {
        driver.0.turn.registry().join(&Arc::new(peer(1_000 + number, &stand_in)), &mut |_, _| {});
    }
    let watcher = driver.attach_as(1, key(2), Rights::Watch, MINUTE);
    (&watcher.client).write_all(&frame(&ClientFrame::WatchConns)).expect("sent");
    driver.read(&watcher);
    watcher.client.set_nonblocking(true).expect("not to wait");
    let (mut behind, mut chunk) = (0, [0; 400]);
    for passed in (0..30_000).step_by(5) {
        driver.set(START + MILLISECOND * passed);
        // 80 kB a second.
        let _ = (&watcher.client).read(&mut chunk);
        driver.0.note_event(watcher.token, false, false, true);
        driver.0.continue_snapshots();
        driver.0.flush_dirty();
        driver.0.handle_timers();
        assert_eq!(driver.0.wheel.len(), driver.0.connections.len());
        assert!(driver.0.turn.snapshots.len() <= 1);
        behind += u32::from(driver.0.connections[watcher.token].is_behind());
    }
    assert!(behind > 1000, "the watcher is hardly ever behind: {behind}");
}

/// More connections of a key than are allowed close the one that has been silent the longest, and say why.
#[test]
fn a_key_has_so_many_connections_and_no_more() {
    let mut driver = Driver::new(MINUTE, MINUTE);
    let mut wires: Vec<_> = (0..8).map(|id| driver.attach_as(id, key(1), Rights::Client, MINUTE)).collect();
    // The first has sent, so the second has been silent the longest.
    (&wires[0].client).write_all(&frame(&ClientFrame::NotePreferred(true))).expect("sent");
    driver.read(&wires[0]);
    wires.push(driver.attach_as(8, key(1), Rights::Client, MINUTE));
    driver.0.flush_dirty();
    assert_eq!(driver.0.connections.len(), 8);
    assert!(!driver.0.owns(wires[1].peer.place().1) && driver.0.owns(wires[0].peer.place().1));
    let mut heard = Vec::new();
    (&wires[1].client).read_to_end(&mut heard).expect("the connection is closed");
    let heard = String::from_utf8_lossy(&heard);
    assert!(heard.contains("too many connections use this node key"), "{heard}");
}

/// The first bytes of a frame hold memory until the frame is whole, and nothing else ends them: keep-alives go out and the
/// kernel acknowledges them.
#[test]
fn a_frame_that_has_begun_is_whole_in_time_or_the_connection_is_closed() {
    let mut driver = Driver::new(MINUTE, MINUTE);
    let (slow, honest) = (driver.attach(MINUTE), driver.attach(MINUTE));
    let ping = frame(&ClientFrame::Ping([7; 8]));
    let long = frame(&ClientFrame::SendPacket { to: *slow.peer.key.node(), packet: &[0; 60] });
    for passed in 0..=31 {
        driver.set(START + Duration::from_secs(passed));
        // A byte each second, of a frame of 97 bytes and of frames of 13.
        (&slow.client).write_all(&long[passed as usize..][..1]).expect("the relay reads, or has closed");
        (&honest.client).write_all(&ping[passed as usize % 13..][..1]).expect("sent");
        driver.read(&slow);
        driver.read(&honest);
        driver.0.handle_timers();
    }
    assert!(!driver.0.owns(slow.peer.place().1), "closed after 30 s");
    assert!(driver.0.owns(honest.peer.place().1), "each frame is whole in time");
    assert_eq!(driver.count(ColdCount::Pings), 2);
    assert_eq!(driver.0.turn.tally.closed_for(Close::FrameTimeout), 1);
}

/// Nothing but a timer looks at an outbox whose socket is full.
#[test]
fn what_waits_too_long_behind_a_full_socket_is_dropped() {
    let mut driver = Driver::new(MINUTE, MINUTE * 10);
    let (deaf, sender) = (driver.attach(MINUTE * 10), driver.attach(MINUTE * 10));
    let flood = frame(&ClientFrame::SendPacket { to: *deaf.peer.key.node(), packet: &[0; 1400] }).repeat(20);
    while driver.dropped() == 0 {
        (&sender.client).write_all(&flood).expect("the relay reads all of it");
        driver.0.note_event(sender.token, true, false, false);
        driver.turn();
        driver.set(driver.0.turn.now + MILLISECOND);
    }
    let waiting = deaf.peer.egress.waiting();
    assert!(waiting > 64 * 1024, "{waiting} bytes wait");
    driver.set(driver.0.turn.now + limits().age / 2);
    driver.0.handle_timers();
    assert_eq!(deaf.peer.egress.waiting(), waiting, "half the time has passed");
    driver.set(driver.0.turn.now + limits().age);
    driver.0.handle_timers();
    assert_eq!(deaf.peer.egress.waiting(), 0);
    assert!(driver.0.owns(deaf.peer.place().1));
}

/// A key with many subscribers leaves in pieces, and a subscriber is not told of a key that has come back.
#[test]
fn the_subscribers_of_a_key_are_told_some_in_each_turn() {
    let mut driver = Driver::new(MINUTE, MINUTE);
    let (leaver, stand_in) = (driver.attach(MINUTE), Arc::new(driver.attach(MINUTE).client));
    let subscribers: Vec<_> = (0..3_000).map(|id| Arc::new(peer(id + 1_000, &stand_in))).collect();
    let registry = driver.0.turn.registry();
    for subscriber in &subscribers {
        assert!(registry.subscribe(&leaver.peer.key, subscriber).is_ok());
    }
    driver.0.close(leaver.token, Close::PeerClosed);
    let mut told = Vec::new();
    for _ in 0..2 {
        continue_departures(&mut driver.0.turn);
        told.push(driver.count(ColdCount::GoneDisconnected) as usize);
    }
    assert_eq!(told, [STEPS, 2 * STEPS]);
    let again = driver.attach_as(7, leaver.peer.key, Rights::Client, MINUTE);
    driver.finish_departures();
    assert_eq!(driver.count(ColdCount::GoneDisconnected) as usize, 2 * STEPS, "the key is here");
    driver.0.close(again.token, Close::PeerClosed);
    driver.finish_departures();
    assert_eq!(driver.count(ColdCount::GoneDisconnected), 3_000, "the others are still subscribed");
}

/// Another worker has read a packet for the subscriber and is in the middle of its turn, so this one's packets wait for it, too.
#[test]
fn a_subscriber_is_told_behind_the_last_packets_of_the_key() {
    let mut driver = Driver::new(MINUTE, MINUTE);
    let (leaver, subscriber) = (driver.attach(MINUTE), driver.attach(MINUTE));
    assert!(driver.0.turn.registry().subscribe(&leaver.peer.key, &subscriber.peer).is_ok());
    driver.push_as_another_worker(&subscriber, leaver.peer.key.node());
    driver.0.close(leaver.token, Close::PeerClosed);
    for _ in 0..100 {
        continue_departures(&mut driver.0.turn);
        driver.0.flush_dirty();
    }
    assert_eq!(driver.count(ColdCount::GoneDisconnected), 0);
    driver.0.turn.dirty.push(subscriber.peer.clone());
    driver.0.flush_dirty();
    driver.finish_departures();
    driver.0.flush_dirty();
    let mut frames = [0; 5 + 32 + 8 + 5 + 33];
    (&subscriber.client).read_exact(&mut frames).expect("two frames");
    assert_eq!((frames[0], frames[5 + 32 + 8]), (5, 8), "a RecvPacket and then a PeerGone");

    // No other worker takes forever; if one does, the news is worth more than the order.
    let again = driver.attach_as(7, leaver.peer.key, Rights::Client, MINUTE);
    assert!(driver.0.turn.registry().subscribe(&leaver.peer.key, &subscriber.peer).is_ok());
    driver.push_as_another_worker(&subscriber, leaver.peer.key.node());
    driver.0.close(again.token, Close::PeerClosed);
    continue_departures(&mut driver.0.turn);
    assert_eq!(driver.count(ColdCount::GoneDisconnected), 1);
    driver.set(driver.0.turn.now + 10 * MILLISECOND);
    continue_departures(&mut driver.0.turn);
    assert_eq!(driver.count(ColdCount::GoneDisconnected), 2);
}

/// A connection of a key of its own that no worker owns.
fn peer(id: u64, socket: &Arc<TcpStream>) -> Peer {
    let mut key = [0xee; 32];
    key[..8].copy_from_slice(&id.to_be_bytes());
    let (address, flags) = (([192, 0, 2, 1], 1).into(), PresentFlags::REGULAR);
    let (outbound, limits) = (Outbound::sharing(socket), Arc::new(limits()));
    Peer::new(NodePublic::from_bytes(key).into(), id, address, flags, outbound, limits)
}

/// A connection of a key of its own in the slab of `worker`, whose socket is shared with others and that epoll does not watch.
fn stand_in(worker: &mut Worker<'_>, id: u64, socket: &Arc<TcpStream>) {
    let (peer, traits) = (Arc::new(peer(id, socket)), traits(Rights::Client));
    let (inbound, seat) = (Inbound::sharing(socket), Seat::unbounded());
    let new = NewClient {
        peer: peer.clone(),
        inbound,
        server_info: Vec::new(),
        frames: Vec::new(),
        traits,
        first_keepalive: MINUTE,
        seat,
    };
    let token = worker.connections.vacant_key();
    peer.assign(worker.index, token);
    worker.turn.registry().join(&peer, &mut |_, _| {});
    let (connection, _) = Connection::new(new, &mut worker.turn);
    worker.connections.insert(connection);
    worker.wheel.schedule(token, START + MINUTE);
}

/// Asks for a page as the control plane does; the worker answers it in `turn`.
fn page(driver: &mut Driver, cursor: ListCursor) -> ListPage {
    let (send, page) = mpsc::channel();
    let inbox = &driver.0.turn.shared.inboxes[cursor.worker];
    inbox.send(WorkerMessage::List(
        cursor.token,
        ReportSink::new(move |page| send.send(page).expect("it is read")),
    ));
    assert!(page.try_recv().is_err(), "no turn, no answer");
    driver.0.handle_messages();
    page.try_recv().expect("the turn answers")
}

#[test]
fn a_list_of_ten_thousand_connections_costs_each_turn_a_page() {
    const CONNECTIONS: u64 = 10_000;
    let mut driver = Driver::new(MINUTE, MINUTE);
    let socket = Arc::new(driver.attach(MINUTE).client);
    for id in 1..CONNECTIONS {
        stand_in(&mut driver.0, 1_000 + id, &socket);
    }
    driver.0.publish();
    let (mut keys, mut cursor, mut turns) = (HashSet::new(), Some(ListCursor::default()), 0);
    while let Some(at) = cursor {
        let before = driver.0.turn.tally.work();
        let listed = page(&mut driver, at);
        let steps = driver.0.turn.tally.work() - before;
        assert!(steps <= 256, "{steps} steps in a turn");
        assert_eq!(steps, listed.connections.len() as u64, "each is a step that metrics show");
        assert!(listed.connections.iter().all(|report| keys.insert(report.key)), "each once");
        // Those that leave and come meanwhile change nothing for the others.
        driver.0.close(turns, Close::PeerClosed);
        turns += 1;
        cursor = listed.next;
    }
    assert_eq!(keys.len() as u64, CONNECTIONS);
    assert!(turns >= CONNECTIONS as usize / 256, "{turns} turns");
}

#[test]
fn a_report_says_what_a_connection_has_received_was_sent_waits_and_has_lost() {
    let mut driver = Driver::new(MINUTE, MINUTE);
    let (sender, deaf) = (driver.attach(MINUTE), driver.attach(MINUTE));
    let to_deaf = frame(&ClientFrame::SendPacket { to: *deaf.peer.key.node(), packet: &[0; 1400] });
    let to_stranger = frame(&ClientFrame::SendPacket { to: *key(0xaa).node(), packet: &[0; 70] });
    (&sender.client).write_all(&frame(&ClientFrame::NotePreferred(true))).expect("sent");
    (&sender.client).write_all(&[to_deaf.repeat(3), to_stranger].concat()).expect("sent");
    driver.read(&sender);
    let report = |driver: &mut Driver, wire: &Wire| driver.0.connections[wire.token].report(START + MINUTE);
    let of_sender = report(&mut driver, &sender);
    let client = of_sender.client.expect("a client");
    assert_eq!(
        (client.is_home, client.is_active, client.is_duplicate, client.version),
        (true, true, false, 2)
    );
    assert_eq!((of_sender.age, of_sender.transport), (MINUTE, TransportKind::Plain));
    assert_eq!(of_sender.received, Traffic { packets: 4, bytes: 3 * 1400 + 70 });
    assert_eq!(of_sender.dropped.of(DropReason::UnknownDestination), 1);
    let of_deaf = report(&mut driver, &deaf);
    assert_eq!(
        (of_deaf.sent, of_deaf.waiting),
        (Traffic { packets: 3, bytes: 3 * 1400 }, Traffic::default())
    );
    // More than the socket takes.
    while report(&mut driver, &deaf).dropped.of(DropReason::QueueFull) == 0 {
        (&sender.client).write_all(&to_deaf.repeat(20)).expect("the relay reads all of it");
        driver.0.note_event(sender.token, true, false, false);
        driver.turn();
        driver.set(driver.0.turn.now + MILLISECOND);
    }
    let (of_sender, of_deaf) = (report(&mut driver, &sender), report(&mut driver, &deaf));
    assert!(of_deaf.is_blocked && of_deaf.waiting.packets > 10, "{of_deaf:?}");
    assert!(of_deaf.waiting.bytes <= of_deaf.waiting_bound as u64);
    let lost = of_deaf.dropped.of(DropReason::QueueFull);
    let came = of_deaf.sent.packets + of_deaf.waiting.packets + lost;
    assert_eq!(
        came + 1,
        of_sender.received.packets,
        "each packet is sent, waits or is lost; one was for a stranger"
    );
    assert_eq!(of_deaf.waiting.bytes, of_deaf.waiting.packets * 1400);
}

#[test]
fn an_operator_that_closes_a_connection_tells_its_client_why() {
    let mut driver = Driver::new(MINUTE, MINUTE);
    let wire = driver.attach(MINUTE);
    assert_eq!(driver.0.turn.shared.close(&wire.peer.key, Close::Kicked), 1);
    driver.0.handle_messages();
    let mut heard = Vec::new();
    (&wire.client).read_to_end(&mut heard).expect("the connection is closed");
    let heard = String::from_utf8_lossy(&heard);
    assert!(heard.contains("the operator of the relay has closed this connection"), "{heard}");
    assert_eq!(driver.0.turn.tally.closed_for(Close::Kicked), 1);
    assert_eq!(driver.0.turn.shared.close(&wire.peer.key, Close::Kicked), 0);
}
