//! A worker on virtual time: real sockets, and a clock that goes where the test says.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use mio::Poll;
use socket2::SockRef;
use towpath_relay_proto::outbox::Limits;
use towpath_relay_proto::rights::Rights;
use towpath_service::config::Sources;
use towpath_wire::derp::frame::ClientFrame;
use towpath_wire::derp::mesh::PresentFlags;
use towpath_wire::key::NodePublic;
use towpath_wire::time::Instant;

use super::*;
use crate::config::{Config, Waiting};
use crate::forward::connection::Arrival;
use crate::forward::counters::{Counters, Tally};
use crate::forward::inbox::Inbox;
use crate::forward::inlet::Inlet;
use crate::forward::peer::{Peer, Sink};
use crate::forward::registry::Registry;
use crate::forward::{Clock, Rules};
use crate::server::{TCP_USER_TIMEOUT, set_options};

const MILLISECOND: Duration = Duration::from_millis(1);
const MINUTE: Duration = Duration::from_secs(60);
const KEEPALIVE: [u8; 5] = [6, 0, 0, 0, 0];
/// Every test begins well after the clock of its worker.
const START: Instant = Instant::from_nanos(1_000_000_000_000);

/// A worker that no thread runs, and the number of the next connection.
struct Driver {
    worker: Worker,
    next: u64,
}

/// A connection of it, without TLS, and the client's end.
struct Wire {
    peer: Arc<Peer>,
    token: usize,
    client: TcpStream,
}

impl Driver {
    fn new(keepalive: Duration, write_timeout: Duration) -> Self {
        let poll = Poll::new().expect("an epoll");
        let inboxes = Arc::from([Arc::new(Inbox::new(&poll).expect("an inbox"))]);
        let rules = Rules {
            limits: Limits { bytes: 128 * 1024, packets: 32, disco_bytes: 32 * 1024, age: MINUTE },
            write_timeout,
            keepalive,
            waiting: Waiting { busy_poll: Duration::ZERO, gather: Duration::ZERO },
            own_key: key(0),
            watchable: false,
        };
        let (registry, counters) = (Arc::new(Registry::new(false)), Arc::new(Counters::default()));
        let worker = Worker::new(0, poll, inboxes, registry, Arc::new(rules), counters, Clock::start());
        let mut driver = Self { worker, next: 1 };
        driver.set(START);
        driver.worker.wheel.advance(START, &mut Vec::new());
        driver
    }

    fn set(&mut self, now: Instant) {
        self.worker.now = now;
        self.worker.scratch.now = now;
    }

    fn attach(&mut self, first_keepalive: Duration) -> Wire {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address");
        let client = TcpStream::connect(address).expect("a connection");
        let socket = listener.accept().expect("a connection").0;
        socket.set_nonblocking(true).expect("not to wait");
        set_options(&socket).expect("options");
        let (socket, id) = (Arc::new(socket), self.next);
        self.next += 1;
        let flags = PresentFlags::of(false, false, false);
        let peer = Arc::new(Peer::new(key(id as u8), id, address, flags, socket.clone(), Sink::Plain));
        self.worker.attach(Arrival {
            peer: peer.clone(),
            socket,
            inlet: Inlet::Plain,
            incoming: Vec::new(),
            frames: Vec::new(),
            rights: Rights::default(),
            not_ideal: false,
            first_keepalive,
        });
        self.worker.flush_dirty();
        let token = peer.place().1;
        Wire { peer, token, client }
    }

    /// Reads what the client of `from` has written, unless that is held back, and sends on what it asks for.
    fn read(&mut self, from: &Wire) {
        self.worker.note_event(from.token, true, false, false);
        self.turn();
    }

    /// What a turn does with connections that are held back.
    fn turn(&mut self) {
        self.worker.release_held();
        self.worker.read_ready();
        self.worker.flush_dirty();
    }
}

