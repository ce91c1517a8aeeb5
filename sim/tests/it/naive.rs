//! A naive machine that punches: it asks two STUN servers, and at a given time sends to all that its peer was told.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::Duration;

use towpath_disco::datagram::{Received, RelayEvent, Route, Transmit};
use towpath_sim::{HostId, Machine, Seat, World};
use towpath_stun_proto::{REQUEST_LEN, Response, TransactionId, write_request};
use towpath_wire::key::NodePublic;
use towpath_wire::time::Instant;

use crate::puppet::ms;

const PING: &[u8] = b"ping";
const PONG: &[u8] = b"pong";

/// How often it sends to each endpoint, and how far apart.
const ROUNDS: u32 = 25;
const PACE: Duration = Duration::from_millis(30);

#[derive(Debug)]
pub(crate) struct Naive {
    stun: [SocketAddr; 2],
    own: Vec<SocketAddr>,
    out: VecDeque<(SocketAddr, Vec<u8>)>,
    targets: Vec<SocketAddr>,
    next: Option<Instant>,
    rounds: u32,
    /// When it first had an answer.
    pub(crate) proven: Option<Instant>,
}

impl Naive {
    pub(crate) fn new(seat: &Seat) -> Self {
        Self::asking(seat.stun)
    }

    pub(crate) const fn asking(stun: [SocketAddr; 2]) -> Self {
        Self {
            stun,
            own: Vec::new(),
            out: VecDeque::new(),
            targets: Vec::new(),
            next: None,
            rounds: 0,
            proven: None,
        }
    }

    fn add_target(&mut self, target: SocketAddr) {
        if !self.targets.contains(&target) {
            self.targets.push(target);
        }
    }
}

impl Machine for Naive {
    fn handle_packet(&mut self, now: Instant, received: Received, packet: &[u8]) -> Option<NodePublic> {
        let Received::Udp { remote } = received else { return None };
        if let Ok(response) = Response::parse(packet) {
            self.own.push(response.mapped);
        } else if packet == PING {
            self.add_target(remote);
            self.out.push_back((remote, PONG.to_vec()));
        } else if packet == PONG {
            self.proven.get_or_insert(now);
        }
        None
    }

    fn handle_relay(&mut self, _: Instant, _: RelayEvent) {}

    fn handle_interfaces(&mut self, _: Instant, addresses: &[SocketAddr]) {
        self.own = addresses.to_vec();
        let mut request = [0; REQUEST_LEN];
        write_request(&mut request, TransactionId([1; 12]));
        self.out.extend(self.stun.map(|server| (server, request.to_vec())));
    }

    fn route(&mut self, _: Instant, _: &NodePublic, _: usize) -> Route {
        Route::default()
    }

    fn handle_timeout(&mut self, now: Instant) {
        self.out.extend(self.targets.iter().map(|target| (*target, PING.to_vec())));
        self.rounds += 1;
        self.next = (self.rounds < ROUNDS).then(|| now + PACE);
    }

    fn poll_timeout(&mut self) -> Option<Instant> {
        self.next
    }

    fn poll_transmit(&mut self, _: Instant, packet: &mut Vec<u8>) -> Option<Transmit> {
        let (dst, bytes) = self.out.pop_front()?;
        packet.extend_from_slice(&bytes);
        Some(Transmit::Udp { src: None, dst, ttl: None })
    }
}

/// Lets two naive machines send to each other from the same moment. Returns when both have proven a path, from then on.
pub(crate) fn meet(world: &mut World<Naive>, hosts: [HostId; 2]) -> Option<Duration> {
    meet_skewed(world, hosts, Duration::ZERO)
}

/// The same, where the second one begins later.
pub(crate) fn meet_skewed(world: &mut World<Naive>, hosts: [HostId; 2], skew: Duration) -> Option<Duration> {
    world.run_until(world.now() + ms(1000));
    let told = hosts.map(|host| world.machine(host).own.clone());
    let start = world.now() + ms(1);
    for (host, targets, start) in [(hosts[0], &told[1], start), (hosts[1], &told[0], start + skew)] {
        world.with(host, |naive, _| {
            for target in targets {
                naive.add_target(*target);
            }
            naive.next = Some(start);
        });
    }
    let both = |world: &World<Naive>| hosts.iter().all(|host| world.machine(*host).proven.is_some());
    world.run_until_holds(start + ms(3000), both).map(|at| at.since(start))
}
