//! A place of the slab that is used again: what is left of the old connection does not touch the new one.

use std::io::{ErrorKind, Read};
use std::net::{TcpListener, TcpStream};

use towpath_relay_proto::account::connections::Seat;
use towpath_relay_proto::admission::PolicyName;
use towpath_relay_proto::outbox::Limits;
use towpath_relay_proto::rights::Rights;
use towpath_wire::derp::app_name::AppName;
use towpath_wire::derp::frame::ServerFrame;
use towpath_wire::derp::mesh::PresentFlags;
use towpath_wire::key::NodePublic;
use towpath_wire::time::Instant;

use super::*;
use crate::arrival::ClientArrival;
use crate::config::{DataPlaneConfig, PlaneLimits, PollPolicy};
use crate::inbox::WorkerInbox;
use crate::ingress::Hold;
use crate::transport::Transport;

const MINUTE: Duration = Duration::from_secs(60);
const START: Instant = Instant::from_nanos(1_000_000_000_000);

/// A worker that no thread runs, at [`START`].
fn worker() -> Worker<'static> {
    let poll = Poll::new().expect("an epoll");
    let inboxes = Box::from([WorkerInbox::new(&poll).expect("an inbox")]);
    let config = DataPlaneConfig {
        limits: PlaneLimits { write_timeout: MINUTE, max_connections_per_key: 8, max_link_keys: 1_000 },
        keepalive: MINUTE,
        poll: PollPolicy { busy_poll: Duration::ZERO, gather: Duration::ZERO },
        own_key: NodePublic::from_bytes([0; 32]),
        watchable: false,
        max_frame_memory: 64 << 20,
    };
    let shared = Box::leak(Box::new(PlaneShared::new(config, inboxes)));
    let mut worker = Worker::new(0, poll, shared, Arc::default(), Clock::start());
    worker.turn.now = START;
    worker.wheel.advance(START, &mut Vec::new());
    worker
}

/// Gives `worker` a connection. Returns the connection's place there and the client's end.
fn attach(worker: &mut Worker<'_>) -> (ConnectionRef, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address");
    let client = TcpStream::connect(address).expect("a connection");
    client.set_nonblocking(true).expect("not to wait");
    let socket = listener.accept().expect("a connection").0;
    socket.set_nonblocking(true).expect("not to wait");
    let bytes = 128 * 1024;
    let hold_above = crate::hold_above(bytes);
    let new = NewClient::new(ClientArrival {
        id: worker.turn.registry().next_id(),
        key: NodePublic::from_bytes([1; 32]).into(),
        address,
        flags: PresentFlags::REGULAR,
        app_name: AppName::default(),
        version: 2,
        policy: PolicyName::Open,
        transport: Transport::plain(socket),
        frames: Vec::new(),
        server_info: ServerFrame::KeepAlive,
        rights: Rights::default(),
        limits: Arc::new(Limits { bytes, packets: 32, disco_bytes: 32 * 1024, age: MINUTE, hold_above }),
        not_ideal: false,
        first_keepalive: MINUTE + MINUTE / 2,
        seat: Seat::unbounded(),
    });
    let peer = new.peer.clone();
    worker.attach(new);
    worker.flush_dirty();
    (peer.place().1, client)
}

/// A worker whose one connection has the place of an earlier one: the old connection, the new one, and its client's end.
fn reused() -> (Worker<'static>, ConnectionRef, ConnectionRef, TcpStream) {
    let mut worker = worker();
    let (old, _) = attach(&mut worker);
    worker.close(old.token, Close::PeerClosed);
    let (new, client) = attach(&mut worker);
    assert!(old.token == new.token && old.id != new.id, "the place is used again: {old:?}, {new:?}");
    (worker, old, new, client)
}

/// Whether the relay has closed the connection of `client`, which has read nothing yet but its ServerInfo.
fn is_closed(mut client: &TcpStream) -> bool {
    let mut read = [0; 64];
    loop {
        match client.read(&mut read) {
            Ok(0) => return true,
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => return false,
            Err(error) => panic!("{error}"),
        }
    }
}

/// Whether the first timer of `worker` is due within the write timeout, hence before any keep-alive.
fn watches_a_write_timeout(worker: &Worker<'_>) -> bool {
    worker.wheel.idle(START).is_some_and(|idle| idle <= MINUTE + Duration::from_millis(100))
}

#[test]
fn a_request_to_close_the_old_connection_leaves_the_new_one() {
    let (mut worker, old, new, client) = reused();
    assert!(worker.owns(new) && !worker.owns(old));
    worker.handle_request(old, OwnerRequest::Close(Close::ClosePeer));
    assert!(worker.owns(new) && !is_closed(&client));
    worker.handle_request(new, OwnerRequest::Close(Close::ClosePeer));
    assert!(!worker.owns(new) && is_closed(&client), "its own number closes it");
}

#[test]
fn a_request_to_watch_the_old_connection_adds_no_timer() {
    let (mut worker, old, new, _client) = reused();
    worker.handle_request(old, OwnerRequest::WatchWriteTimeout);
    assert!(!watches_a_write_timeout(&worker));
    worker.handle_request(new, OwnerRequest::WatchWriteTimeout);
    assert!(watches_a_write_timeout(&worker), "its own number adds one");
}

#[test]
fn a_connection_takes_its_timer_with_it() {
    let (mut worker, _, new, _client) = reused();
    assert_eq!(worker.wheel.len(), 1, "the timer of the new connection");
    worker.close(new.token, Close::PeerClosed);
    assert_eq!(worker.wheel.len(), 0);
}

#[test]
fn a_hold_of_the_old_connection_does_not_have_the_new_one_read() {
    let (mut worker, old, new, _client) = reused();
    worker.holds.push(START, old, Hold::Congestion);
    worker.release_held();
    assert!(worker.ready.is_empty());
    worker.holds.push(START, new, Hold::Congestion);
    worker.release_held();
    assert_eq!(worker.ready, [new.token], "its own number does");
}
