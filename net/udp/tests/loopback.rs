//! Batches over real sockets on the loopback interface.

#![allow(clippy::unwrap_used, reason = "a failed step is a failed test")]

use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use towpath_udp::{BATCH_MAX, BatchSocket, DATAGRAM_MAX_LEN, DatagramBatch, LocalAddr, bind};

const DEADLINE: Duration = Duration::from_secs(10);

fn addr(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

fn batch_socket(address: &str) -> BatchSocket {
    BatchSocket::new(bind(addr(address)).unwrap()).unwrap()
}

/// A plain blocking socket whose reads end at the deadline.
fn client(address: &str) -> UdpSocket {
    let socket = UdpSocket::bind(address).unwrap();
    socket.set_read_timeout(Some(DEADLINE)).unwrap();
    socket
}

/// Receives until something has arrived.
fn recv(socket: &BatchSocket, batch: &mut DatagramBatch) {
    let start = Instant::now();
    while let Err(error) = socket.recv(batch) {
        assert_eq!(error.kind(), ErrorKind::WouldBlock);
        assert!(start.elapsed() < DEADLINE, "nothing arrived");
        std::thread::yield_now();
    }
}

fn local(ip: IpAddr) -> LocalAddr {
    LocalAddr { ip, interface: 0 }
}

#[test]
fn a_wildcard_socket_answers_from_the_asked_address() {
    for (wildcard, from, asked) in [
        ("0.0.0.0:0", "127.0.0.1:0", "127.0.0.2"),
        ("0.0.0.0:0", "127.0.0.1:0", "127.0.0.1"),
        ("[::]:0", "[::1]:0", "::1"),
    ] {
        let server = batch_socket(wildcard);
        let asked = SocketAddr::new(asked.parse().unwrap(), server.local_addr().port());
        let client = client(from);
        client.send_to(b"question", asked).unwrap();

        let mut incoming = DatagramBatch::with_capacity(BATCH_MAX);
        recv(&server, &mut incoming);
        let question = incoming.iter().next().unwrap();
        assert_eq!(incoming.len(), 1);
        assert_eq!(question.payload, b"question");
        assert!(!question.truncated);
        assert_eq!(question.peer, client.local_addr().unwrap());
        assert_eq!(question.local.ip, asked.ip());
        assert_ne!(question.local.interface, 0);

        let mut outgoing = DatagramBatch::with_capacity(BATCH_MAX);
        outgoing.push(question.peer, question.local, b"answer").unwrap();
        let outcome = server.send(&mut outgoing);
        assert_eq!((outcome.sent, outcome.failed, outcome.dropped), (1, 0, 0));
        assert!(outgoing.is_empty());

        let mut answer = [0; 64];
        let (len, source) = client.recv_from(&mut answer).unwrap();
        assert_eq!((&answer[..len], source), (b"answer".as_slice(), asked));
    }
}

#[test]
fn a_socket_on_one_address_answers_from_it() {
    let server = batch_socket("127.0.0.2:0");
    let client = client("127.0.0.1:0");
    client.send_to(b"question", server.local_addr()).unwrap();
    let mut batch = DatagramBatch::with_capacity(1);
    recv(&server, &mut batch);
    let question = batch.iter().next().unwrap();
    let (peer, local) = (question.peer, question.local);
    assert_eq!(local, LocalAddr::ANY, "there is nothing to tell");

    batch.clear();
    batch.push(peer, local, b"answer").unwrap();
    assert_eq!(server.send(&mut batch).sent, 1);
    let (_, source) = client.recv_from(&mut [0; 64]).unwrap();
    assert_eq!(source, server.local_addr());
}

/// Without PKTINFO the same socket answers by route: the trap that this crate exists for.
#[test]
fn the_kernel_chooses_the_source_if_told_to() {
    let server = batch_socket("0.0.0.0:0");
    let client = client("127.0.0.1:0");
    let mut outgoing = DatagramBatch::with_capacity(1);
    outgoing.push(client.local_addr().unwrap(), LocalAddr::ANY, b"").unwrap();
    assert_eq!(server.send(&mut outgoing).sent, 1);
    let (len, source) = client.recv_from(&mut [0; 1]).unwrap();
    assert_eq!(len, 0);
    assert_eq!(source.ip(), Ipv4Addr::LOCALHOST);
}

#[test]
fn batches_are_filled_and_keep_the_order() {
    let server = batch_socket("127.0.0.1:0");
    let client = client("127.0.0.1:0");
    let total = BATCH_MAX + 5;
    for number in 0..total {
        client.send_to(&[number as u8], server.local_addr()).unwrap();
    }
    let mut batch = DatagramBatch::with_capacity(BATCH_MAX);
    let mut received = Vec::new();
    let mut sizes = Vec::new();
    while received.len() < total {
        recv(&server, &mut batch);
        sizes.push(batch.len());
        received.extend(batch.iter().map(|datagram| usize::from(datagram.payload[0])));
    }
    assert_eq!(sizes, [BATCH_MAX, 5]);
    assert_eq!(received, (0..total).collect::<Vec<_>>());
    assert_eq!(server.recv(&mut batch).unwrap_err().kind(), ErrorKind::WouldBlock);
    assert!(batch.is_empty());
}

#[test]
fn long_datagrams_are_flagged_and_the_next_one_is_not() {
    let server = batch_socket("127.0.0.1:0");
    let client = client("127.0.0.1:0");
    client.send_to(&[1; DATAGRAM_MAX_LEN + 1], server.local_addr()).unwrap();
    client.send_to(&[2; DATAGRAM_MAX_LEN], server.local_addr()).unwrap();
    let mut batch = DatagramBatch::with_capacity(1);
    for (fill, truncated) in [(1, true), (2, false)] {
        recv(&server, &mut batch);
        let datagram = batch.iter().next().unwrap();
        assert_eq!(datagram.payload, [fill; DATAGRAM_MAX_LEN]);
        assert_eq!(datagram.truncated, truncated);
    }
}

#[test]
fn a_refused_datagram_costs_only_itself() {
    let server = batch_socket("127.0.0.1:0");
    let client = client("127.0.0.1:0");
    let peer = client.local_addr().unwrap();
    let mut batch = DatagramBatch::with_capacity(8);
    batch.push(peer, LocalAddr::ANY, b"1").unwrap();
    batch.push(addr("127.0.0.1:0"), LocalAddr::ANY, b"port 0").unwrap();
    batch.push(addr("[::1]:9"), LocalAddr::ANY, b"other family").unwrap();
    batch.push(peer, LocalAddr::ANY, b"2").unwrap();
    batch.push(peer, local([192, 0, 2, 1].into()), b"a source that is not ours").unwrap();
    batch.push(peer, LocalAddr::ANY, b"3").unwrap();
    let outcome = server.send(&mut batch);
    assert_eq!((outcome.sent, outcome.failed, outcome.dropped), (3, 3, 0));
    assert_eq!(outcome.error.unwrap().kind(), ErrorKind::InvalidInput);
    for expected in [b"1", b"2", b"3"] {
        let mut payload = [0; 64];
        let (len, _) = client.recv_from(&mut payload).unwrap();
        assert_eq!(&payload[..len], expected);
    }
}

/// A connected socket hears of closed ports; the error is reported once and does not wedge the socket.
#[test]
fn a_refused_connection_is_an_error_of_one_call() {
    let closed = UdpSocket::bind("127.0.0.3:0").unwrap().local_addr().unwrap();
    let socket = bind(addr("127.0.0.1:0")).unwrap();
    socket.connect(closed).unwrap();
    let server = BatchSocket::new(socket).unwrap();
    let mut batch = DatagramBatch::with_capacity(2);
    batch.push(closed, LocalAddr::ANY, b"anyone?").unwrap();
    assert_eq!(server.send(&mut batch).sent, 1);

    batch.push(closed, LocalAddr::ANY, b"anyone?").unwrap();
    batch.push(closed, LocalAddr::ANY, b"anyone?").unwrap();
    let outcome = server.send(&mut batch);
    assert_eq!((outcome.sent, outcome.failed), (1, 1));
    assert_eq!(outcome.error.unwrap().kind(), ErrorKind::ConnectionRefused);
    assert_eq!(server.recv(&mut batch).unwrap_err().kind(), ErrorKind::ConnectionRefused);
    assert_eq!(server.recv(&mut batch).unwrap_err().kind(), ErrorKind::WouldBlock);
}

#[test]
fn a_taken_port_is_an_error() {
    for address in ["127.0.0.1:0", "[::1]:0"] {
        let first = bind(addr(address)).unwrap();
        let error = bind(first.local_addr().unwrap()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::AddrInUse);
    }
}

#[test]
fn both_families_share_a_port() {
    let first = bind(addr("0.0.0.0:0")).unwrap();
    let port = first.local_addr().unwrap().port();
    bind(SocketAddr::new([0; 16].into(), port)).unwrap();
}
