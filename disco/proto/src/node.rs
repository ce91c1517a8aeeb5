//! All peers of a node: which of them a packet is from, and when each is looked at.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use foldhash::quality::FixedState;
use towpath_wire::disco::datagram::DatagramKind;
use towpath_wire::disco::key::DiscoPublic;
use towpath_wire::disco::looks_like_disco;
use towpath_wire::disco::message::{Message, Ping, TxId};
use towpath_wire::disco::packet::{DiscoPacket, seal};
use towpath_wire::key::NodePublic;
use towpath_wire::time::Instant;

use crate::config::{GatewayConfig, NodeConfig, PeerConfig};
use crate::context::Context;
use crate::datagram::{Received, Region, RelayEvent, Route, Transmit};
use crate::doubles::{Doubles, Way};
use crate::echo::Echoes;
use crate::endpoints::Answered;
use crate::event::Event;
use crate::hello::Hello;
use crate::owners::Owners;
use crate::peer::Peer;
use crate::peer::why::Why;
use crate::portmap::{PortMap, PortMapping, UpnpAnswer};
use crate::random::Random;

/// How long after data to any peer the addresses of this node are kept fresh.
const ACTIVE: Duration = Duration::from_secs(45);
/// When the STUN servers are asked again while the node is active: before a NAT forgets the mapping.
const REFRESH: Duration = Duration::from_secs(23);
/// The address by which upstream names a relay in a pong (`tailcfg.DerpMagicIP`); the port is the region.
const RELAY_ADDRESS: Ipv4Addr = Ipv4Addr::new(127, 3, 3, 40);

/// A node with all its peers.
///
/// It takes 16 KiB of memory at most for each peer, whatever the peer does, about 3 KiB for one that is direct and idle, and 2 MiB
/// for what all peers share. At most 16,384 packets wait for [`poll_transmit`](Self::poll_transmit).
pub struct Node {
    ctx: Context,
    /// In the order of keys, so that the same input leads to the same output.
    peers: BTreeMap<NodePublic, Peer>,
    owners: Owners,
    /// The peers that were heard at an address. Looked up for each packet; with a secret, as others choose the addresses.
    by_address: HashMap<SocketAddr, NodePublic, FixedState>,
    /// One entry for each peer that is due.
    due: BTreeSet<(Instant, NodePublic)>,
    doubles: Doubles,
    echoes: Echoes,
    active_until: Instant,
    refresh_at: Option<Instant>,
}

impl Node {
    /// Creates a node without peers.
    #[must_use]
    pub fn new(config: NodeConfig) -> Self {
        let mut ctx = Context::new(config);
        let doubles = Doubles::new(ctx.random.bytes());
        let by_address = FixedState::with_seed(u64::from_le_bytes(ctx.random.bytes()));
        Self {
            ctx,
            peers: BTreeMap::new(),
            owners: Owners::default(),
            by_address: HashMap::with_hasher(by_address),
            due: BTreeSet::new(),
            doubles,
            echoes: Echoes::default(),
            active_until: Instant::ZERO,
            refresh_at: None,
        }
    }

    /// The disco key of this node, for a control plane. It is another one at each start.
    #[must_use]
    pub const fn disco_key(&self) -> DiscoPublic {
        self.ctx.disco_public
    }

    /// The addresses under which this node may be reached, the most useful first, for a control plane.
    #[must_use]
    pub fn endpoints(&self) -> Vec<SocketAddr> {
        self.ctx.endpoints.offered()
    }

    /// What has come of asking the gateway for a port.
    #[must_use]
    pub fn port_mapping(&self) -> PortMapping {
        self.ctx.port_mapping()
    }

    /// The regions to whose relays the driver keeps links up: the home, and the one that takes its place if that is lost.
    /// [`Event::Home`] says when they change.
    #[must_use]
    pub const fn homes(&self) -> [Option<Region>; 2] {
        let homes = self.ctx.homes();
        [homes.home, homes.standby]
    }

    /// Takes a peer in, or what is said of one now. The path to a known one stays, and so does what the peer has said itself.
    pub fn set_peer(&mut self, config: &PeerConfig, now: Instant) {
        if self.with_peer(&config.key, now, |peer, ctx| peer.update(config, now, ctx)).is_none() {
            self.peers.insert(config.key, Peer::new(config, &self.ctx, now));
            self.index(&config.key, now);
        }
    }

    /// Forgets a peer. Nothing is sent to it any more.
    pub fn remove_peer(&mut self, key: &NodePublic) {
        let Some(peer) = self.peers.remove(key) else { return };
        if let Some(due) = peer.due {
            self.due.remove(&(due, *key));
        }
        self.owners.change(*key, peer.indexed, None);
        self.by_address.retain(|_, owner| owner != key);
    }

