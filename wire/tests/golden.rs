//! The golden frames: every one decodes to what it says, encodes to the same bytes, and no damage to it panics.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on shall say where")]

mod vectors;

use proptest::prelude::*;
use towpath_wire::derp::app_name::AppName;
use towpath_wire::derp::frame::{
    ClientFrame, FrameType, GoneReason, Header, MAX_UNKNOWN, Malformed, PayloadBounds, ServerFrame,
};
use towpath_wire::derp::info::{ClientInfo, ClientInfoError, ServerInfo};
use towpath_wire::derp::mesh::PresentFlags;
use towpath_wire::derp::{HEADER_LEN, MAGIC};
use towpath_wire::key::{NodePrivate, NodePublic};

use self::vectors::{Vectors, read};

fn vectors() -> Vectors {
    read(include_str!("vectors/derp_frames.txt"))
}

fn key(vectors: &Vectors, name: &str) -> [u8; 32] {
    vectors[name].as_slice().try_into().unwrap()
}

fn split(frame: &[u8]) -> (u8, &[u8]) {
    let header = Header::decode(frame).unwrap();
    assert_eq!(header.len as usize, frame.len() - HEADER_LEN);
    (header.kind, &frame[HEADER_LEN..])
}

fn assert_server_frame(golden: &[u8], frame: ServerFrame<'_>) {
    let (kind, payload) = split(golden);
    assert_eq!(ServerFrame::decode(kind, payload), Ok(Some(frame)));
    let mut bytes = Vec::new();
    frame.encode(&mut bytes);
    assert_eq!(bytes, golden);
}

#[test]
fn frames_decode_and_encode_to_the_golden_bytes() {
    let v = vectors();
    let server = NodePublic::from_bytes(key(&v, "server_public"));
    let client = NodePublic::from_bytes(key(&v, "client_public"));
    assert_eq!(MAGIC.as_slice(), v["magic"]);
    assert_server_frame(&v["server_key_frame"], ServerFrame::ServerKey(server));
    let gone = ServerFrame::PeerGone { peer: client, reason: GoneReason::NotHere };
    assert_server_frame(&v["peer_gone_not_here_frame"], gone);
    let address = Some("192.0.2.1:41641".parse().unwrap());
    for (name, golden) in [("", "peer_present_frame"), ("some app", "peer_present_named_frame")] {
        let app_name = AppName::from_bytes(name.as_bytes()).unwrap();
        let present =
            ServerFrame::PeerPresent { peer: client, address, flags: PresentFlags::REGULAR, app_name };
        assert_server_frame(&v[golden], present);
    }
    let restarting = ServerFrame::Restarting { reconnect_in_ms: 1000, try_for_ms: 5000 };
    assert_server_frame(&v["restarting_frame"], restarting);

    let golden = &v["send_packet_frame"];
    let (kind, payload) = split(golden);
    let send = ClientFrame::SendPacket { to: server, packet: b"hi" };
    assert_eq!(ClientFrame::decode(kind, payload), Ok(Some(send)));
    let mut bytes = Vec::new();
    send.encode(&mut bytes);
    assert_eq!(&bytes, golden);
}

#[test]
fn a_peer_present_of_an_older_relay_says_less() {
    let v = vectors();
    let (kind, payload) = split(&v["peer_present_named_frame"]);
    let peer = NodePublic::from_bytes(key(&v, "client_public"));
    let known = Some("192.0.2.1:41641".parse().unwrap());
    for (len, address, flags, name) in [
        (32, None, PresentFlags::default(), ""),
        (49, None, PresentFlags::default(), ""),
        (50, known, PresentFlags::default(), ""),
        (51, known, PresentFlags::REGULAR, ""),
        (52, known, PresentFlags::REGULAR, ""),
        (59, known, PresentFlags::REGULAR, ""),
        (60, known, PresentFlags::REGULAR, "some app"),
    ] {
        let app_name = AppName::from_bytes(name.as_bytes()).unwrap();
        let present = ServerFrame::PeerPresent { peer, address, flags, app_name };
        assert_eq!(ServerFrame::decode(kind, &payload[..len]), Ok(Some(present)), "{len} bytes");
    }
    assert_eq!(payload.len(), 60);
    assert_eq!(split(&v["peer_present_old_frame"]), (kind, &payload[..51]));
    let longer = [payload, &[7]].concat();
    assert_eq!(ServerFrame::decode(kind, &longer), ServerFrame::decode(kind, payload));
    assert_eq!(ServerFrame::decode(kind, &payload[..31]), Err(Malformed("PeerPresent")));
}

