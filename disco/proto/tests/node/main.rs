//! A node as its driver sees it: what it answers, what it does not, and what a peer can make it do.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on says where")]

mod links;

use std::net::SocketAddr;
use std::time::Duration;

use towpath_disco::datagram::{Received, Region, RelayEvent, Route, Transmit};
use towpath_disco::hello::Hello;
use towpath_disco::{
    Event, GatewayConfig, MappingClass, Node, NodeConfig, PeerConfig, PortMapping, RelayConfig,
};
use towpath_wire::disco::key::DiscoPrivate;
use towpath_wire::disco::message::{Message, Ping, TxId};
use towpath_wire::disco::packet::{DiscoPacket, seal};
use towpath_wire::key::{NodePrivate, NodePublic};
use towpath_wire::sealed::SharedKey;
use towpath_wire::time::Instant;

const REGION: Region = Region(1);
/// The bytes of a ping without padding.
const PING: usize = 124;

fn at(millis: u64) -> Instant {
    Instant::from(Duration::from_millis(millis))
}

fn address(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

fn private(seed: u8) -> NodePrivate {
    NodePrivate::from_random([seed; 32])
}

fn config(seed: u8) -> NodeConfig {
    NodeConfig {
        key: private(seed),
        seed: [seed; 32],
        relays: vec![RelayConfig { region: REGION, stun: vec![] }],
        home: None,
        regions: vec![],
        addresses: vec![],
        one_probe: false,
    }
}

fn node(seed: u8, interface: &str) -> Node {
    let mut node = Node::new(config(seed));
    node.handle_interfaces(at(0), &[address(interface)]);
    node.handle_relay(at(0), RelayEvent::Up(REGION));
    node.handle_relay(at(0), RelayEvent::RoundTrip { region: REGION, took: Duration::from_millis(40) });
    node
}

fn peer(key: NodePublic) -> PeerConfig {
    PeerConfig { key, region: None, disco: None, addresses: vec![], is_relay_only: false }
}

fn sent(node: &mut Node) -> Vec<(Transmit, Vec<u8>)> {
    let mut all = Vec::new();
    let mut packet = Vec::new();
    while let Some(transmit) = node.poll_transmit(&mut packet) {
        all.push((transmit, packet.clone()));
    }
    all
}

/// Two nodes with public addresses, between which packets take no time.
struct Pair {
    nodes: [Node; 2],
    addresses: [SocketAddr; 2],
    /// Whether datagrams from the first to the second one arrive.
    is_open: bool,
    datagrams: Vec<(usize, Vec<u8>)>,
    relayed: Vec<(usize, Vec<u8>)>,
}

impl Pair {
    fn new() -> Self {
        let addresses = ["192.0.2.1:41641", "198.51.100.1:41641"];
        let mut nodes = [node(1, addresses[0]), node(2, addresses[1])];
        nodes[0].set_peer(&peer(private(2).public()), at(0));
        nodes[1].set_peer(&peer(private(1).public()), at(0));
        Self {
            nodes,
            addresses: addresses.map(address),
            is_open: true,
            datagrams: Vec::new(),
            relayed: Vec::new(),
        }
    }

    fn key(side: usize) -> NodePublic {
        private(u8::try_from(side).unwrap() + 1).public()
    }

    fn send(&mut self, side: usize, len: usize, now: Instant) -> Route {
        let route = self.nodes[side].route(now, &Self::key(1 - side), len);
        self.exchange(now);
        route
    }

    fn exchange(&mut self, now: Instant) {
        loop {
            let mut is_quiet = true;
            for side in 0..2 {
                for (transmit, packet) in sent(&mut self.nodes[side]) {
                    is_quiet = false;
                    let received = match transmit {
                        Transmit::Relay { region, .. } => {
                            self.relayed.push((side, packet.clone()));
                            Received::Relay { region, peer: Self::key(side) }
                        }
                        Transmit::Udp { dst, ttl: None, .. } if dst == self.addresses[1 - side] => {
                            self.datagrams.push((side, packet.clone()));
                            if side == 0 && !self.is_open {
                                continue;
                            }
                            Received::Udp { remote: self.addresses[side] }
                        }
                        _ => continue,
                    };
                    assert_eq!(self.nodes[1 - side].handle_packet(now, received, &packet), None);
                }
            }
            if is_quiet {
                return;
            }
        }
    }

    /// Lets time pass.
    fn pass(&mut self, until: Instant) {
        while let Some(now) =
            self.nodes.iter().filter_map(Node::poll_timeout).min().filter(|due| *due <= until)
        {
            for side in 0..2 {
                self.nodes[side].handle_timeout(now);
            }
            self.exchange(now);
        }
    }

    fn events(&mut self, side: usize) -> Vec<Event> {
        std::iter::from_fn(|| self.nodes[side].poll_event()).collect()
    }

    fn is_direct(&self) -> [bool; 2] {
        [0, 1].map(|side| self.nodes[side].direct(&Self::key(1 - side)) == Some(self.addresses[1 - side]))
    }
}

#[test]
fn two_peers_that_know_nothing_but_their_node_keys_become_direct() {
    let mut pair = Pair::new();
    assert_eq!(pair.send(0, 100, at(0)), Route { direct: None, relay: Some(REGION), ..Route::default() });
    pair.pass(at(1000));
    assert_eq!(pair.is_direct(), [true, true]);
    let signalling: usize = pair.relayed.iter().map(|(_, packet)| packet.len()).sum();
    assert!(pair.relayed.len() == 3 && signalling <= 900, "{signalling} bytes");
    let introduced = Event::Introduced { peer: Pair::key(1), region: REGION };
    let direct = Event::Direct { peer: Pair::key(1), address: pair.addresses[1] };
    assert_eq!(pair.events(0), [introduced, direct]);
    assert_eq!(
        pair.send(0, 100, at(1000)),
        Route { direct: Some(pair.addresses[1]), relay: None, ..Route::default() }
    );
    // Larger datagrams go over the relay as well until one of their size has been answered.
    let both = Route { direct: Some(pair.addresses[1]), relay: Some(REGION), ..Route::default() };
    assert_eq!(pair.send(0, 1400, at(1000)), both);
    assert_eq!(pair.send(0, 1400, at(1000)).relay, None);
    assert_eq!(pair.send(0, 1401, at(1000)), both);
}

#[test]
fn a_precious_datagram_goes_over_a_relay_as_well_and_no_other_one_does_so_for_it() {
    let mut pair = Pair::new();
    pair.send(0, 100, at(0));
    pair.pass(at(1000));
    let both = Route { direct: Some(pair.addresses[1]), relay: Some(REGION), ..Route::default() };
    assert_eq!(pair.nodes[0].route_both_ways(at(1000), &Pair::key(1), 148), both);
    assert_eq!(pair.nodes[0].route(at(1000), &Pair::key(1), 100), Route { relay: None, ..both });
}

#[test]
fn a_datagram_that_udp_does_not_carry_is_probed_by_the_largest_that_it_does() {
    let mut pair = Pair::new();
    pair.send(0, 100, at(0));
    pair.pass(at(1000));
    pair.datagrams.clear();
    assert_eq!(pair.send(0, usize::MAX, at(1000)).relay, Some(REGION));
    let longest = pair.datagrams.iter().map(|(_, packet)| packet.len()).max();
    assert_eq!(longest, Some(65_507));
}

#[test]
fn data_is_known_by_the_address_of_its_peer_and_delivered_once() {
    let mut pair = Pair::new();
    pair.send(0, 100, at(0));
    pair.pass(at(1000));
    let (sender, direct) = (Pair::key(0), Received::Udp { remote: pair.addresses[0] });
    let relayed = Received::Relay { region: REGION, peer: sender };
    let node = &mut pair.nodes[1];
    assert_eq!(node.handle_packet(at(1000), direct, b"\x04data"), Some(sender));
    assert_eq!(node.handle_packet(at(1001), relayed, b"\x04data"), None, "it came over both ways");
    assert_eq!(node.handle_packet(at(1002), relayed, b"\x04more"), Some(sender));
    let elsewhere = Received::Udp { remote: address("203.0.113.1:1") };
    assert_eq!(node.handle_packet(at(1003), elsewhere, b"\x04data"), None);
    let stranger = Received::Relay { region: REGION, peer: private(9).public() };
    assert_eq!(node.handle_packet(at(1004), stranger, b"\x04data"), None);
}

#[test]
fn a_path_on_which_nothing_is_answered_is_doubled_by_the_relay_in_time_and_then_given_up() {
    let mut pair = Pair::new();
    pair.send(0, 100, at(0));
    pair.pass(at(1000));
    pair.is_open = false;
    let mut doubled = None;
    for now in (1000..8000).step_by(10) {
        pair.pass(at(now));
        let route = pair.send(0, 100, at(now));
        if route.relay.is_some() && doubled.is_none() {
            doubled = Some(now - 1000);
            assert!(route.direct.is_some());
        }
    }
    assert!(doubled.is_some_and(|after| after <= 250), "{doubled:?}");
    assert!(!pair.is_direct()[0], "given up");
    assert_eq!(pair.send(0, 100, at(8000)), Route { direct: None, relay: Some(REGION), ..Route::default() });
    let why = pair.nodes[0].why(&Pair::key(1), at(8000)).unwrap();
    assert!(why.to_string().starts_with("over the relay; NAT here"), "{why}");
    // It works again.
    pair.is_open = true;
    for now in (8000..80_000).step_by(100) {
        pair.pass(at(now));
        pair.send(0, 100, at(now));
    }
    assert_eq!(pair.is_direct(), [true, true]);
}

#[test]
fn a_suspected_path_that_answers_again_is_told_to_be_direct_and_has_nothing_unanswered() {
    let mut pair = Pair::new();
    pair.send(0, 100, at(0));
    pair.pass(at(1000));
    pair.events(0);
    for now in (1000..3000).step_by(10) {
        pair.is_open = now >= 1500;
        pair.pass(at(now));
        pair.send(0, 100, at(now));
    }
    let (peer, address) = (Pair::key(1), pair.addresses[1]);
    assert_eq!(pair.events(0), [Event::Suspected { peer, address }, Event::Direct { peer, address }]);
    let why = pair.nodes[0].why(&peer, at(3000)).unwrap();
    assert_eq!(why.tried.iter().find(|(tried, _)| *tried == address), Some(&(address, 0)), "{why}");
}

#[test]
fn a_ping_of_the_application_is_answered_by_the_way_of_data() {
    let mut pair = Pair::new();
    pair.is_open = false;
    let peer = Pair::key(1);
    assert!(!pair.nodes[0].ping(at(0), &peer), "nothing is known of it");
    assert!(!pair.nodes[0].ping(at(0), &private(9).public()), "no peer");
    pair.exchange(at(0));
    assert!(pair.nodes[0].ping(at(0), &peer));
    pair.exchange(at(0));
    let way = Received::Relay { region: REGION, peer };
    assert!(pair.events(0).contains(&Event::Pong { peer, way, took: Duration::ZERO }));
    let mut pair = Pair::new();
    pair.send(0, 100, at(0));
    pair.pass(at(1000));
    pair.events(0);
    assert!(pair.nodes[0].ping(at(1000), &peer));
    pair.exchange(at(1000));
    let way = Received::Udp { remote: pair.addresses[1] };
    assert_eq!(pair.events(0), [Event::Pong { peer, way, took: Duration::ZERO }]);
}

#[test]
fn an_idle_pair_is_kept_alive_with_a_packet_each_way_in_20_seconds_at_most() {
    let mut pair = Pair::new();
    pair.send(0, 100, at(0));
    pair.send(1, 100, at(0));
    pair.pass(at(5000));
    pair.datagrams.clear();
    pair.relayed.clear();
    pair.pass(at(305_000));
    let by = |side| pair.datagrams.iter().filter(|(from, _)| *from == side).count();
    assert!((10..=15).contains(&by(0)) && (10..=15).contains(&by(1)), "{} and {}", by(0), by(1));
    assert!(pair.relayed.is_empty());
    assert_eq!(pair.send(0, 100, at(305_000)).relay, None, "the path is trusted");
}

/// What the node with the seed 1 sends when a hello of its peer, the node key 2, comes.
fn hear(node: &mut Node, hello: &Hello, now: Instant) -> Vec<(Transmit, Vec<u8>)> {
    let disco = DiscoPrivate::from_random([7; 32]).public();
    let shared = SharedKey::new(&private(2), &private(1).public());
    let mut packet = Vec::new();
    hello.seal(&disco, &shared, &[1; 24], &mut packet);
    let received = Received::Relay { region: REGION, peer: private(2).public() };
    assert_eq!(node.handle_packet(now, received, &packet), None);
    sent(node)
}

fn hello(counter: u32, addresses: &[&str]) -> Hello {
    Hello {
        epoch: 5,
        counter,
        challenge: [6; 12],
        echo: None,
        region: Some(REGION),
        standby: None,
        relay_rtt: None,
        mapping: MappingClass::Independent,
        wants_echo: true,
        addresses: addresses.iter().map(|text| address(text)).collect(),
    }
}

#[test]
fn a_hello_is_answered_once_and_a_recording_of_it_is_not() {
    let mut node = node(1, "192.0.2.1:41641");
    node.set_peer(&peer(private(2).public()), at(0));
    let relayed = |sent: &[(Transmit, Vec<u8>)]| {
        sent.iter().filter(|(transmit, _)| matches!(transmit, Transmit::Relay { .. })).count()
    };
    assert_eq!(relayed(&hear(&mut node, &hello(1, &[]), at(0))), 1);
    assert_eq!(relayed(&hear(&mut node, &hello(1, &[]), at(5000))), 0, "the same again");
    assert_eq!(relayed(&hear(&mut node, &hello(2, &[]), at(5000))), 1);
    assert_eq!(relayed(&hear(&mut node, &hello(3, &[]), at(5019))), 0, "too soon");
    // A stranger's hello, and one for another node, are not answered.
    let stranger = Received::Relay { region: REGION, peer: private(3).public() };
    let mut packet = Vec::new();
    let shared = SharedKey::new(&private(3), &private(1).public());
    hello(1, &[]).seal(&DiscoPrivate::from_random([7; 32]).public(), &shared, &[1; 24], &mut packet);
    node.handle_packet(at(9000), stranger, &packet);
    let known = Received::Relay { region: REGION, peer: private(2).public() };
    node.handle_packet(at(9000), known, &packet);
    assert!(sent(&mut node).is_empty());
}

/// The addresses in the hello that the node with the seed 1 sends when one comes.
fn offered(node: &mut Node, hello: &Hello) -> Vec<SocketAddr> {
    let shared = SharedKey::new(&private(2), &private(1).public());
    let sent = hear(node, hello, at(100 * u64::from(hello.counter)));
    let mut answers = sent.iter().filter_map(|(_, packet)| Hello::open(packet, &shared));
    answers.next().unwrap().1.addresses
}

#[test]
fn addresses_of_a_local_network_are_told_to_peers_behind_the_same_address_alone() {
    let [public, local] = ["192.0.2.1:41641", "192.168.1.5:41641"].map(address);
    let mut node = node(1, "192.0.2.1:41641");
    node.handle_interfaces(at(0), &[public, local]);
    node.set_peer(&peer(private(2).public()), at(0));
    assert_eq!(offered(&mut node, &hello(1, &["203.0.113.9:1", "192.168.1.7:1"])), [public]);
    assert_eq!(offered(&mut node, &hello(2, &["192.0.2.1:9", "192.168.1.7:1"])), [public, local]);
}

#[test]
fn a_direct_peer_that_is_to_be_relayed_only_is_relayed_at_once_and_may_be_direct_again() {
    let mut pair = Pair::new();
    pair.send(0, 100, at(0));
    pair.pass(at(1000));
    assert_eq!(pair.is_direct(), [true, true]);
    let relayed = Route { relay: Some(REGION), ..Route::default() };
    for (is_relay_only, begin) in [(true, 2000), (false, 8000)] {
        pair.nodes[0].set_peer(&PeerConfig { is_relay_only, ..peer(Pair::key(1)) }, at(begin));
        assert_eq!(pair.send(0, 100, at(begin)), relayed);
        pair.pass(at(begin + 5000));
        assert_eq!(pair.is_direct()[0], !is_relay_only);
    }
}

#[test]
fn a_peer_that_is_relayed_only_learns_no_address_and_is_sent_nothing_on_udp() {
    let mut node = node(1, "192.0.2.1:41641");
    let victim = private(2).public();
    node.set_peer(
        &PeerConfig { is_relay_only: true, addresses: vec![address("203.0.113.9:1")], ..peer(victim) },
        at(0),
    );
    assert_eq!(offered(&mut node, &hello(1, &["203.0.113.9:1"])), []);
    let attested = address("203.0.113.9:2");
    node.handle_relay(at(200), RelayEvent::Attested { region: REGION, peer: victim, address: attested });
    let (disco, remote) = (DiscoPrivate::from_random([7; 32]), address("203.0.113.9:9"));
    let ping = Message::Ping(Ping { tx: TxId([1; 12]), node_key: Some(victim), padding: 0 });
    let mut packet = Vec::new();
    let shared = SharedKey::of_disco(&disco, &node.disco_key());
    seal(&disco.public(), &shared, &[1; 24], &ping, &mut packet);
    node.handle_packet(at(300), Received::Udp { remote }, &packet);
    for second in 1..100 {
        let route = node.route(at(1000 * second), &victim, 100);
        assert_eq!(route, Route { relay: Some(REGION), ..Route::default() });
        node.handle_timeout(at(1000 * second));
        let all = sent(&mut node);
        assert!(!all.iter().any(|(transmit, _)| matches!(transmit, Transmit::Udp { .. })), "{all:?}");
    }
}

/// What a relay may have recorded sends no data to another region, and neither does the number of a region that is not there.
#[test]
fn a_peer_moves_to_another_region_by_a_hello_that_repeats_a_challenge() {
    let other = Region(2);
    let mut node = Node::new(NodeConfig {
        relays: [REGION, other].map(|region| RelayConfig { region, stun: vec![] }).into(),
        home: Some(REGION),
        ..config(1)
    });
    node.handle_interfaces(at(0), &[address("192.0.2.1:41641")]);
    [REGION, other].into_iter().for_each(|region| node.handle_relay(at(0), RelayEvent::Up(region)));
    node.set_peer(&peer(private(2).public()), at(0));
    let shared = SharedKey::new(&private(2), &private(1).public());
    let mut challenge = None;
    let mut move_to = |node: &mut Node, counter, region, echo| {
        let moved = Hello { region: Some(region), echo, ..hello(counter, &[]) };
        for (_, packet) in hear(node, &moved, at(100 * u64::from(counter))) {
            challenge = Hello::open(&packet, &shared).map(|(_, answer)| answer.challenge).or(challenge);
        }
        challenge
    };
    let relay = |node: &mut Node| {
        let relay = node.route(at(1000), &private(2).public(), 100).relay;
        sent(node);
        relay
    };
    let challenge = move_to(&mut node, 1, REGION, None);
    assert!(challenge.is_some());
    move_to(&mut node, 2, REGION, challenge);
    move_to(&mut node, 3, other, None);
    assert_eq!(relay(&mut node), Some(REGION), "without an echo");
    move_to(&mut node, 4, Region(9), challenge);
    assert_eq!(relay(&mut node), Some(REGION), "a region that this node does not know");
    move_to(&mut node, 5, other, challenge);
    assert_eq!(relay(&mut node), Some(other));
}

/// A node with links to its home, to its standby and to a third region, in which its peer is.
fn with_a_peer_in_the_third_region() -> Node {
    let regions = [1, 2, 3].map(Region);
    let mut node = Node::new(NodeConfig {
        relays: regions.map(|region| RelayConfig { region, stun: vec![] }).into(),
        home: Some(REGION),
        ..config(1)
    });
    node.handle_interfaces(at(0), &[address("192.0.2.1:41641")]);
    regions.into_iter().for_each(|region| node.handle_relay(at(0), RelayEvent::Up(region)));
    node.set_peer(&PeerConfig { region: Some(regions[2]), ..peer(private(2).public()) }, at(0));
    node
}

#[test]
fn a_relay_whose_link_was_lost_is_not_used_for_ten_seconds() {
    let mut node = with_a_peer_in_the_third_region();
    let relay = |node: &mut Node, millis| node.route(at(millis), &private(2).public(), 100).relay;
    // The peer is heard in the home of this node as well.
    hear(&mut node, &hello(1, &[]), at(0));
    assert_eq!(relay(&mut node, 100), Some(Region(3)));
    node.handle_relay(at(200), RelayEvent::Down(Region(3)));
    assert_eq!([300, 10_199].map(|millis| relay(&mut node, millis)), [Some(REGION); 2]);
    assert_eq!(relay(&mut node, 10_200), Some(Region(3)));
}

#[test]
fn a_hello_that_names_another_region_is_answered_by_a_request_for_an_echo() {
    let mut node = with_a_peer_in_the_third_region();
    let shared = SharedKey::new(&private(2), &private(1).public());
    let mut answer = |counter, region, echo| {
        let said = Hello { region: Some(Region(region)), echo, ..hello(counter, &[]) };
        let sent = hear(&mut node, &said, at(100 * u64::from(counter)));
        sent.iter().find_map(|(_, packet)| Hello::open(packet, &shared)).unwrap().1
    };
    let first = answer(1, 3, None);
    assert!(answer(2, 3, Some(first.challenge)).echo.is_some());
    assert!(!answer(3, 3, None).wants_echo, "the peer is known to be no recording");
    assert!(answer(4, 2, None).wants_echo);
}

#[test]
fn a_peer_makes_a_node_send_few_packets_to_an_address_that_does_not_answer() {
    let mut node = node(1, "192.0.2.1:41641");
    node.set_peer(&peer(private(2).public()), at(0));
    let victims = ["203.0.113.9:1", "203.0.113.9:2", "203.0.113.9:3", "203.0.113.9:4"];
    let mut probes = 0;
    for second in 0..60 {
        let now = at(second * 1000);
        let mut all = hear(&mut node, &hello(u32::try_from(second).unwrap() + 1, &victims), now);
        while let Some(due) = node.poll_timeout().filter(|due| *due < now + Duration::from_secs(1)) {
            node.handle_timeout(due);
            all.append(&mut sent(&mut node));
        }
        probes += all.iter().filter(|(transmit, _)| matches!(transmit, Transmit::Udp { .. })).count();
    }
    assert_eq!(probes, 16);
}

#[test]
fn a_ping_from_an_address_that_is_not_the_sender_s_causes_less_than_three_times_its_bytes() {
    let mut node = node(1, "192.0.2.1:41641");
    node.set_peer(&peer(private(2).public()), at(0));
    hear(&mut node, &hello(1, &[]), at(0));
    node.handle_timeout(at(4000));
    sent(&mut node);
    let (disco, victim) = (DiscoPrivate::from_random([7; 32]), address("203.0.113.9:9"));
    let shared = SharedKey::of_disco(&disco, &node.disco_key());
    let mut packet = Vec::new();
    let ping = Message::Ping(Ping { tx: TxId([1; 12]), node_key: Some(private(2).public()), padding: 0 });
    seal(&disco.public(), &shared, &[1; 24], &ping, &mut packet);
    assert_eq!(packet.len(), PING);
    node.handle_packet(at(5000), Received::Udp { remote: victim }, &packet);
    let mut caused = 0;
    while let Some(due) = node.poll_timeout() {
        caused += sent(&mut node).iter().map(|(_, packet)| packet.len()).sum::<usize>();
        node.handle_timeout(due);
    }
    caused += sent(&mut node).iter().map(|(_, packet)| packet.len()).sum::<usize>();
    assert!(caused > 0 && caused <= 3 * PING, "{caused} bytes");
    assert!(node.direct(&private(2).public()).is_none());
}

#[test]
fn a_pong_counts_once_and_from_the_tuple_that_was_probed() {
    let mut node = node(1, "192.0.2.1:41641");
    node.set_peer(&peer(private(2).public()), at(0));
    let candidate = "203.0.113.9:9";
    hear(&mut node, &hello(1, &[candidate]), at(0));
    node.handle_timeout(node.poll_timeout().unwrap());
    let disco = DiscoPrivate::from_random([7; 32]);
    let shared = SharedKey::of_disco(&disco, &node.disco_key());
    let probe = sent(&mut node).into_iter().map(|(_, packet)| packet).next_back().unwrap();
    let Ok(Message::Ping(Ping { tx, .. })) = DiscoPacket::split(&probe).unwrap().open(&shared) else {
        panic!("a ping")
    };
    let pong = |tx| {
        let mut packet = Vec::new();
        let message = Message::Pong { tx, source: address("192.0.2.1:41641") };
        seal(&disco.public(), &shared, &[1; 24], &message, &mut packet);
        packet
    };
    let key = private(2).public();
    node.handle_packet(at(100), Received::Udp { remote: address("203.0.113.9:8") }, &pong(tx));
    assert_eq!(node.direct(&key), None, "from another port");
    node.handle_packet(at(100), Received::Relay { region: REGION, peer: key }, &pong(tx));
    assert_eq!(node.direct(&key), None, "over a relay");
    node.handle_packet(at(100), Received::Udp { remote: address(candidate) }, &pong(TxId([0; 12])));
    assert_eq!(node.direct(&key), None, "to no probe");
    node.handle_packet(at(100), Received::Udp { remote: address(candidate) }, &pong(tx));
    assert_eq!(node.direct(&key), Some(address(candidate)));
}

/// A stock client is known by the disco key that a control plane names. It gets a CallMeMaybe and pings, and no hello.
#[test]
fn a_stock_client_is_called_and_pinged_as_it_expects() {
    let mut node = node(1, "192.0.2.1:41641");
    let (disco, theirs) = (DiscoPrivate::from_random([7; 32]), address("198.51.100.1:41641"));
    let key = private(2).public();
    node.set_peer(&PeerConfig { disco: Some(disco.public()), addresses: vec![theirs], ..peer(key) }, at(0));
    let shared = SharedKey::of_disco(&disco, &node.disco_key());
    assert_eq!(node.route(at(0), &key, 100), Route { direct: None, relay: Some(REGION), ..Route::default() });
    let all = sent(&mut node);
    let read = |packet: &[u8]| DiscoPacket::split(packet).unwrap().open(&shared).unwrap();
    assert_eq!(read(&all[0].1), Message::CallMeMaybe(vec![address("192.0.2.1:41641")]));
    assert_eq!(all[0].0, Transmit::Relay { region: REGION, peer: key });
    assert_eq!(all[1].0, Transmit::Udp { src: None, dst: theirs, ttl: None });
    let Message::Ping(Ping { node_key: Some(ours), padding: 0, .. }) = read(&all[1].1) else {
        panic!("a ping")
    };
    assert_eq!(ours, private(1).public());
    // Its CallMeMaybe is answered by pings to what it names, and by another one because it names a new address: its own pings may
    // have come before this node's NAT knew of that.
    let mut call = Vec::new();
    let named = address("198.51.100.9:7");
    seal(&disco.public(), &shared, &[2; 24], &Message::CallMeMaybe(vec![named]), &mut call);
    node.handle_packet(at(9000), Received::Udp { remote: theirs }, &call);
    assert!(sent(&mut node).is_empty(), "not on UDP");
    node.handle_packet(at(9000), Received::Relay { region: REGION, peer: key }, &call);
    let all = sent(&mut node);
    let pings =
        |(transmit, _): &(Transmit, Vec<u8>)| matches!(transmit, Transmit::Udp { dst, .. } if *dst == named);
    let calls = |(transmit, _): &(Transmit, Vec<u8>)| matches!(transmit, Transmit::Relay { .. });
    let (pinged, called) = (all.iter().position(pings).unwrap(), all.iter().position(calls).unwrap());
    assert!(pinged < called, "the NAT of this node is open when the client is called");
    assert_eq!(read(&all[called].1), Message::CallMeMaybe(vec![address("192.0.2.1:41641")]));
    // One that names nothing new is answered by pings alone: otherwise two nodes would call each other for ever.
    node.handle_packet(at(20_000), Received::Relay { region: REGION, peer: key }, &call);
    let all = sent(&mut node);
    assert!(all.iter().any(pings) && !all.iter().any(calls));
}

#[test]
fn the_ping_of_an_operator_over_the_relay_is_answered_over_it() {
    let mut node = node(1, "192.0.2.1:41641");
    let (disco, key) = (DiscoPrivate::from_random([7; 32]), private(2).public());
    node.set_peer(&PeerConfig { disco: Some(disco.public()), ..peer(key) }, at(0));
    let shared = SharedKey::of_disco(&disco, &node.disco_key());
    let (tx, mut packet) = (TxId([1; 12]), Vec::new());
    seal(
        &disco.public(),
        &shared,
        &[2; 24],
        &Message::Ping(Ping { tx, node_key: None, padding: 0 }),
        &mut packet,
    );
    node.handle_packet(at(0), Received::Relay { region: Region(7), peer: key }, &packet);
    let [(transmit, answer)] = &sent(&mut node)[..] else { panic!("one answer") };
    assert_eq!(*transmit, Transmit::Relay { region: Region(7), peer: key });
    let source = address("127.3.3.40:7");
    assert_eq!(DiscoPacket::split(answer).unwrap().open(&shared), Ok(Message::Pong { tx, source }));
}

/// The answer of a gateway that grants a request of PCP, with this external endpoint.
fn granting(request: &[u8], external: ([u8; 4], u16)) -> Vec<u8> {
    let head = [&[2, 0x81, 0, 0, 0, 0, 0x1c, 0x20, 0, 0, 0, 9][..], &[0; 12], &request[24..42]].concat();
    [head, external.1.to_be_bytes().to_vec(), vec![0; 10], vec![0xff, 0xff], external.0.to_vec()].concat()
}

#[test]
fn a_port_that_the_gateway_grants_is_offered_at_once_and_its_packets_are_no_data() {
    let mut node = node(1, "192.168.1.7:41641");
    node.set_peer(&peer(private(2).public()), at(0));
    let key = private(2).public();
    node.route(at(0), &key, 100);
    sent(&mut node);
    let gateway = GatewayConfig {
        address: "192.168.1.1".parse().unwrap(),
        local: "192.168.1.7:41641".parse().unwrap(),
    };
    node.handle_gateway(at(0), Some(gateway));
    let to = |transmit: &Transmit| match transmit {
        Transmit::Udp { dst, .. } => Some(*dst),
        _ => None,
    };
    let asked = sent(&mut node);
    assert_eq!(
        asked.iter().map(|(transmit, _)| to(transmit)).collect::<Vec<_>>(),
        [Some(address("192.168.1.1:5351")); 2]
    );
    assert_eq!(node.why(&key, at(0)).unwrap().port_mapping, PortMapping::Pending);
    let answer = granting(&asked[0].1, ([203, 0, 113, 9], 5000));
    for other in ["192.168.1.1:5350", "192.168.1.2:5351"] {
        assert_eq!(node.handle_packet(at(1), Received::Udp { remote: address(other) }, &answer), None);
        assert_eq!(node.endpoints(), [address("192.168.1.7:41641")], "from {other}");
    }
    let remote = address("192.168.1.1:5351");
    assert_eq!(node.handle_packet(at(1), Received::Udp { remote }, &answer), None);
    assert_eq!(node.endpoints(), ["203.0.113.9:5000", "192.168.1.7:41641"].map(address));
    let offers = sent(&mut node);
    let [(Transmit::Relay { .. }, offer)] = &offers[..] else { panic!("an offer: {offers:?}") };
    let (_, hello) = Hello::open(offer, &SharedKey::new(&private(2), &private(1).public())).unwrap();
    assert_eq!((hello.mapping, hello.addresses[0]), (MappingClass::Open, address("203.0.113.9:5000")));
    // The same again is no news, and what follows is due before the half of two hours.
    node.handle_packet(at(2), Received::Udp { remote }, &answer);
    assert!(sent(&mut node).is_empty());
    node.close();
    let [(transmit, release)] = &sent(&mut node)[..] else { panic!("the port is given back") };
    assert_eq!((to(transmit), &release[..8]), (Some(remote), &[2, 1, 0, 0, 0, 0, 0, 0][..]));
    assert_eq!(node.endpoints(), [address("192.168.1.7:41641")]);
}

#[test]
fn the_same_input_leads_to_the_same_output() {
    let run = || {
        let mut pair = Pair::new();
        pair.send(0, 1400, at(0));
        pair.pass(at(60_000));
        (pair.datagrams, pair.relayed)
    };
    assert_eq!(run(), run());
}
