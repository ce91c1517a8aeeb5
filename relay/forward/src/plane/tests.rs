//! The end of a worker that panics, as the rest of the relay sees it.

use std::io::Read;
use std::net::{TcpListener, TcpStream};
use std::sync::mpsc::{self, TryRecvError};
use std::time::Duration;

use towpath_relay_proto::account::connections::Seat;
use towpath_relay_proto::admission::PolicyName;
use towpath_relay_proto::outbox::Limits;
use towpath_relay_proto::rights::Rights;
use towpath_relay_proto::session::ClientSession;
use towpath_wire::derp::app_name::AppName;
use towpath_wire::derp::frame::ServerFrame;
use towpath_wire::derp::mesh::PresentFlags;
use towpath_wire::key::NodePublic;

use super::*;
use crate::config::PollPolicy;
use crate::transport::Transport;

const MINUTE: Duration = Duration::from_secs(60);
/// How long a fact may take to become true.
const PATIENCE: Duration = Duration::from_secs(20);

fn config() -> DataPlaneConfig {
    DataPlaneConfig {
        limits: PlaneLimits { write_timeout: MINUTE, max_connections_per_key: 8, max_link_keys: 1_000 },
        keepalive: MINUTE,
        poll: PollPolicy { busy_poll: Duration::ZERO, gather: Duration::ZERO },
        own_key: NodePublic::from_bytes([9; 32]),
        watchable: false,
        max_frame_memory: 64 << 20,
    }
}

fn sockets() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let far = TcpStream::connect(listener.local_addr().expect("an address")).expect("a connection");
    far.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    let near = listener.accept().expect("a connection").0;
    near.set_nonblocking(true).expect("not to wait");
    (near, far)
}

fn limits() -> Arc<Limits> {
    let bytes = 128 * 1024;
    let hold_above = crate::hold_above(bytes);
    Arc::new(Limits { bytes, packets: 32, disco_bytes: 32 * 1024, age: MINUTE, hold_above })
}

/// A client of `plane`, which is handed to the next worker.
fn client(plane: &DataPlane) -> TcpStream {
    let (near, far) = sockets();
    plane.attach(ClientArrival {
        id: plane.next_connection(),
        key: NodePublic::from_bytes([1; 32]).into(),
        address: near.peer_addr().expect("an address"),
        flags: PresentFlags::REGULAR,
        app_name: AppName::default(),
        version: 2,
        policy: PolicyName::Open,
        transport: Transport::plain(near),
        frames: Vec::new(),
        server_info: ServerFrame::KeepAlive,
        rights: Rights::default(),
        limits: limits(),
        not_ideal: false,
        first_keepalive: MINUTE,
        seat: Seat::unbounded(),
    });
    far
}

/// A link whose worker panics when the link is closed. It is handed to the next worker.
fn fatal_link(plane: &DataPlane) -> TcpStream {
    let (near, far) = sockets();
    plane.attach_link(LinkArrival {
        id: plane.next_connection(),
        relay: NodePublic::from_bytes([2; 32]),
        address: near.peer_addr().expect("an address"),
        transport: Transport::plain(near),
        session: ClientSession::default(),
        frames: Vec::new(),
        limits: limits(),
        on_event: Box::new(|event| panic!("a bug of the observer, as a test wants it: {event:?}")),
    });
    far
}

#[test]
fn a_worker_that_panics_is_reported_once_and_the_others_end_in_order() {
    let (told, ended) = mpsc::channel();
    let report = move || told.send(()).expect("the test listens");
    let (plane, workers) = DataPlane::start(2, config(), || {}, report).expect("two workers");
    let (mut client, link) = (client(&plane), fatal_link(&plane));
    client.read_exact(&mut [0; 5]).expect("what stands in for the ServerInfo");
    assert_eq!(ended.try_recv(), Err(TryRecvError::Empty), "both run");
    drop(link);
    ended.recv_timeout(PATIENCE).expect("the worker is reported");
    // The other worker goes on until it is told to stop, and then says goodbye to its clients.
    workers.stop();
    assert_eq!(client.read(&mut [0; 64]).expect("an end and no reset"), 0);
    assert!(ended.try_recv().is_err(), "an end in order is not reported");
}

#[test]
fn a_worker_that_panics_before_its_first_turn_is_reported() {
    let (told, ended) = mpsc::channel();
    let report = move || told.send(()).expect("the test listens");
    let started = || panic!("a bug at the start, as a test wants it");
    let (_plane, workers) = DataPlane::start(1, config(), started, report).expect("a worker");
    ended.recv_timeout(PATIENCE).expect("the worker is reported");
    workers.stop();
}
