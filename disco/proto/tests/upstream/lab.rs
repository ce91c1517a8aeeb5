//! A node and the stock clients that are its peers: what they send it, and how soon they answer its pings.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use towpath_disco::datagram::{Received, Region, RelayEvent, Route, Transmit};
use towpath_disco::hello::Hello;
use towpath_disco::{Event, MappingClass, Node, NodeConfig, PeerConfig, RelayConfig};
use towpath_wire::disco::MAGIC;
use towpath_wire::disco::key::{DiscoPrivate, DiscoPublic};
use towpath_wire::disco::message::{Message, Ping, TxId};
use towpath_wire::disco::packet::{DiscoPacket, seal};
use towpath_wire::key::{NodePrivate, NodePublic};
use towpath_wire::sealed::SharedKey;
use towpath_wire::time::Instant;

pub(crate) const HOME: Region = Region(1);
/// A packet of the application.
pub(crate) const DATA: &[u8] = b"\x04data";

pub(crate) fn at(millis: u64) -> Instant {
    Instant::from(Duration::from_millis(millis))
}

pub(crate) fn address(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

/// The node key of the client with this number.
pub(crate) fn key(number: u8) -> NodePublic {
    NodePrivate::from_random([number; 32]).public()
}

/// A node that knows the home relay and nothing else.
pub(crate) fn bare(stun: &[SocketAddr]) -> Node {
    let mut node = Node::new(NodeConfig {
        key: NodePrivate::from_random([1; 32]),
        seed: [1; 32],
        relays: vec![RelayConfig { region: HOME, stun: stun.to_vec() }],
        home: Some(HOME),
        regions: vec![],
        addresses: vec![],
        one_probe: false,
    });
    node.handle_relay(at(0), RelayEvent::Up(HOME));
    node
}

/// A client that has this node for a peer.
pub(crate) struct Client {
    number: u8,
    disco: DiscoPrivate,
    shared: SharedKey,
}

impl Client {
    /// The client with the node key of `number` and the disco key of `disco`.
    pub(crate) fn new(number: u8, disco: u8, node: &Node) -> Self {
        let disco = DiscoPrivate::from_random([disco; 32]);
        let shared = SharedKey::of_disco(&disco, &node.disco_key());
        Self { number, disco, shared }
    }

    pub(crate) fn key(&self) -> NodePublic {
        key(self.number)
    }

    pub(crate) fn disco(&self) -> DiscoPublic {
        self.disco.public()
    }

    /// What a control plane says of it.
    pub(crate) fn config(&self, addresses: &[&str]) -> PeerConfig {
        let addresses = addresses.iter().map(|text| address(text)).collect();
        PeerConfig {
            key: self.key(),
            region: Some(HOME),
            disco: Some(self.disco()),
            addresses,
            is_relay_only: false,
        }
    }

    /// What is known of it without a control plane.
    pub(crate) fn unknown(&self) -> PeerConfig {
        PeerConfig { key: self.key(), region: None, disco: None, addresses: vec![], is_relay_only: false }
    }

    pub(crate) fn seal(&self, message: &Message) -> Vec<u8> {
        let mut packet = Vec::new();
        seal(&self.disco(), &self.shared, &[1; 24], message, &mut packet);
        packet
    }

    /// A packet with this in its box.
    pub(crate) fn seal_bytes(&self, text: &[u8]) -> Vec<u8> {
        [&MAGIC[..], self.disco().as_bytes(), &[1; 24], &self.shared.seal(&[1; 24], text)].concat()
    }

    /// A ping that names this node key.
    pub(crate) fn ping(&self, node_key: Option<NodePublic>) -> Vec<u8> {
        self.seal(&Message::Ping(Ping { tx: TxId([self.number; 12]), node_key, padding: 0 }))
    }

    pub(crate) fn call_me_maybe(&self, addresses: &[&str]) -> Vec<u8> {
        self.seal(&Message::CallMeMaybe(addresses.iter().map(|text| address(text)).collect()))
    }

    /// A hello, which stock clients do not send, with the disco key of this client.
    pub(crate) fn hello(&self, counter: u32, echo: Option<[u8; 12]>, addresses: &[&str]) -> Vec<u8> {
        let hello = Hello {
            epoch: 5,
            counter,
            challenge: [6; 12],
            echo,
            region: None,
            standby: None,
            relay_rtt: None,
            mapping: MappingClass::Open,
            wants_echo: true,
            addresses: addresses.iter().map(|text| address(text)).collect(),
        };
        let mut packet = Vec::new();
        hello.seal(&self.disco(), &self.hello_key(), &[1; 24], &mut packet);
        packet
    }

    /// A hello of the node to this client.
    pub(crate) fn open_hello(&self, packet: &[u8]) -> Option<Hello> {
        Some(Hello::open(packet, &self.hello_key())?.1)
    }

    fn hello_key(&self) -> SharedKey {
        SharedKey::new(&NodePrivate::from_random([self.number; 32]), &key(1))
    }

    pub(crate) fn open(&self, packet: &[u8]) -> Option<Message> {
        DiscoPacket::split(packet)?.open(&self.shared).ok()
    }
}

/// A node at `192.0.2.1:41641`, its peers, and the time.
pub(crate) struct Lab {
    pub(crate) node: Node,
    pub(crate) now: Instant,
    pub(crate) clients: Vec<Client>,
    /// The addresses that answer, each after so many milliseconds.
    answering: BTreeMap<SocketAddr, u64>,
    on_their_way: Vec<(Instant, SocketAddr, Vec<u8>)>,
}

impl Lab {
    /// With clients that have these numbers and disco keys, of which the node has not been told.
    pub(crate) fn new<const N: usize>(clients: [(u8, u8); N]) -> Self {
        let mut node = bare(&[]);
        node.handle_interfaces(at(0), &[address("192.0.2.1:41641")]);
        let clients = clients.iter().map(|(number, disco)| Client::new(*number, *disco, &node)).collect();
        Self { node, now: at(0), clients, answering: BTreeMap::new(), on_their_way: Vec::new() }
    }

    /// With one client of a control plane that is direct at the first of these addresses, which answers within 40 ms.
    pub(crate) fn direct(addresses: &[&str]) -> Self {
        let mut lab = Self::new([(2, 7)]);
        lab.set(0, addresses);
        lab.answer(addresses[0], 40);
        lab.send(0, 100);
        lab.pass(1000);
        assert_eq!(lab.direct_to(0), Some(address(addresses[0])));
        while lab.node.poll_event().is_some() {}
        lab
    }

    /// Tells the node what a control plane says of a client.
    pub(crate) fn set(&mut self, client: usize, addresses: &[&str]) {
        let config = self.clients[client].config(addresses);
        self.node.set_peer(&config, self.now);
    }

    /// Pings to an address are answered after so many milliseconds.
    pub(crate) fn answer(&mut self, text: &str, rtt: u64) {
        self.answering.insert(address(text), rtt);
    }

    pub(crate) fn silence(&mut self, text: &str) {
        self.answering.remove(&address(text));
    }

    /// A packet comes on UDP. Returns the peer whose data it is.
    pub(crate) fn hear(&mut self, from: &str, packet: &[u8]) -> Option<NodePublic> {
        self.node.handle_packet(self.now, Received::Udp { remote: address(from) }, packet)
    }

    /// A packet comes over the relay of a region, which names `peer` as its sender. Returns the peer whose data it is.
    pub(crate) fn hear_over(
        &mut self,
        region: Region,
        peer: NodePublic,
        packet: &[u8],
    ) -> Option<NodePublic> {
        self.node.handle_packet(self.now, Received::Relay { region, peer }, packet)
    }

    /// The node sends data to a client.
    pub(crate) fn send(&mut self, client: usize, len: usize) -> Route {
        let key = self.clients[client].key();
        self.node.route(self.now, &key, len)
    }

    /// What the node sends to clients and servers now. Its pings are answered when the time comes, and those to relays at once.
    pub(crate) fn sent(&mut self) -> Vec<(Transmit, Vec<u8>)> {
        let mut all = Vec::new();
        let mut packet = Vec::new();
        while let Some(transmit) = self.node.poll_transmit(&mut packet) {
            if let Transmit::Udp { dst, ttl: None, .. } = transmit
                && let Some(rtt) = self.answering.get(&dst)
                && let Some((client, tx)) = self.pinged(&packet)
            {
                let pong = self.clients[client].seal(&Message::Pong { tx, source: dst });
                self.on_their_way.push((self.now + Duration::from_millis(*rtt), dst, pong));
            }
            match transmit {
                Transmit::Ping { region } => self.node.handle_relay(self.now, RelayEvent::Heard(region)),
                _ => all.push((transmit, packet.clone())),
            }
        }
        all
    }

    /// The client that can read a ping, and its transaction.
    fn pinged(&self, packet: &[u8]) -> Option<(usize, TxId)> {
        self.clients.iter().enumerate().find_map(|(client, it)| match it.open(packet)? {
            Message::Ping(ping) => Some((client, ping.tx)),
            _ => None,
        })
    }

    /// Lets so many milliseconds pass. Returns what the node has sent.
    pub(crate) fn pass(&mut self, millis: u64) -> Vec<(Transmit, Vec<u8>)> {
        let until = self.now + Duration::from_millis(millis);
        let mut all = self.sent();
        loop {
            let coming = self.on_their_way.iter().map(|(at, ..)| *at).min();
            let Some(next) =
                [coming, self.node.poll_timeout()].into_iter().flatten().min().filter(|at| *at <= until)
            else {
                self.now = until;
                return all;
            };
            self.now = self.now.max(next);
            if coming == Some(next) {
                let first = self.on_their_way.iter().position(|(at, ..)| *at == next).unwrap();
                let (_, remote, packet) = self.on_their_way.remove(first);
                assert_eq!(self.node.handle_packet(self.now, Received::Udp { remote }, &packet), None);
            } else {
                self.node.handle_timeout(self.now);
            }
            all.append(&mut self.sent());
        }
    }

    /// Sends data to a client each 20 ms for so long. Returns whether any of it went over the relay.
    pub(crate) fn stream(&mut self, client: usize, millis: u64) -> bool {
        let mut is_relayed = false;
        for _ in 0..millis / 20 {
            is_relayed |= self.send(client, 100).relay.is_some();
            self.pass(20);
        }
        is_relayed
    }

    pub(crate) fn direct_to(&self, client: usize) -> Option<SocketAddr> {
        self.node.direct(&self.clients[client].key())
    }

    pub(crate) fn events(&mut self) -> Vec<Event> {
        std::iter::from_fn(|| self.node.poll_event()).collect()
    }
}

/// Where packets on UDP went.
pub(crate) fn targets(sent: &[(Transmit, Vec<u8>)]) -> Vec<SocketAddr> {
    let on_udp = |(transmit, _): &(Transmit, Vec<u8>)| match transmit {
        Transmit::Udp { dst, .. } => Some(*dst),
        _ => None,
    };
    sent.iter().filter_map(on_udp).collect()
}