    /// Takes the addresses of the interfaces, with the port of the UDP socket. Other ones than before, in whatever order, are
    /// another network. Loopback and link-local addresses count only where there are no others. Returns whether it is another
    /// network.
    pub fn handle_interfaces(&mut self, now: Instant, addresses: &[SocketAddr]) -> bool {
        if !self.ctx.endpoints.set_interfaces(addresses) {
            return false;
        }
        self.handle_network_change(now);
        self.ctx.with_portmap(|portmap, _| portmap.move_network(addresses, now));
        self.ctx.gather(now);
        self.ctx.measure(true, now);
        for key in self.keys() {
            self.with_peer(&key, now, |peer, ctx| peer.move_network(now, ctx));
        }
        true
    }

    /// Asks the relays for answers, because something has changed in the network of this host, as a route: a link that does not
    /// answer is dialled anew. [`handle_interfaces`](Self::handle_interfaces) does so in another network.
    pub fn handle_network_change(&mut self, now: Instant) {
        let wanted = self.ctx.links.move_network(now);
        self.ctx.send_to_relays(wanted);
    }

    /// Takes the gateway, which is asked for a port if its address is a private one. To be called after
    /// [`handle_interfaces`](Self::handle_interfaces). Another one than before is another network; the port is given back to the
    /// one before.
    pub fn handle_gateway(&mut self, now: Instant, gateway: Option<GatewayConfig>) {
        self.with_portmap(now, |portmap, random| portmap.set_gateway(gateway, now, random));
    }

    /// Takes what has come of a [request for a port](crate::UpnpRequest::Map) to `gateway`.
    pub fn handle_upnp(&mut self, now: Instant, gateway: GatewayConfig, answer: UpnpAnswer) {
        self.with_portmap(now, |portmap, _| portmap.handle_upnp(gateway, answer, now));
    }

    /// Gives back what the gateway forwards, as before the node ends.
    pub fn close(&mut self) {
        self.ctx.with_portmap(|portmap, _| portmap.close());
    }

    /// Takes what has become known of a relay.
    pub fn handle_relay(&mut self, now: Instant, event: RelayEvent) {
        match event {
            RelayEvent::Up(region) => {
                self.ctx.links.up(region, now);
                for key in self.keys() {
                    self.with_peer(&key, now, |peer, ctx| peer.connected(now, ctx));
                }
            }
            RelayEvent::Down(region) => self.ctx.links.down(region, now),
            RelayEvent::Heard(region) => self.ctx.links.hear(region, now),
            RelayEvent::RoundTrip { region, took } => self.ctx.links.measured(region, took, now),
            RelayEvent::Attested { peer, address, .. } => {
                self.with_peer(&peer, now, |peer, ctx| peer.attest(address, now, ctx));
            }
            RelayEvent::PeerGone { region, peer } => {
                self.with_peer(&peer, now, |peer, ctx| peer.gone_from(region, now, ctx));
            }
        }
        self.settle_homes(now);
    }

    /// Tells the peers if this node is reached in another region than before.
    fn settle_homes(&mut self, now: Instant) {
        if self.ctx.settle_homes(now) {
            for key in self.keys() {
                self.with_peer(&key, now, |peer, ctx| peer.announce(now, ctx));
            }
        }
    }

    /// The ways for a datagram of `len` bytes to a peer; none for a peer that is not known.
    pub fn route(&mut self, now: Instant, peer: &NodePublic, len: usize) -> Route {
        self.route_for(now, peer, (len, false))
    }

    /// As [`route`](Self::route), over a relay as well where there is a direct path: for the few datagrams whose loss costs seconds.
    pub fn route_both_ways(&mut self, now: Instant, peer: &NodePublic, len: usize) -> Route {
        self.route_for(now, peer, (len, true))
    }

    fn route_for(&mut self, now: Instant, peer: &NodePublic, datagram: (usize, bool)) -> Route {
        self.active_until = now + ACTIVE;
        if self.refresh_at.is_none() {
            self.refresh_at = Some(now + REFRESH);
        }
        self.ctx.links.note_use(now);
        let route = self.with_peer(peer, now, |peer, ctx| peer.route(datagram, now, ctx)).unwrap_or_default();
        for region in [route.relay, route.standby].into_iter().flatten() {
            if self.ctx.links.ping(region, now) {
                self.ctx.send(Transmit::Ping { region }, Vec::new());
            }
        }
        route
    }

