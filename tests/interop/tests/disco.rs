//! disco beside Tailscale's own crate for it: what one seals the other opens, and both find the same in it.

use std::net::SocketAddr;

use towpath_wire::disco::key::{DiscoPrivate, DiscoPublic};
use towpath_wire::disco::message::{Message, Ping, TxId};
use towpath_wire::disco::packet::{DiscoPacket, seal};
use towpath_wire::key::NodePublic;
use towpath_wire::sealed::SharedKey;
use ts_disco_protocol::{CallMeMaybe, Packet, Ping as TheirPing, Pong, is_disco_message};
use ts_keys::{DiscoPrivateKey, DiscoPublicKey};

const RUNS: u64 = 500;

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
fn theirs(packet: &Packet<ts_disco_protocol::Plaintext>) -> Message {
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
        let mut buffer = Packet::<ts_disco_protocol::Plaintext>::vec_for_message(plain.len() - 2);
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
fn zerocopy_packet(bytes: &mut [u8]) -> &mut Packet<ts_disco_protocol::Plaintext> {
    #[allow(unsafe_code, reason = "the crate makes a packet of plain bytes in this way only")]
    // SAFETY: every byte pattern is a packet of plain text; the crate asks its caller not to take it for a sealed one.
    unsafe { Packet::from_bytes_unchecked_mut(bytes) }.expect("the length of a packet")
}
