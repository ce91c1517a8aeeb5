//! The node with what surrounds it, and what must be true of it.
//!
//! Each event causes a bounded number of packets, and time passes without the node asking to be called for ever. It sends to no
//! address that hosts of others cannot have, pings an IP address that has not answered sixteen times a minute, besides two for each
//! ping from there, and probes the size of a path only where a ping was answered. A peer is direct nowhere but where it has
//! answered, data from elsewhere is of no peer, and while a relay is there, each packet of the application has a way.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use towpath_disco::datagram::{Received, Region, RelayEvent, Transmit};
use towpath_disco::hello::{Challenge, Hello};
use towpath_disco::{Node, PeerConfig};
use towpath_stun_proto::{RESPONSE_MAX_LEN, Request, TransactionId, write_response};
use towpath_wire::disco::datagram::DatagramKind;
use towpath_wire::disco::looks_like_disco;
use towpath_wire::disco::message::{Message, Ping, TxId};
use towpath_wire::disco::packet::DiscoPacket;
use towpath_wire::time::Instant;

use super::peer::{NODE_KEY, PEERS, Peer, config, is_allowed, source, stun_servers};
use super::{Pick, Way};

/// Packets that one event causes at most: 4 to STUN servers, a pong, and of each of two peers 4 offers and 130 probes, which are
/// so many if the host slept while they were due.
const MOST_CAUSED: usize = 4 + 1 + 2 * (4 + 130);
/// Bytes of a hello with 8 addresses, the longest packet but for pings that probe a size.
const LONGEST: usize = 62 + 16 + 43 + 8 * 18;
/// Pings to an IP address that has not answered, and the time over which they are counted.
const PROBES: usize = 16;
const WINDOW: Duration = Duration::from_secs(60);
/// Pings that a ping from an address is worth.
const CREDIT: usize = 2;
/// Calls after which nothing is due any more at a time: STUN servers are asked four times before they are given up.
const MOST_CALLS: usize = 8;
/// Pings of the node that may be answered.
const MOST_PINGS: usize = 32;

/// A ping of the node.
struct SentPing {
    peer: usize,
    disco: usize,
    tx: TxId,
    dst: SocketAddr,
}

/// What has happened between the node and an IP address.
#[derive(Default)]
struct Host {
    /// When the node has pinged it, and when a peer has pinged the node from there.
    pinged: VecDeque<Instant>,
    heard: VecDeque<Instant>,
    has_answered: bool,
}

/// A node, and all that it has to do with.
pub(super) struct World {
    node: Node,
    now: Instant,
    pings: VecDeque<SentPing>,
    hosts: BTreeMap<IpAddr, Host>,
    /// The addresses from which a peer has pinged or answered, and those where it has answered.
    heard: BTreeSet<(usize, SocketAddr)>,
    answered: BTreeSet<(usize, SocketAddr)>,
    challenges: [Option<Challenge>; 2],
    requests: BTreeMap<SocketAddr, TransactionId>,
    links: BTreeSet<Region>,
}

impl World {
    pub(super) fn new(pick: u8) -> Self {
        let mut world = Self {
            node: Node::new(config(pick)),
            now: Instant::from(Duration::from_secs(1)),
            pings: VecDeque::new(),
            hosts: BTreeMap::new(),
            heard: BTreeSet::new(),
            answered: BTreeSet::new(),
            challenges: [None; 2],
            requests: BTreeMap::new(),
            links: BTreeSet::new(),
        };
        world.set_interfaces([6, 5]);
        world.hear_relay(Region(1), 0, 0);
        (0..2).for_each(|peer| world.set_peer(peer, true));
        world
    }

    pub(super) fn set_interfaces(&mut self, picks: [Pick; 2]) {
        self.node.handle_interfaces(self.now, &picks.map(source));
        self.take();
    }

    /// The first peer is known by its node key alone, the second one as a control plane knows it.
    pub(super) fn set_peer(&mut self, pick: Pick, is_there: bool) {
        let number = usize::from(pick % 2);
        let Peer { key, discos, .. } = &PEERS[number];
        if is_there {
            let is_known = number == 1;
            let config = PeerConfig {
                key: *key,
                region: is_known.then_some(Region(1)),
                disco: is_known.then_some(discos[0].0),
                addresses: if is_known { vec![source(1)] } else { vec![] },
                is_relay_only: false,
            };
            self.node.set_peer(&config, self.now);
        } else {
            self.node.remove_peer(key);
        }
        self.take();
    }

    pub(super) fn hear_relay(&mut self, region: Region, event: Pick, peer: Pick) {
        let event = match event % 4 {
            0 => RelayEvent::Up(region),
            1 => RelayEvent::Down(region),
            2 => RelayEvent::RoundTrip { region, took: Duration::from_millis(peer.into()) },
            _ => RelayEvent::PeerGone { region, peer: PEERS[usize::from(peer % 2)].key },
        };
        match event {
            RelayEvent::Up(_) | RelayEvent::RoundTrip { .. } => _ = self.links.insert(region),
            RelayEvent::Down(_) => _ = self.links.remove(&region),
            RelayEvent::PeerGone { .. } | RelayEvent::Attested { .. } | RelayEvent::Heard(_) => {}
        }
        self.node.handle_relay(self.now, event);
        self.take();
    }