    /// Sends a ping to a peer by the way that data takes: directly, or else over a relay. [`Event::Pong`] follows if it is answered.
    /// Returns whether it was sent: nothing can be asked of a peer before it has answered the first hello, which this sends. Stock
    /// clients answer as well.
    pub fn ping(&mut self, now: Instant, peer: &NodePublic) -> bool {
        let route = self.route(now, peer, 0);
        let (way, transmit) = match (route.direct, route.relay.or(route.standby)) {
            (Some(dst), _) => (Received::Udp { remote: dst }, Transmit::Udp { src: None, dst, ttl: None }),
            (None, Some(region)) => {
                (Received::Relay { region, peer: *peer }, Transmit::Relay { region, peer: *peer })
            }
            (None, None) => return false,
        };
        let Some(shared) = self.peers.get(peer).and_then(Peer::shared) else { return false };
        let (tx, nonce) = (TxId(self.ctx.random.bytes()), self.ctx.random.bytes());
        let (ping, mut packet) =
            (Message::Ping(Ping { tx, node_key: Some(self.ctx.public), padding: 0 }), Vec::new());
        seal(&self.ctx.disco_public, shared, &nonce, &ping, &mut packet);
        self.ctx.send(transmit, packet);
        self.echoes.note(tx, *peer, way, now);
        true
    }

    /// Takes the answer to a ping of the application, if it is one.
    fn hear_echo(&mut self, tx: TxId, way: Received, now: Instant) -> bool {
        let Some((peer, took)) = self.echoes.take(tx, way, now) else { return false };
        self.ctx.tell(Event::Pong { peer, way, took });
        true
    }

    /// Takes a packet. Returns the peer whose data it is, if it is the application's and has not come over another way before.
    /// Packets of the application are WireGuard's: those of one length differ in their first or their last 40 bytes.
    pub fn handle_packet(&mut self, now: Instant, received: Received, packet: &[u8]) -> Option<NodePublic> {
        let (peer, way) = match received {
            // PCP begins as WireGuard does.
            Received::Udp { remote } if self.ctx.portmap.is_gateway(remote) => {
                self.with_portmap(now, |portmap, _| portmap.handle_answer(packet, now));
                return None;
            }
            Received::Udp { remote } => match DatagramKind::of(packet) {
                DatagramKind::Stun => {
                    self.handle_stun(remote, packet, now);
                    return None;
                }
                DatagramKind::Disco => {
                    self.handle_disco(remote, packet, now);
                    return None;
                }
                // No UDP relay is used.
                DatagramKind::GeneveDisco | DatagramKind::GeneveWireGuard => return None,
                DatagramKind::WireGuard => (*self.by_address.get(&remote)?, Way::Direct),
            },
            Received::Relay { region, peer } => {
                self.ctx.links.hear(region, now);
                self.peers.get_mut(&peer)?.hear_in(region);
                self.ctx.links.note_packet(region, now);
                if looks_like_disco(packet) {
                    self.handle_relayed_disco(peer, region, packet, now);
                    return None;
                }
                (peer, Way::Relay(region))
            }
        };
        (!self.doubles.is_double(&peer, packet, way, now)).then_some(peer)
    }

    fn handle_stun(&mut self, remote: SocketAddr, packet: &[u8], now: Instant) {
        let was_blocked = self.ctx.endpoints.is_blocked();
        let answered = self.ctx.endpoints.handle_response(remote, packet, now);
        if was_blocked && !self.ctx.endpoints.is_blocked() {
            self.peers.values_mut().for_each(|peer| peer.unblocked(now));
        }
        match answered {
            Answered::All => self.gathered(now),
            Answered::One => {}
            Answered::Nothing => {
                if self.ctx.regions.handle_response(remote, packet, &self.ctx.links, now) {
                    self.settle_homes(now);
                }
            }
        }
    }

    /// Sends the offers that have waited for the STUN servers.
    fn gathered(&mut self, now: Instant) {
        for key in self.keys() {
            self.with_peer(&key, now, |peer, ctx| peer.gathered(now, ctx));
        }
    }

    /// Takes a disco packet on UDP. Its sender is known before anything is computed with its key.
    fn handle_disco(&mut self, remote: SocketAddr, packet: &[u8], now: Instant) {
        let Some(packet) = DiscoPacket::split(packet) else { return };
        let Some(owner) = self.owners.of(packet.sender).next() else { return };
        let Some(shared) = self.peers.get(&owner).and_then(Peer::shared) else { return };
        match packet.open(shared) {
            Ok(Message::Ping(ping)) => self.hear_ping(packet.sender, &ping, remote, now),
            Ok(Message::Pong { tx, .. }) if self.hear_echo(tx, Received::Udp { remote }, now) => {}
            Ok(Message::Pong { tx, .. }) => self.hear_pong(packet.sender, tx, remote, now),
            // What else there is comes over relays only, is of UDP relays, or is of another version.
            Ok(Message::CallMeMaybe(_) | Message::UdpRelay(_)) | Err(_) => {}
        }
    }

