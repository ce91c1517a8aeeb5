//! Two WireGuards, their proxies, and the way between them, on a virtual clock.

use std::collections::BTreeMap;

use towpath::NodePrivate;

use super::*;

const TRIP: u64 = 40;
/// What the loopback interface and WireGuard take.
const LOCAL: u64 = 1;

/// A WireGuard, as far as crossing handshakes go: one handshake a peer at a time, and a session that the initiator's first packet
/// confirms (wireguard-go `device/noise-protocol.go`).
#[derive(Debug, Default)]
struct WireGuard {
    /// The initiation of its own whose response it waits for. An initiation of the peer takes its place.
    initiated: Option<u8>,
    /// Whether it has answered, and waits for the first packet.
    is_next: bool,
    has_session: bool,
    /// The number of the last initiation.
    last: u8,
}

fn message(kind: u8, number: u8) -> Vec<u8> {
    let mut message = vec![kind, 0, 0, 0, number];
    message.resize(
        if kind == 1 {
            148
        } else if kind == 2 {
            92
        } else {
            32
        },
        0,
    );
    message
}

impl WireGuard {
    fn initiate(&mut self) -> Vec<u8> {
        self.last += 1;
        self.initiated = Some(self.last);
        message(1, self.last)
    }

    /// What it answers.
    fn receive(&mut self, packet: &[u8]) -> Option<Vec<u8>> {
        match MessageKind::of(packet).expect("WireGuard's") {
            MessageKind::Initiation => {
                self.initiated = None;
                self.is_next = true;
                Some(message(2, packet[4]))
            }
            MessageKind::Response if self.initiated == Some(packet[4]) => {
                self.has_session = true;
                Some(message(4, 0))
            }
            MessageKind::Data => {
                self.has_session |= self.is_next;
                None
            }
            MessageKind::Response | MessageKind::Cookie => None,
        }
    }
}

/// What happens at a time: a packet reaches the WireGuard or the proxy of a side, or a side begins.
#[derive(Debug)]
enum Event {
    Begin(usize),
    AtWireGuard(usize, Vec<u8>),
    FromWireGuard(usize, Vec<u8>),
    FromPeer(usize, Vec<u8>),
    Look(usize),
}

struct World {
    events: BTreeMap<(u64, u64), Event>,
    order: u64,
    sides: [WireGuard; 2],
    proxies: Option<[Handshakes; 2]>,
    /// Until when nothing passes between the sides.
    cut_until: u64,
}

impl World {
    fn new(with_proxies: bool, begins: [u64; 2]) -> Self {
        let mut keys = [1, 2].map(|seed| NodePrivate::from_random([seed; 32]).public());
        keys.sort();
        let [one, other] = keys;
        let proxies = with_proxies.then(|| [Handshakes::new(&one, &other), Handshakes::new(&other, &one)]);
        let mut world =
            Self { events: BTreeMap::new(), order: 0, sides: Default::default(), proxies, cut_until: 0 };
        for (side, at) in begins.into_iter().enumerate() {
            world.at(at, Event::Begin(side));
        }
        world
    }

    fn at(&mut self, time: u64, event: Event) {
        self.order += 1;
        self.events.insert((time, self.order), event);
    }

    fn towards_peer(&mut self, now: u64, from: usize, packet: Vec<u8>) {
        if now >= self.cut_until {
            self.at(now + TRIP, Event::FromPeer(1 - from, packet));
        }
    }