/// The kernel ends a connection on its own whose window stays shut, and must not do so before the relay would.
#[test]
fn the_kernel_has_as_much_patience_as_the_relay() {
    let user_timeout = |write_timeout| {
        let mut driver = Driver::new(MINUTE, write_timeout);
        let wire = driver.attach(MINUTE);
        let socket = driver.worker.connections[wire.token].socket();
        SockRef::from(socket).tcp_user_timeout().expect("an option")
    };
    assert_eq!(user_timeout(MILLISECOND * 2000), Some(TCP_USER_TIMEOUT));
    assert_eq!(user_timeout(MINUTE), Some(MINUTE));
}

fn key(number: u8) -> NodePublic {
    NodePublic::from_bytes([number; 32])
}

fn frame(frame: &ClientFrame<'_>) -> Vec<u8> {
    let mut bytes = Vec::new();
    frame.encode(&mut bytes);
    bytes
}

fn dropped(tally: &Tally) -> u64 {
    tally.rare().dropped.iter().flatten().map(|traffic| traffic.packets).sum()
}

#[test]
fn a_sender_is_held_back_for_twenty_milliseconds_and_then_the_destination_loses_packets() {
    let mut driver = Driver::new(MINUTE, MINUTE);
    let (deaf, sender) = (driver.attach(MINUTE), driver.attach(MINUTE));
    let flood = frame(&ClientFrame::SendPacket { to: deaf.peer.key, packet: &[0; 1400] }).repeat(20);
    // Until the deaf one's socket is full and the rest waits; no reading is held back before that.
    while deaf.peer.egress.waiting() <= 64 * 1024 {
        (&sender.client).write_all(&flood).expect("the relay reads all of it");
        driver.read(&sender);
    }
    assert_eq!((driver.worker.tally.rare().pauses, dropped(&driver.worker.tally)), (0, 0));

    // What comes behind waits for 20 ms, whatever it is, and is looked at each millisecond.
    (&sender.client).write_all(&frame(&ClientFrame::Ping([7; 8]))).expect("sent");
    driver.read(&sender);
    for passed in 1..20 {
        assert_eq!((driver.worker.tally.rare().pauses, driver.worker.tally.rare().pings), (passed, 0));
        driver.set(START + MILLISECOND * passed as u32 - Duration::from_nanos(1));
        driver.turn();
        assert_eq!(driver.worker.tally.rare().pauses, passed, "not looked at before");
        driver.set(START + MILLISECOND * passed as u32);
        driver.turn();
    }
    driver.set(START + MILLISECOND * 20 - Duration::from_nanos(1));
    driver.turn();
    assert_eq!(driver.worker.tally.rare().pings, 0);
    driver.set(START + MILLISECOND * 20);
    driver.turn();
    assert_eq!((driver.worker.tally.rare().pauses, driver.worker.tally.rare().pings), (20, 1));
    // From then on it is read as it comes.
    for _ in 0..20 {
        (&sender.client).write_all(&flood).expect("the relay reads all of it");
        driver.read(&sender);
    }
    assert_eq!(driver.worker.tally.rare().pauses, 20);
    assert!(dropped(&driver.worker.tally) > 0);
}

#[test]
fn keepalives_come_each_minute_unless_set_otherwise() {
    let (config, _) = Config::read(&Sources::new("UNSET"), true).expect("the defaults");
    let mut driver = Driver::new(config.keepalive, MINUTE);
    let first = MINUTE + Duration::from_secs(3);
    let mut wire = driver.attach(first);
    let (mut came, step) = (Vec::new(), Duration::from_millis(10));
    for passed in (0..500_000).step_by(10).map(Duration::from_millis) {
        driver.set(START + passed);
        let before = driver.worker.tally.rare().keepalives;
        driver.worker.handle_timers();
        if driver.worker.tally.rare().keepalives > before {
            came.push(passed);
        }
    }
    assert_eq!(came.len(), 8, "{came:?}");
    // A wheel's tick late, two at most.
    let late = Duration::from_millis(100) + step;
    assert!((first..first + late).contains(&came[0]), "{came:?}");
    for pair in came.windows(2) {
        assert!((MINUTE..MINUTE + late).contains(&(pair[1] - pair[0])), "{came:?}");
    }
    let mut frames = vec![0; 8 * KEEPALIVE.len()];
    wire.client.read_exact(&mut frames).expect("all of them");
    assert_eq!(frames, KEEPALIVE.repeat(8));
}
