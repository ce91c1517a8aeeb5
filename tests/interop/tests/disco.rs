//! disco beside Tailscale's own crate for it: what one seals the other opens, and both find the same in it. What a node sends
//! means the same to that crate, and the node understands what the crate builds.

use std::net::{Ipv4Addr, SocketAddr};

use towpath_disco::datagram::{Received, Region, RelayEvent, Transmit};
use towpath_disco::{Node, NodeConfig, PeerConfig, RelayConfig};
use towpath_wire::disco::key::{DiscoPrivate, DiscoPublic};
use towpath_wire::disco::message::{Message, Ping, TxId};
use towpath_wire::disco::packet::{DiscoPacket, seal};
use towpath_wire::key::{NodePrivate, NodePublic};
use towpath_wire::sealed::SharedKey;
use towpath_wire::time::Instant;
use ts_disco_protocol::{CallMeMaybe, Packet, Ping as TheirPing, Plaintext, Pong, is_disco_message};
use ts_keys::{DiscoPrivateKey, DiscoPublicKey, NodePublicKey};

const RUNS: u64 = 500;
const REGION: Region = Region(7);

/// Random bytes that are the same in each run (SplitMix64).
struct Bytes(u64);

impl Bytes {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn array<const N: usize>(&mut self) -> [u8; N] {
        std::array::from_fn(|_| self.next() as u8)
    }

    fn address(&mut self) -> SocketAddr {
        let port = self.next() as u16;
        if self.next().is_multiple_of(2) {
            (self.array::<4>(), port).into()
        } else {
            (self.array::<16>(), port).into()
        }
    }

    fn message(&mut self) -> Message {
        let tx = TxId(self.array());
        match self.next() % 3 {
            0 => Message::Ping(Ping {
                tx,
                node_key: Some(NodePublic::from_bytes(self.array())),
                padding: (self.next() % 1200) as usize,
            }),
            1 => Message::Pong { tx, source: self.address() },
            _ => {
                let count = self.next() % 20;
                Message::CallMeMaybe((0..count).map(|_| self.address()).collect())
            }
        }
    }
}

/// What Tailscale's crate finds in a packet that is open.
fn theirs(packet: &Packet<Plaintext>) -> Message {
    if let Some(ping) = packet.as_msg::<TheirPing>() {
        return Message::Ping(Ping {
            tx: TxId(ping.tx_id),
            node_key: Some(ping.node_key.to_string().parse().expect("a node key")),
            padding: ping.padding.len(),
        });
    }
    if let Some(pong) = packet.as_msg::<Pong>() {
        return Message::Pong { tx: TxId(pong.tx_id), source: pong.src.socket_addr() };
    }
    let call = packet.as_msg::<CallMeMaybe>().expect("a message of the three");
    Message::CallMeMaybe(call.endpoints.iter().map(|endpoint| endpoint.socket_addr()).collect())
}

#[test]
fn tailscales_crate_opens_what_is_sealed_here_and_finds_the_same() {
    let mut bytes = Bytes(1);
    for run in 0..RUNS {
        let (ours, key) = (DiscoPrivate::from_random(bytes.array()), DiscoPrivateKey::random());
        let peer = DiscoPublic::from_bytes(key.public_key().to_crypto_box().to_bytes());
        let message = bytes.message();
        let mut sealed = Vec::new();
        seal(&ours.public(), &SharedKey::of_disco(&ours, &peer), &bytes.array(), &message, &mut sealed);
        assert!(is_disco_message(&sealed));
        let packet = Packet::from_encrypted_bytes_mut(&mut sealed).expect("a packet");
        let plain =
            packet.decrypt_in_place(&key).unwrap_or_else(|error| panic!("run {run}: {error}, {message:?}"));
        assert_eq!(theirs(plain), message, "run {run}");
    }
}

