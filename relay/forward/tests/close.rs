//! `DataPlane::close` closes every connection of a key, whichever worker owns it, and no other connection.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use towpath_relay_forward::{
    ClientArrival, DataPlane, DataPlaneConfig, PlaneLimits, PollPolicy, RouteKey, Transport, hold_above,
};
use towpath_relay_proto::account::connections::Seat;
use towpath_relay_proto::admission::PolicyName;
use towpath_relay_proto::outbox::Limits;
use towpath_relay_proto::rights::Rights;
use towpath_relay_proto::session::Close;
use towpath_wire::derp::app_name::AppName;
use towpath_wire::derp::frame::{ClientFrame, ServerFrame};
use towpath_wire::derp::mesh::PresentFlags;
use towpath_wire::key::NodePublic;

const MINUTE: Duration = Duration::from_secs(60);
/// How long a fact may take to become true.
const PATIENCE: Duration = Duration::from_secs(20);

fn key(byte: u8) -> RouteKey {
    NodePublic::from_bytes([byte; 32]).into()
}

fn config() -> DataPlaneConfig {
    DataPlaneConfig {
        limits: PlaneLimits { write_timeout: MINUTE, max_connections_per_key: 8, max_link_keys: 4 },
        keepalive: MINUTE,
        poll: PollPolicy { busy_poll: Duration::ZERO, gather: Duration::ZERO },
        own_key: NodePublic::from_bytes([9; 32]),
        watchable: false,
        max_frame_memory: 64 << 20,
    }
}

/// A client of `plane` that has read what stands in for its ServerInfo, so that its owner has registered it.
fn client(plane: &DataPlane, key: RouteKey) -> TcpStream {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address");
    let mut client = TcpStream::connect(address).expect("a connection");
    client.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    let socket = listener.accept().expect("a connection").0;
    socket.set_nonblocking(true).expect("not to wait");
    let (bytes, disco_bytes) = (128 * 1024, 32 * 1024);
    plane.attach(ClientArrival {
        id: plane.next_connection(),
        key,
        address,
        flags: PresentFlags::REGULAR,
        app_name: AppName::default(),
        version: 2,
        policy: PolicyName::Open,
        transport: Transport::plain(socket),
        frames: Vec::new(),
        server_info: ServerFrame::Health("registered"),
        rights: Rights::default(),
        limits: Arc::new(Limits {
            bytes,
            packets: 32,
            disco_bytes,
            age: MINUTE,
            hold_above: hold_above(bytes),
        }),
        not_ideal: false,
        first_keepalive: MINUTE,
        seat: Seat::unbounded(),
    });
    expect(&mut client, &ServerFrame::Health("registered"));
    client
}

fn expect(client: &mut TcpStream, frame: &ServerFrame<'_>) {
    let mut expected = Vec::new();
    frame.encode(&mut expected);
    let mut read = vec![0; expected.len()];
    client.read_exact(&mut read).expect("a frame");
    assert_eq!(read, expected);
}

#[test]
fn every_connection_of_a_key_is_closed_on_every_worker_and_no_other() {
    let (plane, workers) = DataPlane::start(2, config(), || {}, || {}).expect("two workers");
    let (closed, other) = (key(1), key(2));
    // Workers take turns, so each owns one connection of the key.
    let mut clients = [client(&plane, closed), client(&plane, closed)];
    let mut stays = client(&plane, other);
    assert_eq!(plane.close(&key(3), Close::ClosePeer), 0, "a key that is not here");

    assert_eq!(plane.close(&closed, Close::ClosePeer), 2);
    for client in &mut clients {
        assert_eq!(client.read(&mut [0; 64]).expect("an end and no reset"), 0);
    }
    let mut ping = Vec::new();
    ClientFrame::Ping([7; 8]).encode(&mut ping);
    stays.write_all(&ping).expect("the other client is connected");
    expect(&mut stays, &ServerFrame::Pong([7; 8]));

    // A worker publishes its numbers at the end of a turn.
    let deadline = Instant::now() + PATIENCE;
    while plane.stats().closed(Close::ClosePeer) < 2 {
        assert!(Instant::now() < deadline, "both are counted");
        std::thread::yield_now();
    }
    assert_eq!((plane.stats().connections(), plane.close(&closed, Close::ClosePeer)), (1, 0));
    workers.stop();
}
