//! A node, and peers that the test plays.

#![allow(dead_code, reason = "each test file uses a part of it")]

pub(crate) mod heap;

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use towpath_disco::datagram::{Received, Region, RelayEvent, Transmit};
use towpath_disco::hello::Hello;
use towpath_disco::{MappingClass, Node, NodeConfig, PeerConfig, RelayConfig};
use towpath_wire::disco::key::{DiscoPrivate, DiscoPublic};
use towpath_wire::disco::message::{Message, Ping, TxId};
use towpath_wire::disco::packet::{DiscoPacket, seal};
use towpath_wire::key::{NodePrivate, NodePublic};
use towpath_wire::sealed::{Nonce, SharedKey};
use towpath_wire::time::Instant;

pub(crate) const REGION: Region = Region(1);
/// A nonce. It is used again and again, which tests may do.
const NONCE: Nonce = [1; 24];

pub(crate) fn at(millis: u64) -> Instant {
    Instant::from(Duration::from_millis(millis))
}

/// The private half of the node key of the node.
fn node_key() -> NodePrivate {
    NodePrivate::from_random([1; 32])
}

/// A node with a public address and a relay.
pub(crate) fn node() -> Node {
    let mut node = Node::new(NodeConfig {
        key: node_key(),
        seed: [1; 32],
        relays: vec![RelayConfig { region: REGION, stun: vec![] }],
        home: None,
        regions: vec![],
        addresses: vec![],
        one_probe: false,
    });
    node.handle_interfaces(at(0), &["192.0.2.1:41641".parse().expect("an address")]);
    node.handle_relay(at(0), RelayEvent::Up(REGION));
    node
}

/// The address with this number, of which there are 2^24.
pub(crate) fn numbered(number: u32, port: u16) -> SocketAddr {
    (Ipv4Addr::from_bits(0x0b00_0000 | number), port).into()
}

/// What the node sends at a time: each packet with its way.
pub(crate) fn sent(node: &mut Node) -> Vec<(Transmit, Vec<u8>)> {
    let mut all = Vec::new();
    let mut packet = Vec::new();
    while let Some(transmit) = node.poll_transmit(&mut packet) {
        all.push((transmit, packet.clone()));
    }
    all
}

/// Lets time pass at the node until `end`, while no packet comes. Returns what it sends.
pub(crate) fn pass(node: &mut Node, end: Instant) -> Vec<(Transmit, Vec<u8>)> {
    let mut all = sent(node);
    while let Some(due) = node.poll_timeout().filter(|due| *due <= end) {
        node.handle_timeout(due);
        all.append(&mut sent(node));
    }
    all
}

/// A peer of the node.
pub(crate) struct Puppet {
    pub(crate) key: NodePublic,
    pub(crate) address: SocketAddr,
    private: NodePrivate,
    disco: DiscoPublic,
    shared: SharedKey,
    hellos: u32,
}

impl Puppet {
    /// The peer with this number, at an IP address of its own.
    pub(crate) fn new(number: u32, node: &Node) -> Self {
        let mut random = [2; 32];
        random[..4].copy_from_slice(&number.to_be_bytes());
        let (private, disco) = (NodePrivate::from_random(random), DiscoPrivate::from_random(random));
        Self {
            key: private.public(),
            address: numbered(number, 41641),
            private,
            shared: SharedKey::of_disco(&disco, &node.disco_key()),
            disco: disco.public(),
            hellos: 0,
        }
    }

    /// A peer of which nothing but its node key is known.
    pub(crate) fn stranger(&self) -> PeerConfig {
        PeerConfig { key: self.key, region: None, disco: None, addresses: vec![], is_relay_only: false }
    }

    /// A peer of which a control plane knows everything.
    pub(crate) fn known(&self) -> PeerConfig {
        PeerConfig {
            disco: Some(self.disco),
            region: Some(REGION),
            addresses: vec![self.address],
            ..self.stranger()
        }
    }

    pub(crate) fn relayed(&self) -> Received {
        Received::Relay { region: REGION, peer: self.key }
    }

    /// A packet with this message.
    pub(crate) fn sealed(&self, message: &Message) -> Vec<u8> {
        let mut packet = Vec::new();
        seal(&self.disco, &self.shared, &NONCE, message, &mut packet);
        packet
    }

    /// The answer to a ping of the node; `None` if the packet is no ping to this peer.
    pub(crate) fn pong(&self, packet: &[u8]) -> Option<Vec<u8>> {
        let Message::Ping(Ping { tx, .. }) = DiscoPacket::split(packet)?.open(&self.shared).ok()? else {
            return None;
        };
        Some(self.sealed(&Message::Pong { tx, source: self.address }))
    }

    pub(crate) fn ping(&self, number: u8) -> Vec<u8> {
        let ping = Ping { tx: TxId([number; 12]), node_key: Some(self.key), padding: 0 };
        self.sealed(&Message::Ping(ping))
    }

    /// The next hello of the peer, with these addresses.
    pub(crate) fn hello(&mut self, addresses: Vec<SocketAddr>) -> Vec<u8> {
        self.hellos += 1;
        let hello = Hello {
            epoch: 1,
            counter: self.hellos,
            challenge: [2; 12],
            echo: None,
            region: Some(REGION),
            standby: None,
            relay_rtt: None,
            mapping: MappingClass::Independent,
            wants_echo: true,
            addresses,
        };
        let mut packet = Vec::new();
        let shared = SharedKey::new(&self.private, &node_key().public());
        hello.seal(&self.disco, &shared, &NONCE, &mut packet);
        packet
    }
}

/// The answers of the peers to the pings among `packets`, each with the address that it comes from.
pub(crate) fn pongs(peers: &[Puppet], packets: &[(Transmit, Vec<u8>)]) -> Vec<(SocketAddr, Vec<u8>)> {
    let answered = packets.iter().filter_map(|(transmit, packet)| {
        let Transmit::Udp { dst, ttl: None, .. } = transmit else { return None };
        Some((*dst, peers.iter().find(|peer| peer.address == *dst)?.pong(packet)?))
    });
    answered.collect()
}

/// A node with so many direct peers, all of which have answered 20 ms after the start.
pub(crate) fn direct_peers(count: u32) -> (Node, Vec<Puppet>) {
    let mut node = node();
    let peers: Vec<_> = (0..count).map(|number| Puppet::new(number, &node)).collect();
    for peer in &peers {
        node.set_peer(&peer.known(), at(0));
        node.route(at(0), &peer.key, 100);
    }
    for (remote, pong) in pongs(&peers, &sent(&mut node)) {
        node.handle_packet(at(20), Received::Udp { remote }, &pong);
    }
    assert!(peers.iter().all(|peer| node.direct(&peer.key) == Some(peer.address)));
    (node, peers)
}