    /// Takes a ping on UDP. One of which it is not certain which peer has sent it is answered, and says of none where it is.
    fn hear_ping(&mut self, disco: DiscoPublic, ping: &Ping, remote: SocketAddr, now: Instant) {
        let Some(key) = self.owners.sender(disco, ping.node_key) else {
            let peer = self.owners.of(disco).next().and_then(|first| self.peers.get(&first));
            if let Some(peer) = peer {
                peer.answer_ping(ping.tx, remote, &mut self.ctx);
            }
            return;
        };
        self.with_peer(&key, now, |peer, ctx| peer.hear_ping(ping.tx, remote, now, ctx));
        // A ping does not prove where its sender is, and a peer that is direct there has proved it.
        let is_direct =
            |other: &Peer| other.path().is_some_and(|path| path.address == remote && !path.is_suspected(now));
        let other = self.other_at(remote, &key).filter(|other| other.disco_key() != Some(disco));
        if !other.is_some_and(is_direct) {
            self.note_address(remote, key);
        }
    }

    /// Takes a pong on UDP. It does not say which of the peers with its disco key has sent it: the one that has been probed.
    fn hear_pong(&mut self, disco: DiscoPublic, tx: TxId, remote: SocketAddr, now: Instant) {
        let owners: Vec<_> = self.owners.of(disco).collect();
        let answered = owners.into_iter().find(|key| {
            self.with_peer(key, now, |peer, ctx| peer.hear_pong(tx, remote, now, ctx)) == Some(true)
        });
        // Another peer may claim the disco key without having it. Only pings name their sender.
        if let Some(key) = answered
            && self.other_at(remote, &key).is_none_or(|other| other.disco_key() != Some(disco))
        {
            self.note_address(remote, key);
        }
    }

    /// The peer other than that with this key whose data comes from `remote`.
    fn other_at(&self, remote: SocketAddr, key: &NodePublic) -> Option<&Peer> {
        self.peers.get(self.by_address.get(&remote).filter(|other| *other != key)?)
    }

    /// Notes that data from `remote` is of the peer with this key.
    fn note_address(&mut self, remote: SocketAddr, key: NodePublic) {
        let Some(peer) = self.peers.get_mut(&key) else { return };
        if let Some(forgotten) = peer.note_address(remote)
            && self.by_address.get(&forgotten) == Some(&key)
        {
            self.by_address.remove(&forgotten);
        }
        self.by_address.insert(remote, key);
    }

    /// Takes a disco packet of `peer` that came over a relay: a hello, a CallMeMaybe, or a ping of `tailscale ping`.
    fn handle_relayed_disco(&mut self, key: NodePublic, region: Region, packet: &[u8], now: Instant) {
        let Some(split) = DiscoPacket::split(packet) else { return };
        let Some(peer) = self.peers.get_mut(&key) else { return };
        let opened = peer
            .shared()
            .filter(|_| peer.disco_key() == Some(split.sender))
            .and_then(|shared| split.open(shared).ok());
        match opened {
            Some(Message::CallMeMaybe(offered)) => {
                self.with_peer(&key, now, |peer, ctx| peer.hear_call_me_maybe(&offered, now, ctx));
            }
            Some(Message::Ping(Ping { tx, .. })) => self.answer_relayed_ping(&key, tx, region),
            Some(Message::Pong { tx, .. }) => {
                self.hear_echo(tx, Received::Relay { region, peer: key }, now);
            }
            Some(Message::UdpRelay(_)) => {}
            None => {
                let shared = peer.hello_key(&self.ctx);
                let Some((disco, hello)) = Hello::open(packet, shared) else { return };
                let before = peer.disco_key();
                self.with_peer(&key, now, |peer, ctx| peer.hear_hello(disco, &hello, region, now, ctx));
                if self.peers.get(&key).and_then(Peer::disco_key) != before {
                    self.ctx.tell(Event::Introduced { peer: key, region });
                }
            }
        }
    }

