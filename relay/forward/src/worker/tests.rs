//! A worker on virtual time: real sockets, and a clock that goes where the test says.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};

use towpath_relay_proto::account::connections::Seat;
use towpath_relay_proto::outbox::Limits;
use towpath_relay_proto::rights::Rights;
use towpath_wire::derp::frame::{ClientFrame, ServerFrame};
use towpath_wire::derp::mesh::PresentFlags;
use towpath_wire::key::NodePublic;
use towpath_wire::time::Instant;

use super::*;
use crate::arrival::ClientArrival;
use crate::config::{DataPlaneConfig, PollPolicy};
use crate::counters::ColdCount;
use crate::inbox::WorkerInbox;
use crate::key::RouteKey;
use crate::registry::Registry;
use crate::transport::{TCP_USER_TIMEOUT, Transport, set_socket_options};

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
            write_timeout,
            keepalive,
            poll: PollPolicy { busy_poll: Duration::ZERO, gather: Duration::ZERO },
            own_key: NodePublic::from_bytes([0; 32]),
            watchable: false,
        };
        let shared = Box::leak(Box::new(PlaneShared { registry: Registry::new(false), config, inboxes }));
        let mut worker = Worker::new(0, poll, shared, Arc::default(), Clock::start());
        worker.turn.now = START;
        worker.wheel.advance(START, &mut Vec::new());
        Self(worker)
    }

    fn set(&mut self, now: Instant) {
        self.0.turn.now = now;
    }

    fn attach(&mut self, first_keepalive: Duration) -> Wire {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address");
        let client = TcpStream::connect(address).expect("a connection");
        let socket = listener.accept().expect("a connection").0;
        socket.set_nonblocking(true).expect("not to wait");
        set_socket_options(&socket).expect("options");
        let id = self.0.turn.registry().next_id();
        let bytes = 128 * 1024;
        let arrival = ClientArrival {
            id,
            key: key(id as u8 + 1),
            address,
            flags: PresentFlags::of(false, false, false),
            transport: Transport::plain(socket),
            frames: Vec::new(),
            server_info: ServerFrame::KeepAlive,
            rights: Rights::default(),
            limits: Arc::new(Limits {
                bytes,
                packets: 32,
                disco_bytes: 32 * 1024,
                age: MINUTE,
                hold_above: crate::hold_above(bytes),
            }),
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

fn key(number: u8) -> RouteKey {
    NodePublic::from_bytes([number; 32]).into()
}

fn frame(frame: &ClientFrame<'_>) -> Vec<u8> {
    let mut bytes = Vec::new();
    frame.encode(&mut bytes);
    bytes
}

#[test]
fn a_sender_is_held_back_for_twenty_milliseconds_and_then_the_destination_loses_packets() {
    let mut driver = Driver::new(MINUTE, MINUTE);
    let (deaf, sender) = (driver.attach(MINUTE), driver.attach(MINUTE));
    let flood = frame(&ClientFrame::SendPacket { to: *deaf.peer.key.node(), packet: &[0; 1400] }).repeat(20);
    // Send until the socket of the deaf client is full and packets wait. No reading is held back before that.
    while deaf.peer.egress.waiting() <= 64 * 1024 {
        (&sender.client).write_all(&flood).expect("the relay reads all of it");
        driver.read(&sender);
    }
    assert_eq!((driver.count(ColdCount::Holds), driver.dropped()), (0, 0));

    // Later frames, of whatever type, wait for 20 ms. The reason is checked each millisecond.
    (&sender.client).write_all(&frame(&ClientFrame::Ping([7; 8]))).expect("sent");
    driver.read(&sender);
    for passed in 1..20 {
        assert_eq!((driver.count(ColdCount::Holds), driver.count(ColdCount::Pings)), (passed, 0));
        driver.set(START + MILLISECOND * passed as u32 - Duration::from_nanos(1));
        driver.turn();
        assert_eq!(driver.count(ColdCount::Holds), passed, "not looked at before");
        driver.set(START + MILLISECOND * passed as u32);
        driver.turn();
    }
    driver.set(START + MILLISECOND * 20 - Duration::from_nanos(1));
    driver.turn();
    assert_eq!(driver.count(ColdCount::Pings), 0);
    driver.set(START + MILLISECOND * 20);
    driver.turn();
    assert_eq!((driver.count(ColdCount::Holds), driver.count(ColdCount::Pings)), (20, 1));
    // After that, frames are read as they come.
    for _ in 0..20 {
        (&sender.client).write_all(&flood).expect("the relay reads all of it");
        driver.read(&sender);
    }
    assert_eq!(driver.count(ColdCount::Holds), 20);
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