    /// Lets time pass, and does what is due in time.
    pub(super) fn wait(&mut self, millis: u16) {
        let end = self.now + Duration::from_millis(millis.into());
        while let Some(due) = self.node.poll_timeout().filter(|due| *due <= end) {
            self.now = self.now.max(due);
            self.do_due();
        }
        self.now = end;
    }

    /// Lets time pass, and does what is due afterwards.
    pub(super) fn sleep(&mut self, seconds: u16) {
        self.now += Duration::from_secs(seconds.into());
        self.do_due();
    }

    fn do_due(&mut self) {
        for _ in 0..MOST_CALLS {
            self.node.handle_timeout(self.now);
            self.take();
            if self.node.poll_timeout().is_none_or(|due| due > self.now) {
                return;
            }
        }
        panic!("what is due at {:?} is never done", self.now);
    }

    pub(super) fn route(&mut self, pick: Pick, len: usize) {
        let number = usize::from(pick % 2);
        let peer = &PEERS[number];
        let is_known = self.node.why(&peer.key, self.now).is_some();
        let route = self.node.route(self.now, &peer.key, len);
        self.take();
        let has_way = route.direct.is_some() || route.relay.is_some();
        assert!(if is_known { has_way || self.links.is_empty() } else { !has_way }, "{route:?}");
        assert!(route.direct.is_none_or(|direct| self.answered.contains(&(number, direct))), "{route:?}");
    }

    /// Hands the node a packet of a peer.
    pub(super) fn hear(&mut self, pick: Pick, way: Way, packet: &[u8]) {
        let number = usize::from(pick % 2);
        let received = match way {
            Way::Udp(pick) => Received::Udp { remote: source(pick) },
            Way::Relay(region) => {
                Received::Relay { region: Region(u16::from(region % 6)), peer: PEERS[number].key }
            }
        };
        let of = self.node.handle_packet(self.now, received, packet);
        self.take();
        let Some(of) = of else { return };
        assert!(!looks_like_disco(packet), "the application gets no disco");
        let of = PEERS.iter().position(|peer| peer.key == of).expect("one of the peers");
        match received {
            Received::Udp { remote } => assert!(self.heard.contains(&(of, remote)), "data from {remote}"),
            Received::Relay { .. } => assert_eq!(of, number),
        }
    }

    pub(super) fn hear_data(&mut self, peer: Pick, way: Way, bytes: &[u8]) {
        self.hear(peer, way, &[&[4, 0, 0, 0][..], bytes].concat());
    }

    pub(super) const fn challenge(&self, peer: Pick) -> Option<Challenge> {
        self.challenges[(peer % 2) as usize]
    }

    pub(super) fn hear_hello(&mut self, peer: Pick, disco: Pick, hello: &Hello) {
        let Peer { discos, hello: shared, .. } = &PEERS[usize::from(peer % 2)];
        let mut packet = Vec::new();
        hello.seal(&discos[usize::from(disco % 2)].0, shared, &[6; 24], &mut packet);
        self.hear(peer, Way::Relay(1), &packet);
    }

    pub(super) fn hear_hello_text(&mut self, peer: Pick, disco: Pick, text: &[u8]) {
        let Peer { discos, hello, .. } = &PEERS[usize::from(peer % 2)];
        let packet = Peer::sealed(&discos[usize::from(disco % 2)].0, hello, text);
        self.hear(peer, Way::Relay(1), &packet);
    }

    pub(super) fn hear_message(&mut self, peer: Pick, disco: Pick, way: Way, message: &Message) {
        let mut text = Vec::new();
        message.encode(&mut text);
        self.hear_text(peer, disco, way, &text);
    }

    pub(super) fn hear_text(&mut self, peer: Pick, disco: Pick, way: Way, text: &[u8]) {
        if let (Way::Udp(pick), Ok(Message::Ping(ping))) = (way, Message::decode(text)) {
            let remote = source(pick);
            let named = PEERS.iter().position(|known| Some(known.key) == ping.node_key);
            self.heard
                .extend([Some(usize::from(peer % 2)), named].into_iter().flatten().map(|of| (of, remote)));
            self.hosts.entry(remote.ip()).or_default().heard.push_back(self.now);
        }
        let (disco, shared) = &PEERS[usize::from(peer % 2)].discos[usize::from(disco % 2)];
        self.hear(peer, way, &Peer::sealed(disco, shared, text));
    }

    pub(super) fn hear_ping(&mut self, peer: Pick, disco: Pick, way: Way, named: Pick) {
        let tx = TxId([named; 12]);
        let node_key = PEERS.get(usize::from(named % 3)).map(|peer| peer.key);
        self.hear_message(peer, disco, way, &Message::Ping(Ping { tx, node_key, padding: 0 }));
    }