    fn answer_relayed_ping(&mut self, key: &NodePublic, tx: TxId, region: Region) {
        let Some(shared) = self.peers.get(key).and_then(Peer::shared) else { return };
        let source = SocketAddr::new(IpAddr::V4(RELAY_ADDRESS), region.0);
        let mut packet = Vec::new();
        let nonce = self.ctx.random.bytes();
        seal(&self.ctx.disco_public, shared, &nonce, &Message::Pong { tx, source }, &mut packet);
        self.ctx.send(Transmit::Relay { region, peer: *key }, packet);
    }

    /// Does what is due.
    pub fn handle_timeout(&mut self, now: Instant) {
        if self.ctx.endpoints.due().is_some_and(|due| due <= now) {
            let Context { endpoints, random, .. } = &mut self.ctx;
            let (is_over, requests) = endpoints.handle_timeout(now, random);
            for (dst, request) in requests {
                self.ctx.send(Transmit::Udp { src: None, dst, ttl: None }, request);
            }
            if is_over {
                self.gathered(now);
            }
        }
        let (is_chosen, requests) = {
            let Context { regions, links, random, .. } = &mut self.ctx;
            regions.handle_timeout(links, now, random)
        };
        for (dst, request) in requests {
            self.ctx.send(Transmit::Udp { src: None, dst, ttl: None }, request);
        }
        if is_chosen {
            self.settle_homes(now);
        }
        let wanted = self.ctx.links.handle_timeout(now);
        self.ctx.send_to_relays(wanted);
        if self.ctx.portmap.due().is_some_and(|due| due <= now) {
            self.with_portmap(now, |portmap, _| portmap.handle_timeout(now));
        }
        if self.refresh_at.is_some_and(|at| at <= now) {
            self.refresh_at = (now < self.active_until).then(|| now + REFRESH);
            if self.refresh_at.is_some() {
                self.ctx.gather(now);
                self.ctx.measure(false, now);
            }
        }
        while let Some(&(at, key)) = self.due.first()
            && at <= now
        {
            self.with_peer(&key, now, |peer, ctx| peer.handle_timeout(now, ctx));
        }
    }

    /// When [`handle_timeout`](Self::handle_timeout) is to be called. Known without a look at the peers.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        let peers = self.due.first().map(|(at, _)| *at);
        let rounds = [self.ctx.endpoints.due(), self.ctx.regions.due(), self.ctx.portmap.due()];
        rounds.into_iter().chain([peers, self.refresh_at, self.ctx.links.due()]).flatten().min()
    }

    /// Takes the next packet that is to be sent into `packet`, and returns its way.
    pub fn poll_transmit(&mut self, packet: &mut Vec<u8>) -> Option<Transmit> {
        let (transmit, next) = self.ctx.out.pop_front()?;
        packet.clear();
        packet.extend_from_slice(&next);
        Some(transmit)
    }

    /// The next event.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.ctx.events.pop_front()
    }

    /// The address of the direct path to a peer.
    #[must_use]
    pub fn direct(&self, peer: &NodePublic) -> Option<SocketAddr> {
        Some(self.peers.get(peer)?.path()?.address)
    }

    /// Why the path to a peer is what it is; `None` for a peer that is not known.
    #[must_use]
    pub fn why(&self, peer: &NodePublic, now: Instant) -> Option<Why> {
        Some(self.peers.get(peer)?.why(now, &self.ctx))
    }

    /// Calls the exchange with the gateway. If another address is forwarded then, the peers that are being made direct hear of
    /// it.
    fn with_portmap(&mut self, now: Instant, call: impl FnOnce(&mut PortMap, &mut Random)) {
        if self.ctx.with_portmap(call) {
            for key in self.keys() {
                self.with_peer(&key, now, |peer, ctx| peer.forwarded(now, ctx));
            }
        }
    }

    fn keys(&self) -> Vec<NodePublic> {
        self.peers.keys().copied().collect()
    }

    /// Calls a peer, and notes when it is due and which disco key it has then.
    fn with_peer<T>(
        &mut self,
        key: &NodePublic,
        now: Instant,
        call: impl FnOnce(&mut Peer, &mut Context) -> T,
    ) -> Option<T> {
        let result = call(self.peers.get_mut(key)?, &mut self.ctx);
        self.index(key, now);
        Some(result)
    }

    fn index(&mut self, key: &NodePublic, now: Instant) {
        let Some(peer) = self.peers.get_mut(key) else { return };
        let due = peer.next_due(now, &self.ctx);
        if due != peer.due {
            if let Some(before) = peer.due {
                self.due.remove(&(before, *key));
            }
            peer.due = due;
            self.due.extend(due.map(|due| (due, *key)));
        }
        let disco = peer.disco_key();
        if disco != peer.indexed {
            self.owners.change(*key, std::mem::replace(&mut peer.indexed, disco), disco);
        }
    }
}
