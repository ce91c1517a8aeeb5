//! The golden disco packets: each opens to what it says and is sealed to the same bytes, and no damage to it panics or opens.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on says where")]

mod vectors;

use std::net::SocketAddr;

use proptest::prelude::*;
use towpath_wire::disco::datagram::DatagramKind;
use towpath_wire::disco::key::{DiscoPrivate, DiscoPublic};
use towpath_wire::disco::message::{Message, MessageError, MessageType, Ping, TxId, write_address};
use towpath_wire::disco::packet::{DiscoPacket, PACKET_OVERHEAD, seal};
use towpath_wire::key::NodePublic;
use towpath_wire::sealed::SharedKey;

use self::vectors::{Vectors, read};

fn vectors() -> Vectors {
    read(include_str!("vectors/disco.txt"))
}

fn array<const N: usize>(vectors: &Vectors, name: &str) -> [u8; N] {
    vectors[name].as_slice().try_into().unwrap()
}

/// Each golden message by its name.
fn messages(v: &Vectors) -> [(&'static str, Message, usize); 3] {
    let (tx, key) = (TxId(array(v, "ping_txid")), NodePublic::from_bytes(array(v, "ping_node_key")));
    let addresses = ["203.0.113.5:41641", "198.51.100.7:41641", "[2001:db8::9]:7"];
    let [source, v4, v6] = addresses.map(|text| text.parse().unwrap());
    [
        ("ping", Message::Ping(Ping { tx, node_key: Some(key), padding: 0 }), 124),
        ("pong", Message::Pong { tx, source }, 110),
        ("call_me_maybe", Message::CallMeMaybe(vec![v4, v6]), 116),
    ]
}

#[test]
fn packets_open_to_the_golden_messages_and_are_sealed_to_the_golden_bytes() {
    let v = vectors();
    let [a, b] = ["a_private", "b_private"].map(|name| DiscoPrivate::from_bytes(array(&v, name)));
    assert_eq!(a.public(), DiscoPublic::from_bytes(array(&v, "a_public")));
    assert_eq!(b.public(), DiscoPublic::from_bytes(array(&v, "b_public")));
    let (of_a, of_b) = (SharedKey::of_disco(&a, &b.public()), SharedKey::of_disco(&b, &a.public()));
    for (name, message, length) in messages(&v) {
        let golden = &v[format!("{name}_packet").as_str()];
        let mut plaintext = Vec::new();
        message.encode(&mut plaintext);
        assert_eq!(plaintext, v[format!("{name}_plaintext").as_str()]);
        assert_eq!((golden.len(), plaintext.len() + PACKET_OVERHEAD), (length, length));
        assert_eq!(DatagramKind::of(golden), DatagramKind::Disco);
        let packet = DiscoPacket::split(golden).unwrap();
        assert_eq!(packet.sender, a.public());
        assert_eq!(packet.open(&of_b), Ok(message.clone()));
        let mut sealed = Vec::new();
        seal(&a.public(), &of_a, &array(&v, "nonce"), &message, &mut sealed);
        assert_eq!(&sealed, golden);
    }
}

#[test]
fn a_packet_that_is_cut_or_changed_does_not_open() {
    let v = vectors();
    let [a, b] = ["a_private", "b_private"].map(|name| DiscoPrivate::from_bytes(array(&v, name)));
    let shared = SharedKey::of_disco(&b, &a.public());
    for (name, ..) in messages(&v) {
        let golden = &v[format!("{name}_packet").as_str()];
        for cut in 0..golden.len() {
            assert!(DiscoPacket::split(&golden[..cut]).is_none_or(|packet| packet.open(&shared).is_err()));
        }
        for at in (0..golden.len()).filter(|at| !(6..38).contains(at)) {
            let mut changed = golden.clone();
            changed[at] ^= 1;
            assert!(DiscoPacket::split(&changed).is_none_or(|packet| packet.open(&shared).is_err()), "{at}");
        }
    }
}

/// Where upstream's parser and its port to Rust (`ts_disco_protocol` 0.6.1) differ, this one does as upstream's.
#[test]
fn messages_that_are_not_to_the_letter_are_read_as_upstream_reads_them() {
    let (tx, key, source) = ([9; 12], NodePublic::from_bytes([3; 32]), "192.0.2.1:5".parse().unwrap());
    let ping = |node_key, padding| Ok(Message::Ping(Ping { tx: TxId(tx), node_key, padding }));
    let pong = Ok(Message::Pong { tx: TxId(tx), source });
    let call = |endpoints: &[SocketAddr]| Ok(Message::CallMeMaybe(endpoints.to_vec()));
    let mut endpoint = Vec::new();
    write_address(source, &mut endpoint);
    let text = |kind: u8, version: u8, parts: &[&[u8]]| [&[kind, version][..], &parts.concat()].concat();
    for (what, text, expected) in [
        ("a ping without a node key", text(1, 0, &[&tx]), ping(None, 0)),
        ("a ping with padding", text(1, 0, &[&tx, key.as_bytes(), &[0; 7]]), ping(Some(key), 7)),
        ("a ping of another version", text(1, 9, &[&tx, key.as_bytes()]), ping(Some(key), 0)),
        ("a ping that is cut", text(1, 0, &[&tx[1..]]), Err(MessageError::Short)),
        ("a pong with a byte behind it", text(2, 0, &[&tx, &endpoint, &[7]]), pong.clone()),
        ("a pong of another version", text(2, 9, &[&tx, &endpoint]), pong),
        ("a pong that is cut", text(2, 0, &[&tx, &endpoint[1..]]), Err(MessageError::Short)),
        ("an empty CallMeMaybe", text(3, 0, &[]), call(&[])),
        ("a CallMeMaybe", text(3, 0, &[&endpoint, &endpoint]), call(&[source, source])),
        ("a CallMeMaybe of another length", text(3, 0, &[&endpoint, &[7]]), call(&[])),
        ("a CallMeMaybe of another version", text(3, 9, &[&endpoint]), call(&[])),
        ("a binding that is cut", text(4, 0, &[&[0; 71]]), Err(MessageError::Short)),
        ("a binding of another version", text(6, 9, &[&[0; 72]]), Ok(Message::UdpRelay(MessageType::ALL[5]))),
        ("an empty CallMeMaybeVia", text(7, 0, &[]), Ok(Message::UdpRelay(MessageType::CallMeMaybeVia))),
        ("an unknown type", text(10, 0, &[&[0; 200]]), Err(MessageError::Unknown(10))),
        ("a type without a version", vec![1], Err(MessageError::Short)),
        ("nothing", vec![], Err(MessageError::Short)),
    ] {
        assert_eq!(Message::decode(&text), expected, "{what}");
    }
}

proptest! {
    #[test]
    fn any_bytes_are_read_and_what_is_read_is_written_and_read_again(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        let _ = DatagramKind::of(&bytes);
        if let Ok(message) = Message::decode(&bytes)
            && !matches!(message, Message::UdpRelay(_))
        {
            let mut written = Vec::new();
            message.encode(&mut written);
            let again = Message::decode(&written).unwrap();
            match (&message, &again) {
                // Padding without a key is not written.
                (Message::Ping(one), Message::Ping(two)) if one.node_key.is_none() => prop_assert_eq!(one.tx, two.tx),
                _ => prop_assert_eq!(&message, &again),
            }
        }
    }
}
