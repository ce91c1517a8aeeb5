//! A server on the loopback interface, whatever comes: both families, garbage, floods, broken sockets.

use std::io::ErrorKind;
use std::net::{SocketAddr, UdpSocket};
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;
use std::thread;
use std::time::{Duration, Instant};

use towpath_stun::{BindError, NotStun};

use crate::common::*;

#[test]
fn both_families_are_answered() {
    let (server, addresses) = serve(&["127.0.0.1:0", "[::1]:0"]);
    for (number, address) in (0..).zip(&addresses) {
        assert_answers(&client(*address), number);
    }
    assert_counts(&server.counters(), answered(1, 1));
    server.stop().unwrap();
}

/// A connected client hears the asked address only.
#[test]
fn a_wildcard_socket_answers_from_the_asked_address() {
    let (_server, addresses) = serve(&["0.0.0.0:0"]);
    for (number, ip) in (0..).zip([[127, 0, 0, 1], [127, 0, 0, 2]]) {
        assert_answers(&client(SocketAddr::from((ip, addresses[0].port()))), number);
    }
}

/// As `[::]` of a TCP listener, and as the one socket of derper.
#[test]
fn the_wildcard_of_ipv6_takes_both_families() {
    let (server, addresses) = serve(&["[::]:0"]);
    let port = addresses[0].port();
    assert_eq!(addresses[1..], [SocketAddr::from(([0, 0, 0, 0], port))]);
    for (number, ip) in (0..).zip(["127.0.0.1", "127.0.0.2", "::1"]) {
        assert_answers(&client(SocketAddr::new(ip.parse().unwrap(), port)), number);
    }
    assert_counts(&server.counters(), answered(2, 1));
}

/// As the former default, which others have copied: both are named.
#[test]
fn a_wildcard_of_ipv4_that_is_named_keeps_that_of_ipv6_to_ipv6() {
    let port = UdpSocket::bind("[::]:0").unwrap().local_addr().unwrap().port();
    for list in [["0.0.0.0", "::"], ["::", "0.0.0.0"]] {
        let list = list.map(|ip| SocketAddr::new(ip.parse().unwrap(), port));
        assert_eq!(bind(&list).unwrap().local_addrs(), list);
    }
    // One of another port is another server's.
    let other = [SocketAddr::from(([0; 16], port)), SocketAddr::from(([0, 0, 0, 0], 0))];
    assert_eq!(bind(&other).unwrap().local_addrs().len(), 3);
}

/// Requests that were sent before the thread started wait in the socket.
#[test]
fn early_requests_are_answered() {
    let server = bind(&["127.0.0.1:0".parse().unwrap()]).unwrap();
    let client = client(server.local_addrs()[0]);
    client.send(&request(7)).unwrap();
    let _running = server.spawn().unwrap();
    assert_eq!(response(&client).transaction, transaction(7));
}

/// As when a region's clients all lose their relay. Without privileges there is room for no more.
#[test]
fn five_hundred_requests_at_once_are_answered() {
    let server = bind(&["127.0.0.1:0".parse().unwrap()]).unwrap();
    let clients: [_; 10] = std::array::from_fn(|_| client(server.local_addrs()[0]));
    for client in &clients {
        (0..50).for_each(|number| assert!(client.send(&request(number)).is_ok()));
    }
    let _running = server.spawn().unwrap();
    for client in &clients {
        (0..50).for_each(|number| assert_eq!(response(client).transaction, transaction(number)));
    }
}

