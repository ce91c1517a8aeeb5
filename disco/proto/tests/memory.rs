//! The memory that a node takes, counted by the allocator: for peers that are idle, for peers that fill whatever they can, and
//! for what all peers share. `docs/protocol/disco.md` and the documentation of `Node` state these figures.

#![allow(clippy::print_stdout, reason = "a test prints what it has measured")]

mod common;

use std::net::SocketAddr;
use std::time::Duration;

use towpath_disco::datagram::Received;
use towpath_disco::{Event, Node};
use towpath_wire::time::Instant;

use common::heap::Heap;
use common::{Puppet, at, node, numbered, pass, pongs, sent};

#[global_allocator]
static ALLOCATOR: Heap = Heap;

/// Bytes of a peer that is known and not used, and of one that is direct and idle.
const KNOWN: usize = 1536;
const IDLE: usize = 2816;
/// Bytes of a peer that fills whatever it can.
const MOST_OF_A_PEER: usize = 16 * 1024;
/// Bytes of what all peers share, and of the pongs that wait for a driver that takes none.
const MOST_SHARED: usize = 2 * 1024 * 1024;
const MOST_WAITING: usize = 4 * 1024 * 1024;

const PEERS: u32 = 1000;

/// Runs `call`, and returns what it returns and the bytes that are allocated since.
fn kept<T>(call: impl FnOnce() -> T) -> (T, usize) {
    let before = Heap::allocated();
    let result = call();
    (result, Heap::allocated() - before)
}

#[test]
fn a_thousand_idle_peers_take_so_many_bytes_each() {
    let mut node = node();
    let peers: Vec<_> = (0..PEERS).map(|number| Puppet::new(number, &node)).collect();
    let ((), bytes) = kept(|| peers.iter().for_each(|peer| node.set_peer(&peer.known(), at(0))));
    let each = bytes / peers.len();
    println!("{each} bytes for each of {PEERS} peers that are known and not used");
    assert!(each <= KNOWN);
    assert_eq!(
        node.poll_timeout(),
        Some(at(75_000)),
        "the relay is pinged if it sends no keep-alive until then"
    );

    let ((), bytes) = kept(|| {
        for peer in &peers {
            node.route(at(0), &peer.key, 100);
        }
        for (remote, pong) in pongs(&peers, &sent(&mut node)) {
            node.handle_packet(at(20), Received::Udp { remote }, &pong);
        }
        while node.poll_event().is_some() {}
        pass_answered(&mut node, &peers, at(100_000));
    });
    assert!(peers.iter().all(|peer| node.direct(&peer.key).is_some()));
    let each = each + bytes / peers.len();
    println!("{each} bytes for each of {PEERS} peers that are direct and idle");
    assert!(each <= IDLE);
}

/// Lets time pass with peers that answer.
fn pass_answered(node: &mut Node, peers: &[Puppet], end: Instant) {
    while let Some(due) = node.poll_timeout().filter(|due| *due <= end) {
        node.handle_timeout(due);
        for (remote, pong) in pongs(peers, &sent(node)) {
            node.handle_packet(due, Received::Udp { remote }, &pong);
        }
    }
}

/// A node with as many addresses as it offers.
fn node_of_many_addresses() -> Node {
    let mut node = node();
    node.handle_interfaces(at(0), &eight_from(0xff_0000, 41641));
    node
}

/// Addresses of eight hosts.
fn eight_from(first: u32, port: u16) -> Vec<SocketAddr> {
    (first..first + 8).map(|number| numbered(number, port)).collect()
}

/// Fills what a node keeps of a peer. The peer is direct at an address, which falls silent. Then it offers new addresses again and
/// again, and pings from others. `port` makes the addresses differ from those of other peers; the hosts are the same, so that the
/// budget of probes does not count as the peer's.
fn fill(node: &mut Node, peer: &mut Puppet, port: u16, begin: Instant) {
    let later = |millis| begin + Duration::from_millis(millis);
    let relayed = peer.relayed();
    node.handle_packet(begin, relayed, &peer.hello(vec![peer.address]));
    for (remote, pong) in pongs(std::slice::from_ref(peer), &pass(node, later(150))) {
        node.handle_packet(later(150), Received::Udp { remote }, &pong);
    }
    assert_eq!(node.direct(&peer.key), Some(peer.address));
    for round in 0..3 {
        let now = later(500 + 400 * u64::from(round));
        node.route(now, &peer.key, 1400);
        let offered = eight_from(0x10_0000 + 8 * round, port);
        node.handle_packet(now, relayed, &peer.hello(offered));
        pass(node, now + Duration::from_millis(390));
    }
    for number in 0..100 {
        let remote = numbered(0x10_0000 + number, port + 1);
        node.handle_packet(later(2000), Received::Udp { remote }, &peer.ping(1));
    }
    pass(node, later(2004));
}