    /// Answers a ping of the node.
    pub(super) fn hear_pong(&mut self, ping: Pick, elsewhere: Option<Way>) {
        if self.pings.is_empty() {
            return;
        }
        let SentPing { peer, disco, tx, dst } = self.pings[usize::from(ping) % self.pings.len()];
        let mut text = Vec::new();
        Message::Pong { tx, source: dst }.encode(&mut text);
        let number = peer as u8;
        let is_from = |way: &Way| matches!(way, Way::Udp(pick) if source(*pick) == dst);
        if let Some(way) = elsewhere.filter(|way| !is_from(way)) {
            return self.hear_text(number, disco as u8, way, &text);
        }
        self.heard.insert((peer, dst));
        self.answered.insert((peer, dst));
        self.hosts.entry(dst.ip()).or_default().has_answered = true;
        let (disco, shared) = &PEERS[peer].discos[disco];
        let packet = Peer::sealed(disco, shared, &text);
        assert_eq!(self.node.handle_packet(self.now, Received::Udp { remote: dst }, &packet), None);
        self.take();
    }

    /// Answers the last request to a STUN server.
    pub(super) fn answer_stun(&mut self, server: Pick, seen: Pick) {
        let server = stun_servers()[usize::from(server) % stun_servers().len()];
        let Some(transaction) = self.requests.get(&server) else { return };
        let mut response = [0; RESPONSE_MAX_LEN];
        let len = write_response(&mut response, *transaction, source(seen));
        let received = Received::Udp { remote: server };
        assert_eq!(self.node.handle_packet(self.now, received, &response[..len]), None);
        self.take();
    }

    /// Checks what the node says of its paths.
    pub(super) fn check_paths(&mut self) {
        for (number, peer) in PEERS.iter().enumerate() {
            if let Some(direct) = self.node.direct(&peer.key) {
                assert!(self.answered.contains(&(number, direct)), "direct at {direct}");
            }
            if let Some(why) = self.node.why(&peer.key, self.now) {
                assert!(why.tried.len() <= 16 && !why.to_string().is_empty());
            }
        }
        while self.node.poll_event().is_some() {}
    }

    /// Takes what the last event has caused.
    fn take(&mut self) {
        let (mut count, mut packet) = (0, Vec::new());
        while let Some(transmit) = self.node.poll_transmit(&mut packet) {
            count += 1;
            match transmit {
                Transmit::Udp { dst, .. } => self.check_datagram(dst, &packet),
                Transmit::Ping { region } => assert!(self.links.contains(&region), "a ping without a link"),
                Transmit::Redial { .. } => assert!(packet.is_empty()),
                Transmit::Upnp { .. } => panic!("the node was told of no gateway"),
                Transmit::Relay { peer, .. } => {
                    let number = PEERS.iter().position(|known| known.key == peer).expect("one of the peers");
                    assert!(looks_like_disco(&packet) && packet.len() <= LONGEST);
                    if let Some((_, hello)) = Hello::open(&packet, &PEERS[number].hello) {
                        self.challenges[number] = Some(hello.challenge);
                    }
                }
            }
        }
        assert!(count <= MOST_CAUSED, "{count} packets at once");
    }

    fn check_datagram(&mut self, dst: SocketAddr, packet: &[u8]) {
        assert!(is_allowed(dst), "a packet to {dst}");
        if DatagramKind::of(packet) == DatagramKind::Stun {
            assert!(stun_servers().contains(&dst));
            let request = Request::parse(packet).expect("a request");
            self.requests.insert(dst, request.transaction());
            return;
        }
        let split = DiscoPacket::split(packet).expect("STUN or disco");
        let opened = PEERS.iter().enumerate().find_map(|(peer, known)| {
            let open = |disco: usize| Some((peer, disco, split.open(&known.discos[disco].1).ok()?));
            (0..2).find_map(open)
        });
        match opened.expect("it is for one of the peers") {
            (peer, disco, Message::Ping(Ping { tx, node_key, padding })) => {
                assert_eq!(node_key, Some(*NODE_KEY));
                assert!(padding == 0 || self.answered.contains(&(peer, dst)), "a size is probed at {dst}");
                self.count_ping(dst);
                if self.pings.len() == MOST_PINGS {
                    self.pings.pop_front();
                }
                self.pings.push_back(SentPing { peer, disco, tx, dst });
            }
            (peer, _, Message::Pong { source, .. }) => {
                assert!(source == dst && self.heard.contains(&(peer, dst)), "a pong to {dst}");
            }
            (.., other) => panic!("{other:?} on UDP"),
        }
    }

    fn count_ping(&mut self, dst: SocketAddr) {
        let now = self.now;
        let Host { pinged, heard, has_answered } = self.hosts.entry(dst.ip()).or_default();
        pinged.push_back(now);
        for times in [&mut *pinged, heard] {
            while times.front().is_some_and(|oldest| now.since(*oldest) >= WINDOW) {
                times.pop_front();
            }
        }
        let most = PROBES + CREDIT * heard.len();
        assert!(*has_answered || pinged.len() <= most, "{} pings in a minute to {dst}", pinged.len());
    }
}
