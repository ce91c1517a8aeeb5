//! A server on the loopback interface and clients with sockets of their own.

#![allow(dead_code, reason = "each test program uses a part of it")]

use std::net::{SocketAddr, UdpSocket};
use std::thread;
use std::time::{Duration, Instant};

use towpath_stun::{
    AnswerKind, BindError, BoundServer, Policy, RunningServer, Snapshot, StunCounters, StunSettings,
};
use towpath_stun_proto::{REQUEST_LEN, Response, TransactionId, write_request};

pub(crate) const DEADLINE: Duration = Duration::from_secs(10);

/// A server on fresh ports of the given addresses.
pub(crate) fn serve(addresses: &[&str]) -> (RunningServer, Vec<SocketAddr>) {
    serve_with(addresses, &[], unlimited())
}

pub(crate) fn serve_with(
    listen: &[&str],
    alternates: &[&str],
    policy: Policy,
) -> (RunningServer, Vec<SocketAddr>) {
    let parsed = |addresses: &[&str]| addresses.iter().map(|address| address.parse().unwrap()).collect();
    let settings = StunSettings { listen: parsed(listen), alternates: parsed(alternates), policy };
    // The kernel chooses each port by itself, so a second address may get the port of the first, or one that is taken
    // on the first.
    let server = (0..100).find_map(|_| BoundServer::bind(&settings).ok()).expect("ports that go together");
    let bound = server.local_addrs();
    (server.spawn().unwrap(), bound)
}

pub(crate) fn bind(addresses: &[SocketAddr]) -> Result<BoundServer, BindError> {
    BoundServer::bind(&StunSettings { listen: addresses.to_vec(), alternates: vec![], policy: unlimited() })
}

/// Answers to all, as often as they ask: these clients all have one address.
pub(crate) fn unlimited() -> Policy {
    Policy { rate: None, ..Policy::default() }
}

/// Snapshot of a server that answered so many requests over IPv4 and IPv6, all of Tailscale's dialect.
pub(crate) fn answered(ipv4: u64, ipv6: u64) -> Snapshot {
    let mut snapshot = Snapshot { success: ipv4 + ipv6, ipv4, ipv6, ..Snapshot::default() };
    snapshot.answers[AnswerKind::Tailscale.index()] = ipv4 + ipv6;
    snapshot
}

/// Returns a socket that talks only to `server`, until the deadline.
pub(crate) fn client(server: SocketAddr) -> UdpSocket {
    let loopback = if server.is_ipv4() { "127.0.0.1:0" } else { "[::1]:0" };
    let socket = UdpSocket::bind(loopback).unwrap();
    socket.connect(server).unwrap();
    socket.set_read_timeout(Some(DEADLINE)).unwrap();
    socket
}

pub(crate) fn request(number: u32) -> [u8; REQUEST_LEN] {
    let mut out = [0; REQUEST_LEN];
    write_request(&mut out, transaction(number));
    out
}

pub(crate) fn transaction(number: u32) -> TransactionId {
    let mut id = [0xab; 12];
    id[..4].copy_from_slice(&number.to_be_bytes());
    TransactionId(id)
}

/// The next response that arrives at `client`.
pub(crate) fn response(client: &UdpSocket) -> Response {
    let mut buffer = [0; 128];
    let len = client.recv(&mut buffer).expect("a response before the deadline");
    Response::parse(&buffer[..len]).unwrap()
}

pub(crate) fn assert_answers(client: &UdpSocket, number: u32) {
    client.send(&request(number)).unwrap();
    let expected =
        Response { transaction: transaction(number), mapped: client.local_addr().unwrap(), other: None };
    assert_eq!(response(client), expected);
}

/// Waits for the counters to reach `expected`: a response may arrive before it is counted.
pub(crate) fn assert_counts(counters: &StunCounters, expected: Snapshot) {
    let start = Instant::now();
    while counters.snapshot() != expected && start.elapsed() < DEADLINE {
        thread::yield_now();
    }
    assert_eq!(counters.snapshot(), expected);
}