    /// Runs until both sides have a session. Returns when, in milliseconds.
    fn run(&mut self) -> Option<u64> {
        while let Some(((now, _), event)) = self.events.pop_first() {
            if now > 60_000 {
                return None;
            }
            let instant = Instant::from(Duration::from_millis(now));
            match event {
                Event::Begin(side) => {
                    if !self.sides[side].has_session {
                        let packet = self.sides[side].initiate();
                        self.at(now + LOCAL, Event::FromWireGuard(side, packet));
                        self.at(now + 5000, Event::Begin(side));
                    }
                }
                Event::AtWireGuard(side, packet) => {
                    if let Some(answer) = self.sides[side].receive(&packet) {
                        self.at(now + LOCAL, Event::FromWireGuard(side, answer));
                    }
                }
                Event::FromWireGuard(side, packet) => {
                    let kind = MessageKind::of(&packet).expect("WireGuard's");
                    let verdict =
                        self.proxies.as_mut().map(|proxies| proxies[side].outgoing(kind, &packet, instant));
                    match verdict {
                        Some(Verdict::Keep) => self.look_later(side),
                        _ => self.towards_peer(now, side, packet),
                    }
                }
                Event::FromPeer(side, packet) => {
                    let kind = MessageKind::of(&packet).expect("WireGuard's");
                    let verdict =
                        self.proxies.as_mut().map(|proxies| proxies[side].incoming(kind, &packet, instant));
                    match verdict {
                        Some(Verdict::Keep) => self.look_later(side),
                        _ => self.at(now + LOCAL, Event::AtWireGuard(side, packet)),
                    }
                }
                Event::Look(side) => {
                    let mut take = |kind| self.proxies.as_mut()?[side].take_due(kind, instant);
                    let (incoming, outgoing) = (take(Kept::Incoming), take(Kept::Outgoing));
                    if let Some(packet) = incoming {
                        self.at(now + LOCAL, Event::AtWireGuard(side, packet.into()));
                    }
                    if let Some(packet) = outgoing {
                        self.towards_peer(now, side, packet.into());
                    }
                }
            }
            if self.sides.iter().all(|side| side.has_session) {
                return Some(now);
            }
        }
        None
    }

    fn look_later(&mut self, side: usize) {
        let due = self.proxies.as_ref().and_then(|proxies| proxies[side].due()).expect("it is kept");
        self.at(due.as_nanos() / 1_000_000, Event::Look(side));
    }
}

/// Three trips of a packet, and the two WireGuards.
const BOUND: u64 = 3 * TRIP + 10 * LOCAL;

#[test]
fn handshakes_that_cross_end_three_trips_after_the_second_began_at_any_skew() {
    for skew in 0..=100 {
        for begins in [[1000, 1000 + skew], [1000 + skew, 1000]] {
            let mut world = World::new(true, begins);
            let took = world.run().expect("a session") - begins[0].max(begins[1]);
            assert!(took <= BOUND, "{begins:?}: {took} ms");
            let is_kept = world.proxies.iter().flatten().any(|proxy| proxy.due().is_some());
            assert!(!is_kept, "{begins:?}: what was kept back would void the session");
        }
    }
}

#[test]
fn without_the_proxies_they_cross_again_and_again() {
    assert_eq!(World::new(false, [1000, 1010]).run(), None);
    assert!(World::new(false, [1000, 1100]).run().is_some_and(|at| at < 1000 + BOUND));
}

#[test]
fn an_initiation_that_is_lost_does_not_keep_the_peers_back_for_long() {
    // The first side begins when nothing passes, and its own initiation would count.
    let mut world = World::new(true, [1000, 1500]);
    world.cut_until = 1200;
    let took = world.run().expect("a session") - 1500;
    assert!(took <= ANSWER.as_millis() as u64 - 500 + BOUND, "{took} ms");
}

#[test]
fn an_initiation_without_an_answer_is_sent_again_for_five_seconds() {
    let at = |millis| Instant::from(Duration::from_millis(millis));
    let [one, other] = [1, 2].map(|seed| NodePrivate::from_random([seed; 32]).public());
    let mut handshakes = Handshakes::new(&one, &other);
    let (initiation, response) = (message(1, 1), message(2, 1));
    assert_eq!(handshakes.again(at(0)), None);
    assert_eq!(handshakes.outgoing(MessageKind::Initiation, &initiation, at(1000)), Verdict::Pass);
    assert_eq!(handshakes.again(at(5999)).as_deref(), Some(&initiation[..]));
    assert_eq!(handshakes.again(at(10_999)), None, "WireGuard has another by now");
    handshakes.outgoing(MessageKind::Initiation, &initiation, at(11_000));
    assert_eq!(handshakes.incoming(MessageKind::Response, &response, at(11_100)), Verdict::Pass);
    assert_eq!(handshakes.again(at(11_101)), None, "it was answered");
}
