//! A place of the slab that is used again: what is left of the old connection does not touch the new one.

use std::io::{ErrorKind, Read};
use std::net::{TcpListener, TcpStream};

use towpath_relay_proto::outbox::Limits;
use towpath_relay_proto::rights::Rights;
use towpath_wire::derp::frame::ServerFrame;
use towpath_wire::derp::mesh::PresentFlags;
use towpath_wire::key::NodePublic;
use towpath_wire::time::Instant;

use super::*;
use crate::arrival::ClientArrival;
use crate::config::{DataPlaneConfig, PollPolicy};
use crate::inbox::WorkerInbox;
use crate::ingress::Hold;
use crate::registry::Registry;
use crate::transport::Transport;

const MINUTE: Duration = Duration::from_secs(60);
const START: Instant = Instant::from_nanos(1_000_000_000_000);

/// A worker that no thread runs, at [`START`].
fn worker() -> Worker<'static> {
    let poll = Poll::new().expect("an epoll");
    let inboxes = Box::from([WorkerInbox::new(&poll).expect("an inbox")]);
    let config = DataPlaneConfig {
        write_timeout: MINUTE,
        keepalive: MINUTE,
        poll: PollPolicy { busy_poll: Duration::ZERO, gather: Duration::ZERO },
        own_key: NodePublic::from_bytes([0; 32]),
        watchable: false,
    };
    let shared = Box::leak(Box::new(PlaneShared { registry: Registry::new(false), config, inboxes }));
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
        transport: Transport::plain(socket),
        frames: Vec::new(),
        server_info: ServerFrame::KeepAlive,
        rights: Rights::default(),
        limits: Arc::new(Limits { bytes, packets: 32, disco_bytes: 32 * 1024, age: MINUTE, hold_above }),
        not_ideal: false,
        first_keepalive: MINUTE,
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

/// How many timers name `connection`.
fn timers(worker: &mut Worker<'_>, connection: ConnectionRef) -> usize {
    let mut due = Vec::new();
    worker.wheel.advance(START + 10 * MINUTE, &mut due);
    due.iter().filter(|each| **each == connection).count()
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
    let (mut worker, old, ..) = reused();
    worker.handle_request(old, OwnerRequest::WatchWriteTimeout);
    // Its keep-alive, which nothing removes from the wheel.
    assert_eq!(timers(&mut worker, old), 1);
    let (mut worker, _, new, _client) = reused();
    worker.handle_request(new, OwnerRequest::WatchWriteTimeout);
    assert_eq!(timers(&mut worker, new), 2, "its own number adds one");
}

/// The keep-alive of the old connection comes due when that of the new one does.
#[test]
fn a_timer_of_the_old_connection_is_not_one_of_the_new() {
    let (mut worker, old, new, client) = reused();
    worker.turn.now = START + MINUTE + Duration::from_secs(1);
    worker.handle_timers();
    assert!(worker.owns(new) && !is_closed(&client));
    worker.turn.now = START + MINUTE * 2 + Duration::from_secs(2);
    worker.handle_timers();
    assert_eq!(timers(&mut worker, old), 0, "it is gone once it was due");
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