#[test]
fn what_tailscales_crate_seals_is_opened_here_with_the_same_in_it() {
    let mut bytes = Bytes(2);
    for run in 0..RUNS {
        let (ours, key) = (DiscoPrivate::from_random(bytes.array()), DiscoPrivateKey::random());
        let receiver = DiscoPublicKey::from_bytes(*ours.public().as_bytes());
        let message = bytes.message();
        let mut plain = Vec::new();
        message.encode(&mut plain);
        // Their packet is filled with the message's own bytes, behind type and version.
        let mut buffer = Packet::<Plaintext>::vec_for_message(plain.len() - 2);
        let at = buffer.len() - plain.len();
        buffer[at..].copy_from_slice(&plain);
        let packet = {
            let packet = zerocopy_packet(&mut buffer);
            packet.encrypt_in_place(&key, &receiver, bytes.array()).expect("it is sealed");
            &buffer
        };
        let packet = DiscoPacket::split(packet).expect("a packet");
        assert_eq!(packet.sender, DiscoPublic::from_bytes(key.public_key().to_crypto_box().to_bytes()));
        let shared = SharedKey::of_disco(&ours, &packet.sender);
        assert_eq!(packet.open(&shared), Ok(message), "run {run}");
    }
}

/// A packet of Tailscale's crate over these bytes, whose type and message are written already.
fn zerocopy_packet(bytes: &mut [u8]) -> &mut Packet<Plaintext> {
    #[allow(unsafe_code, reason = "the crate makes a packet of plain bytes in this way only")]
    // SAFETY: every byte pattern is a packet of plain text; the crate asks its caller not to take it for a sealed one.
    unsafe { Packet::from_bytes_unchecked_mut(bytes) }.expect("the length of a packet")
}

/// A node whose peer is played by Tailscale's crate.
struct Beside {
    bytes: Bytes,
    node: Node,
    /// The node keys of the node and of the peer.
    own: NodePublic,
    peer: NodePublic,
    /// The disco key of the peer, and that of the node.
    key: DiscoPrivateKey,
    node_disco: DiscoPublicKey,
    /// The address of the peer that a control plane names.
    address: SocketAddr,
}

impl Beside {
    fn new(seed: u64) -> Self {
        let mut bytes = Bytes(seed);
        let (own, peer) = (NodePrivate::from_random(bytes.array()), NodePrivate::from_random(bytes.array()));
        let (key, address) = (DiscoPrivateKey::random(), public(&mut bytes));
        let mut node = Node::new(NodeConfig {
            key: own.clone(),
            seed: bytes.array(),
            relays: vec![RelayConfig { region: REGION, stun: vec![] }],
            home: None,
            regions: vec![],
            addresses: (0..bytes.next() % 9).map(|_| bytes.address()).collect(),
            one_probe: false,
        });
        node.handle_interfaces(
            Instant::ZERO,
            &[public(&mut bytes), "[2001:db8::1]:41641".parse().expect("one")],
        );
        node.handle_relay(Instant::ZERO, RelayEvent::Up(REGION));
        let config = PeerConfig {
            key: peer.public(),
            region: Some(REGION),
            disco: Some(DiscoPublic::from_bytes(key.public_key().to_crypto_box().to_bytes())),
            addresses: vec![address],
            is_relay_only: false,
        };
        node.set_peer(&config, Instant::ZERO);
        let node_disco = DiscoPublicKey::from_bytes(*node.disco_key().as_bytes());
        Self { bytes, own: own.public(), peer: peer.public(), key, node_disco, address, node }
    }

    /// What the node sends, each packet with its way and with what Tailscale's crate finds in it.
    fn sent(&mut self) -> Vec<(Transmit, Message)> {
        let (mut all, mut packet) = (Vec::new(), Vec::new());
        while let Some(transmit) = self.node.poll_transmit(&mut packet) {
            if matches!(transmit, Transmit::Ping { .. } | Transmit::Redial { .. }) {
                continue;
            }
            assert!(is_disco_message(&packet));
            let sealed = Packet::from_encrypted_bytes_mut(&mut packet).expect("a packet");
            let plain = sealed.decrypt_in_place(&self.key).expect("it is sealed for the peer");
            assert_eq!(*plain.sender_pubkey(), self.node_disco);
            all.push((transmit, theirs(plain)));
        }
        all
    }

    /// Hands the node a message that Tailscale's crate builds of `len` bytes.
    fn hear(
        &mut self,
        received: Received,
        len: usize,
        build: impl FnOnce(&mut [u8]) -> &mut Packet<Plaintext>,
    ) {
        let mut packet = vec![0; Packet::size_for_message(len)];
        let plain = build(&mut packet);
        plain.encrypt_in_place(&self.key, &self.node_disco, self.bytes.array()).expect("it is sealed");
        assert_eq!(self.node.handle_packet(Instant::ZERO, received, &packet), None);
    }