#[test]
fn garbage_is_counted_and_not_answered() {
    let (server, addresses) = serve(&["127.0.0.1:0"]);
    let client = client(addresses[0]);
    let good = request(1);
    let mut other_method = good;
    other_method[1] = 0x03;
    let mut wrong_fingerprint = good;
    wrong_fingerprint[39] ^= 1;
    let misplaced = [&[0, 1, 0, 24][..], &good[4..], &[0xc0, 1, 0, 0]].concat();
    let garbage: [(&[u8], NotStun); 7] = [
        (b"", NotStun::TooShort),
        (b"GET / HTTP/1.1\r\nHost: relay\r\n\r\n", NotStun::BadHeader),
        (&[0; 9000], NotStun::TooLong),
        (&other_method, NotStun::NotBindingRequest),
        (&good[..38], NotStun::MalformedAttributes),
        (&misplaced, NotStun::MisplacedFingerprint),
        (&wrong_fingerprint, NotStun::WrongFingerprint),
    ];
    let mut expected = answered(1, 0);
    for (datagram, reason) in garbage {
        client.send(datagram).unwrap();
        expected.not_stun[reason.index()] = 1;
    }
    assert_answers(&client, 2);
    assert_counts(&server.counters(), expected);
    assert_eq!(expected.not_stun_total(), 7);
    server.stop().unwrap();
    client.set_nonblocking(true).unwrap();
    assert!(client.recv(&mut [0; 64]).is_err(), "a second answer");
}

#[test]
fn a_taken_port_is_named() {
    let taken = UdpSocket::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let free = "127.0.0.1:0".parse().unwrap();
    let error = bind(&[free, address]).unwrap_err();
    assert_eq!(error.to_string(), format!("cannot bind STUN on {address}/udp"));
    let BindError::Socket { source, .. } = error else { panic!("{error:?}") };
    assert_eq!(source.kind(), ErrorKind::AddrInUse);
}

/// On addresses that no other test takes ports of.
#[test]
fn stopping_closes_the_sockets() {
    let (server, addresses) = serve(&["127.0.0.3:0", "127.0.0.4:0"]);
    assert!(server.is_alive());
    server.stop().unwrap();
    let second = bind(&addresses).unwrap();
    assert_eq!(second.local_addrs(), addresses);
    drop(second.spawn().unwrap());
    bind(&addresses).unwrap();
}

/// A socket that never runs empty neither starves another nor the order to stop.
#[test]
fn a_flood_on_one_socket_starves_no_other() {
    let (server, addresses) = serve(&["127.0.0.1:0", "127.0.0.1:0"]);
    let flooding = AtomicBool::new(true);
    thread::scope(|scope| {
        for _ in 0..2 {
            let flooder = client(addresses[0]);
            let flooding = &flooding;
            scope.spawn(move || {
                while flooding.load(Relaxed) {
                    let _ = flooder.send(b"garbage");
                }
            });
        }
        let start = Instant::now();
        while server.counters().snapshot().not_stun_total() < 1000 && start.elapsed() < DEADLINE {
            thread::yield_now();
        }
        let client = client(addresses[1]);
        for number in 0..100 {
            assert_answers(&client, number);
        }
        let start = Instant::now();
        server.stop().unwrap();
        flooding.store(false, Relaxed);
        assert!(start.elapsed() < Duration::from_secs(2), "stopped after {:?}", start.elapsed());
    });
}

/// Ten thousand requests from several sockets, each with a window that no socket buffer overflows.
#[test]
fn every_request_of_a_closed_loop_is_answered() {
    const CLIENTS: u32 = 5;
    const REQUESTS_PER_CLIENT: u32 = 2000;
    const WINDOW: u32 = 16;

    let (server, addresses) = serve(&["127.0.0.1:0", "[::1]:0"]);
    thread::scope(|scope| {
        for index in 0..CLIENTS {
            let client = client(addresses[index as usize % addresses.len()]);
            scope.spawn(move || {
                for number in 0..WINDOW {
                    client.send(&request(number)).unwrap();
                }
                for number in 0..REQUESTS_PER_CLIENT {
                    assert_eq!(response(&client).transaction, transaction(number));
                    if number + WINDOW < REQUESTS_PER_CLIENT {
                        client.send(&request(number + WINDOW)).unwrap();
                    }
                }
            });
        }
    });
    let (ipv4, ipv6) = (3 * u64::from(REQUESTS_PER_CLIENT), 2 * u64::from(REQUESTS_PER_CLIENT));
    assert_counts(&server.counters(), answered(ipv4, ipv6));
    server.stop().unwrap();
}