#[test]
fn an_app_name_that_is_none_does_not_make_a_peer_present_malformed() {
    let v = vectors();
    let (kind, payload) = split(&v["peer_present_frame"]);
    let longest = "x".repeat(32);
    for (name, read) in [
        (&b"a\nb"[..], ""),
        (&[b'x'; 33][..], ""),
        (&[b'x'; 255][..], ""),
        (longest.as_bytes(), longest.as_str()),
    ] {
        let payload = [&payload[..51], &[name.len() as u8], name].concat();
        let Ok(Some(ServerFrame::PeerPresent { app_name, flags, .. })) = ServerFrame::decode(kind, &payload)
        else {
            panic!("a PeerPresent with {} bytes of name", name.len());
        };
        assert_eq!((app_name.as_str(), flags), (read, PresentFlags::REGULAR));
    }
}

#[test]
fn keys_and_boxes_match_the_golden_ones() {
    let v = vectors();
    let server = NodePrivate::from_bytes(key(&v, "server_private"));
    let client = NodePrivate::from_bytes(key(&v, "client_private"));
    assert_eq!(server.public().as_bytes().as_slice(), v["server_public"]);
    assert_eq!(client.public().as_bytes().as_slice(), v["client_public"]);

    let said = ClientInfo { version: 2, can_ack_pings: true, ..ClientInfo::default() };
    let mut frame = Vec::new();
    let nonce = v["client_info_nonce"].as_slice().try_into().unwrap();
    said.seal(&client, &server.public(), &nonce, &mut frame);
    assert_eq!(frame, v["client_info_frame"]);
    let (_, payload) = split(&frame);
    let introduction = ClientInfo::open(&server, payload).unwrap();
    assert_eq!((introduction.client, introduction.info), (client.public(), said));

    let nonce = v["server_info_nonce"].as_slice().try_into().unwrap();
    let sealed = ServerInfo::default().seal(&introduction.shared, &nonce);
    let mut frame = Vec::new();
    ServerFrame::ServerInfo { nonce: &nonce, sealed: &sealed }.encode(&mut frame);
    assert_eq!(frame, v["server_info_frame"]);
    let (kind, payload) = split(&frame);
    let Ok(Some(ServerFrame::ServerInfo { nonce, sealed })) = ServerFrame::decode(kind, payload) else {
        panic!("a ServerInfo frame");
    };
    assert_eq!(ServerInfo::open(&client, &server.public(), nonce, sealed), Ok(ServerInfo::default()));
}

#[test]
fn no_truncation_or_changed_byte_of_a_login_opens() {
    let v = vectors();
    let server = NodePrivate::from_bytes(key(&v, "server_private"));
    let (_, payload) = split(&v["client_info_frame"]);
    for len in 0..payload.len() {
        assert!(ClientInfo::open(&server, &payload[..len]).is_err(), "{len} bytes");
    }
    let mut changed = payload.to_vec();
    for at in 0..payload.len() {
        for bit in 0..8 {
            changed[at] ^= 1 << bit;
            assert!(ClientInfo::open(&server, &changed).is_err(), "byte {at}, bit {bit}");
            changed[at] ^= 1 << bit;
        }
    }
}

#[test]
fn keys_that_prove_nothing_are_refused() {
    let v = vectors();
    let server = NodePrivate::from_bytes(key(&v, "server_private"));
    for first in [0, 1] {
        let mut payload = vec![0; 100];
        payload[0] = first;
        assert_eq!(ClientInfo::open(&server, &payload).unwrap_err(), ClientInfoError::Key);
    }
}

#[test]
fn damaged_frames_decode_to_something_or_an_error_and_never_panic() {
    for golden in vectors().iter().filter(|(name, _)| name.ends_with("_frame")).map(|(_, bytes)| bytes) {
        let (_, payload) = split(golden);
        for kind in 0..=0xff {
            for len in 0..=payload.len() {
                let _ = ClientFrame::decode(kind, &payload[..len]);
                let _ = ServerFrame::decode(kind, &payload[..len]);
            }
        }
        for at in 0..golden.len() {
            for byte in 0..=0xff {
                let mut changed = golden.clone();
                changed[at] = byte;
                let _ = ClientFrame::decode(changed[0], &changed[HEADER_LEN..]);
                let _ = ServerFrame::decode(changed[0], &changed[HEADER_LEN..]);
            }
        }
    }
}

