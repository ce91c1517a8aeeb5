//! What a malicious peer can make a node do to addresses that are not the peer's.

use std::net::SocketAddr;
use std::time::Duration;

use towpath_disco::datagram::{Received, RelayEvent, Route, Transmit};
use towpath_disco::hello::Hello;
use towpath_disco::{MappingClass, Node};
use towpath_sim::{Class, Machine, Pair, Random, Seat, Timing, sweep};
use towpath_wire::disco::key::{DiscoPrivate, DiscoPublic};
use towpath_wire::disco::message::{Message, Ping, TxId};
use towpath_wire::disco::packet::seal;
use towpath_wire::key::NodePublic;
use towpath_wire::sealed::SharedKey;
use towpath_wire::time::Instant;

use super::driver::{Host, seeds};

/// A peer that has the right keys, and sends what comes to its mind: hellos that name other hosts, replayed ones, pings and
/// pongs on UDP, CallMeMaybe, and rubbish.
struct Malice {
    victim: NodePublic,
    /// The agreement of the node keys.
    shared: SharedKey,
    disco: DiscoPrivate,
    public: DiscoPublic,
    /// The agreement with the disco key of the node, which it learns from the node's hellos.
    known: Option<SharedKey>,
    random: Random,
    due: Instant,
    counter: u32,
    out: Vec<(Transmit, Vec<u8>)>,
    recorded: Vec<Vec<u8>>,
}

impl Malice {
    fn new(seat: Seat) -> Self {
        let Seat { private, peer, mut random, .. } = seat;
        let disco = DiscoPrivate::from_random(random.bytes());
        Self {
            shared: SharedKey::new(&private, &peer),
            victim: peer,
            public: disco.public(),
            disco,
            known: None,
            random,
            due: Instant::from(Duration::from_secs(2)),
            counter: 0,
            out: Vec::new(),
            recorded: Vec::new(),
        }
    }

    /// An address of one of a few hosts that have nothing to do with it.
    fn bystander(&mut self) -> SocketAddr {
        let host = self.random.below(4);
        let port = 1 + self.random.below(60_000);
        format!("198.18.0.{}:{port}", host + 1).parse().unwrap()
    }

    fn act(&mut self) {
        let relay = Transmit::Relay { region: towpath_disco::datagram::Region(1), peer: self.victim };
        let mut packet = Vec::new();
        match self.random.below(5) {
            0 | 1 => {
                self.counter += 1;
                let many = self.random.below(70) as usize;
                let hello = Hello {
                    epoch: self.random.below(3),
                    counter: self.counter,
                    challenge: self.random.bytes(),
                    echo: None,
                    region: None,
                    standby: None,
                    relay_rtt: Some(Duration::from_millis(self.random.below(70_000))),
                    mapping: MappingClass::ALL[self.random.below(4) as usize],
                    wants_echo: true,
                    addresses: (0..many).map(|_| self.bystander()).collect(),
                };
                hello.seal(&self.public, &self.shared, &self.random.bytes(), &mut packet);
                self.recorded.push(packet.clone());
                self.out.push((relay, packet));
            }
            2 if !self.recorded.is_empty() => {
                let again = self.random.below(self.recorded.len() as u64) as usize;
                self.out.push((relay, self.recorded[again].clone()));
            }
            3 => {
                let many = self.random.below(70) as usize;
                let call = Message::CallMeMaybe((0..many).map(|_| self.bystander()).collect());
                let Some(known) = &self.known else { return };
                seal(&self.public, known, &self.random.bytes(), &call, &mut packet);
                self.out.push((relay, packet));
            }
            _ => {
                let Some(known) = &self.known else { return };
                let ping = Ping { tx: TxId(self.random.bytes()), node_key: None, padding: 0 };
                seal(&self.public, known, &self.random.bytes(), &Message::Ping(ping), &mut packet);
                self.out.push((relay, packet));
            }
        }
    }
}