    const fn relayed(&self) -> Received {
        Received::Relay { region: REGION, peer: self.peer }
    }
}

/// An address of IPv4 that any host may have.
fn public(bytes: &mut Bytes) -> SocketAddr {
    let [a, b, c] = bytes.array();
    (Ipv4Addr::new(11, a, b, c), bytes.next() as u16 | 1).into()
}

#[test]
fn tailscales_crate_finds_in_the_packets_of_a_node_what_they_mean() {
    for seed in 0..RUNS {
        let mut beside = Beside::new(seed);
        let (peer, address) = (beside.peer, beside.address);
        let route = beside.node.route(Instant::ZERO, &peer, 1400);
        assert_eq!((route.direct, route.relay), (None, Some(REGION)));
        let offered = Message::CallMeMaybe(beside.node.endpoints());
        let sent = beside.sent();
        let [(called, call), (pinged, Message::Ping(Ping { tx, node_key, padding: 0 }))] = &sent[..] else {
            panic!("a CallMeMaybe and a ping, not {sent:?}")
        };
        assert_eq!((called, call), (&Transmit::Relay { region: REGION, peer }, &offered));
        assert_eq!(*pinged, Transmit::Udp { src: None, dst: address, ttl: None });
        assert_eq!(*node_key, Some(beside.own));

        // Its pong makes the peer direct, and the size of a datagram is probed.
        let source = beside.bytes.address().into();
        let received = Received::Udp { remote: address };
        beside.hear(received, Pong::size(), |packet| {
            Packet::init_from_bytes::<Pong>(packet, |pong| *pong = Pong { tx_id: tx.0, src: source })
                .expect("a pong")
        });
        assert_eq!(beside.node.direct(&peer), Some(address));
        beside.node.route(Instant::ZERO, &peer, 1400);
        let sent = beside.sent();
        let [(_, Message::Ping(Ping { padding, .. }))] = &sent[..] else { panic!("a ping, not {sent:?}") };
        assert_eq!(Packet::size_for_message(TheirPing::size_with_padding(*padding)), 1400);
    }
}

#[test]
fn a_node_understands_what_tailscales_crate_builds() {
    for seed in 0..RUNS {
        let mut beside = Beside::new(seed);
        let (tx, source, padding) = (beside.bytes.array(), public(&mut beside.bytes), (seed % 1000) as usize);
        let node_key = NodePublicKey::from_bytes(*beside.peer.as_bytes());
        let fill = |ping: &mut TheirPing| (ping.tx_id, ping.node_key) = (tx, node_key);
        let len = TheirPing::size_with_padding(padding);
        beside.hear(Received::Udp { remote: source }, len, |packet| {
            Packet::init_from_bytes(packet, fill).expect("a ping")
        });
        let back = Transmit::Udp { src: None, dst: source, ttl: None };
        let sent = beside.sent();
        assert_eq!(sent[0], (back, Message::Pong { tx: TxId(tx), source }));
        assert!(sent[1..].iter().all(|(transmit, _)| *transmit == back), "probes of where it came from");
        beside.hear(beside.relayed(), len, |packet| Packet::init_from_bytes(packet, fill).expect("a ping"));
        let relay = SocketAddr::from(([127, 3, 3, 40], REGION.0));
        let answer = (
            Transmit::Relay { region: REGION, peer: beside.peer },
            Message::Pong { tx: TxId(tx), source: relay },
        );
        assert_eq!(beside.sent(), [answer]);

        let count = (seed % 9) as usize;
        let named: Vec<_> = (0..count).map(|_| public(&mut beside.bytes)).collect();
        beside.hear(beside.relayed(), CallMeMaybe::size_for_endpoint_count(count), |packet| {
            let fill = |call: &mut CallMeMaybe| {
                call.endpoints
                    .iter_mut()
                    .zip(&named)
                    .for_each(|(endpoint, address)| *endpoint = (*address).into());
            };
            Packet::init_from_bytes::<CallMeMaybe>(packet, fill).expect("a CallMeMaybe")
        });
        let sent = beside.sent();
        let pinged = |address: &SocketAddr| {
            let is_to = |transmit: &Transmit| matches!(transmit, Transmit::Udp { dst, .. } if dst == address);
            sent.iter().any(|(transmit, message)| is_to(transmit) && matches!(message, Message::Ping(_)))
        };
        assert!(named.iter().take(8).all(pinged), "{named:?}");
    }
}