#[test]
fn a_peer_that_fills_whatever_it_can_takes_no_more_than_is_documented() {
    let mut node = node_of_many_addresses();
    let mut peers: Vec<_> = (0..30).map(|number| Puppet::new(number, &node)).collect();
    let ((), bytes) = kept(|| {
        for (number, peer) in (0..).zip(&mut peers) {
            node.set_peer(&peer.stranger(), at(0));
            // When what was sent to the hosts for the last one is no longer counted.
            fill(&mut node, peer, 1000 + 2 * number, at(100_000 * u64::from(number)));
        }
    });
    let each = bytes / peers.len();
    println!("{each} bytes for each of {} peers that fill whatever they can", peers.len());
    assert!(each <= MOST_OF_A_PEER);
    assert!(each >= MOST_OF_A_PEER / 2, "they do not");
}

#[test]
fn what_all_peers_share_is_bounded() {
    let mut node = node_of_many_addresses();
    let mut peers: Vec<_> = (0..2).map(|number| Puppet::new(number, &node)).collect();
    let ((), bytes) = kept(|| {
        peers.iter().for_each(|peer| node.set_peer(&peer.stranger(), at(0)));
        // Probes are counted to 1,024 hosts, 16 to each, of which either peer causes eight.
        for group in 0..150 {
            let now = at(200 * u64::from(group));
            for peer in &mut peers {
                node.handle_packet(now, peer.relayed(), &peer.hello(eight_from(0x10_0000 + 8 * group, 7)));
            }
            pass(&mut node, now + Duration::from_millis(199));
        }
        let mut packet = vec![4; 100];
        for number in 0..40_000_u32 {
            packet[8..12].copy_from_slice(&number.to_le_bytes());
            assert_eq!(node.handle_packet(at(31_000), peers[0].relayed(), &packet), Some(peers[0].key));
        }
    });
    println!("{bytes} bytes for what is remembered of packets and probes");
    assert!(bytes <= MOST_SHARED);
}

#[test]
fn what_waits_for_a_driver_that_takes_nothing_is_bounded() {
    let mut node = node();
    let peer = Puppet::new(1, &node);
    node.set_peer(&peer.known(), at(0));
    let received = Received::Udp { remote: peer.address };
    let ping = peer.ping(1);
    let fill = |node: &mut Node| {
        let ((), bytes) = kept(|| (0..40_000).for_each(|_| _ = node.handle_packet(at(1), received, &ping)));
        bytes
    };
    let bytes = fill(&mut node);
    println!("{bytes} bytes for packets that the driver does not take");
    assert!(bytes <= MOST_WAITING);
    assert_eq!(fill(&mut node), 0);
    assert_eq!(sent(&mut node).len(), 16_384);
    // What is taken makes room.
    node.handle_packet(at(2), received, &ping);
    assert_eq!(sent(&mut node).len(), 1);
}

#[test]
fn events_that_are_not_taken_are_bounded_and_the_oldest_make_room() {
    let mut node = node();
    let peer = Puppet::new(1, &node);
    node.set_peer(&peer.known(), at(0));
    for round in 0..1500 {
        let now = at(1000 * u64::from(round));
        node.route(now, &peer.key, 100);
        for (remote, pong) in pongs(std::slice::from_ref(&peer), &sent(&mut node)) {
            node.handle_packet(now, Received::Udp { remote }, &pong);
        }
        assert!(node.direct(&peer.key).is_some());
        node.handle_interfaces(now, &[numbered(round, 41641)]);
        sent(&mut node);
    }
    let events: Vec<_> = std::iter::from_fn(|| node.poll_event()).collect();
    assert_eq!(events.len(), 1024);
    assert_eq!(events.last(), Some(&Event::Relayed { peer: peer.key }));
}