impl Machine for Malice {
    fn handle_packet(&mut self, _: Instant, received: Received, packet: &[u8]) -> Option<NodePublic> {
        if let Received::Relay { .. } = received
            && self.known.is_none()
            && let Some((disco, _)) = Hello::open(packet, &self.shared)
        {
            self.known = Some(SharedKey::of_disco(&self.disco, &disco));
        }
        None
    }

    fn handle_relay(&mut self, _: Instant, _: RelayEvent) {}

    fn handle_interfaces(&mut self, _: Instant, _: &[SocketAddr]) {}

    fn route(&mut self, _: Instant, _: &NodePublic, _: usize) -> Route {
        Route::default()
    }

    fn handle_timeout(&mut self, now: Instant) {
        if now >= self.due {
            self.due = now + Duration::from_millis(50 + self.random.below(100));
            self.act();
        }
    }

    fn poll_timeout(&mut self) -> Option<Instant> {
        Some(self.due)
    }

    fn poll_transmit(&mut self, _: Instant, packet: &mut Vec<u8>) -> Option<Transmit> {
        let (transmit, next) = self.out.pop()?;
        packet.extend_from_slice(&next);
        Some(transmit)
    }
}

/// Either side of a pair.
enum Either {
    Node(Box<Host>),
    Malice(Box<Malice>),
}

impl Either {
    fn machine(&mut self) -> &mut dyn Machine {
        match self {
            Self::Node(host) => &mut **host,
            Self::Malice(malice) => &mut **malice,
        }
    }

    fn node(&self) -> &Node {
        match self {
            Self::Node(host) => &host.node,
            Self::Malice(_) => panic!("the other side is asked"),
        }
    }
}

impl Machine for Either {
    fn handle_packet(&mut self, now: Instant, received: Received, packet: &[u8]) -> Option<NodePublic> {
        self.machine().handle_packet(now, received, packet)
    }

    fn handle_relay(&mut self, now: Instant, event: RelayEvent) {
        self.machine().handle_relay(now, event);
    }

    fn handle_interfaces(&mut self, now: Instant, addresses: &[SocketAddr]) {
        self.machine().handle_interfaces(now, addresses);
    }

    fn route(&mut self, now: Instant, peer: &NodePublic, len: usize) -> Route {
        self.machine().route(now, peer, len)
    }

    fn handle_timeout(&mut self, now: Instant) {
        self.machine().handle_timeout(now);
    }

    fn poll_timeout(&mut self) -> Option<Instant> {
        self.machine().poll_timeout()
    }

    fn poll_transmit(&mut self, now: Instant, packet: &mut Vec<u8>) -> Option<Transmit> {
        self.machine().poll_transmit(now, packet)
    }
}

#[test]
fn a_malicious_peer_makes_a_node_send_16_packets_a_minute_to_an_address_that_is_not_its_own() {
    let worst = sweep(seeds(), |seed| {
        let pair = Pair::new(Class::P, Class::O, Timing::NEAR, seed as u64);
        let mut stage = pair.build(|seat| match seat.side {
            0 => Either::Node(Box::new(Host::new(seat))),
            _ => Either::Malice(Box::new(Malice::new(seat))),
        });
        let [node, _] = stage.hosts;
        let mut worst = 0;
        let mut before = std::collections::BTreeMap::new();
        for minute in 1..=4 {
            stage.world.run_until(Instant::from(Duration::from_secs(60 * minute)));
            let mut sent = std::collections::BTreeMap::<_, u64>::new();
            for (address, count) in &stage.world.sent(node).probes {
                if address.to_string().starts_with("198.18.") {
                    *sent.entry(address.ip()).or_default() += count.packets;
                }
            }
            for (address, count) in &sent {
                worst = worst.max(count - before.get(address).copied().unwrap_or_default());
            }
            before = sent;
        }
        let peer = stage.world.key(stage.hosts[1]);
        assert!(stage.world.machine(node).node().direct(&peer).is_none(), "{pair}");
        worst
    });
    assert!(worst.iter().all(|sent| *sent <= 16), "{worst:?}");
    assert!(worst.contains(&16), "the peer tries hard enough: {worst:?}");
}