#[test]
fn the_bounds_of_a_payload_are_those_of_its_decoder() {
    let payload = vec![0; 66_000];
    for kind in 0..=0xff {
        let (least, most) = match ClientFrame::payload_bounds(kind) {
            PayloadBounds::Read { least, most } => (least, most),
            PayloadBounds::Skip(most) => {
                assert_eq!(most, MAX_UNKNOWN);
                continue;
            }
        };
        for (len, good) in
            [(least.checked_sub(1), false), (Some(least), true), (Some(most), true), (Some(most + 1), false)]
        {
            let Some(len) = len else { continue };
            let decoded = ClientFrame::decode(kind, &payload[..len as usize]);
            assert_eq!(matches!(decoded, Ok(Some(_))), good, "type {kind:#x}, {len} bytes");
            assert_eq!(matches!(decoded, Err(Malformed(_))), !good, "type {kind:#x}, {len} bytes");
        }
    }
}

#[test]
fn each_side_reads_the_types_that_it_has_bounds_for_and_no_others() {
    let payload = [0; 100];
    for kind in 0..=0xff {
        let known = FrameType::from_byte(kind);
        assert!(known.is_none_or(|known| known as u8 == kind), "type {kind:#x}");
        let by_relay = matches!(ClientFrame::payload_bounds(kind), PayloadBounds::Read { .. });
        let by_client = matches!(ServerFrame::payload_bounds(kind), PayloadBounds::Read { .. });
        // A relay could read a Pong and skips it. The login reads ClientInfo, and nothing else does.
        let is_decoded = ClientFrame::decode(kind, &payload) != Ok(None);
        assert_eq!(is_decoded, by_relay || known == Some(FrameType::Pong), "type {kind:#x}");
        assert_eq!(ServerFrame::decode(kind, &payload) != Ok(None), by_client, "type {kind:#x}");
        let is_of_login = known == Some(FrameType::ClientInfo);
        assert_eq!(known.is_some(), by_relay || by_client || is_of_login, "type {kind:#x}");
    }
}

fn any_key() -> impl Strategy<Value = NodePublic> {
    any::<[u8; 32]>().prop_map(NodePublic::from_bytes)
}

proptest! {
    #[test]
    fn client_frames_round_trip(
        variant in 0usize..7, from in any_key(), to in any_key(), packet in prop::collection::vec(any::<u8>(), 0..300),
        data in any::<[u8; 8]>(), on in any::<bool>(),
    ) {
        let frame = [
            ClientFrame::SendPacket { to, packet: &packet },
            ClientFrame::NotePreferred(on),
            ClientFrame::ForwardPacket { from, to, packet: &packet },
            ClientFrame::WatchConns,
            ClientFrame::ClosePeer(to),
            ClientFrame::Ping(data),
            ClientFrame::Pong(data),
        ][variant];
        let mut bytes = Vec::new();
        frame.encode(&mut bytes);
        let (kind, payload) = split(&bytes);
        prop_assert_eq!(ClientFrame::decode(kind, payload), Ok(Some(frame)));
    }

    #[test]
    fn server_frames_round_trip(
        variant in 0usize..10, key in any_key(), port in any::<u16>(), flags in any::<u8>(), name in "[ -~]{0,32}", packet in prop::collection::vec(any::<u8>(), 0..300), reason in any::<u8>(),
        data in any::<[u8; 8]>(), nonce in any::<[u8; 24]>(), text in ".*", ms in any::<(u32, u32)>(),
    ) {
        let frame = [
            ServerFrame::ServerKey(key),
            ServerFrame::ServerInfo { nonce: &nonce, sealed: &packet },
            ServerFrame::RecvPacket { from: key, packet: &packet },
            ServerFrame::KeepAlive,
            ServerFrame::PeerGone { peer: key, reason: reason.into() },
            ServerFrame::Ping(data),
            ServerFrame::Pong(data),
            ServerFrame::Health(&text),
            ServerFrame::Restarting { reconnect_in_ms: ms.0, try_for_ms: ms.1 },
            ServerFrame::PeerPresent {
                peer: key,
                address: Some(([192, 0, 2, 1], port).into()),
                flags: PresentFlags::from_byte(flags),
                app_name: AppName::from_bytes(name.as_bytes()).unwrap(),
            },
        ][variant];
        let mut bytes = Vec::new();
        frame.encode(&mut bytes);
        let (kind, payload) = split(&bytes);
        prop_assert_eq!(ServerFrame::decode(kind, payload), Ok(Some(frame)));
    }
}
