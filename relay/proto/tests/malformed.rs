//! Damage to the golden logins and to a session of every frame that a client may send, cut anywhere: an error or a
//! frame, never a panic, and never more held than the longest frame.

use std::sync::LazyLock;

use towpath_relay_proto::login::Login;
use towpath_relay_proto::session::{Action, ClientSession, Close, Session};
use towpath_wire::derp::HEADER_LEN;
use towpath_wire::derp::frame::{ClientFrame, Header, ServerFrame};
use towpath_wire::derp::info::{ClientInfo, ServerInfo};
use towpath_wire::key::{NodePrivate, NodePublic};
use towpath_wire::pool::BufferPool;

static RELAY: LazyLock<NodePrivate> = LazyLock::new(|| NodePrivate::from_bytes([0x42; 32]));
static CLIENT: LazyLock<NodePrivate> = LazyLock::new(|| NodePrivate::from_bytes([0x24; 32]));

fn login() -> Vec<u8> {
    let mut frame = Vec::new();
    ClientInfo { version: 2, ..ClientInfo::default() }.seal(&CLIENT, &RELAY.public(), &[5; 24], &mut frame);
    frame
}

/// Every frame that a client without mesh rights may send, and one of an unknown type.
fn session() -> Vec<u8> {
    let mut bytes = Vec::new();
    let to = NodePublic::from_bytes([7; 32]);
    for frame in [
        ClientFrame::NotePreferred(true),
        ClientFrame::SendPacket { to, packet: b"hello" },
        ClientFrame::Ping([1; 8]),
        ClientFrame::Pong([2; 8]),
        ClientFrame::SendPacket { to, packet: b"" },
        ClientFrame::NotePreferred(false),
    ] {
        frame.encode(&mut bytes);
    }
    bytes.extend([0x77, 0, 0, 0, 3, 1, 2, 3]);
    bytes
}

/// What a session makes of `bytes` that come in two pieces: how many actions, and how it ended.
fn run(bytes: &[u8], cut: usize) -> (usize, Result<(), Close>) {
    let (mut session, mut pool) = (Session::default(), BufferPool::default());
    let mut actions = 0;
    for mut piece in [&bytes[..cut], &bytes[cut..]] {
        loop {
            match session.next(&mut piece, &mut pool) {
                Ok(Some(_)) => actions += 1,
                Ok(None) => break,
                Err(close) => return (actions, Err(close)),
            }
        }
    }
    (actions, Ok(()))
}

#[test]
fn a_session_means_the_same_however_it_is_cut() {
    let bytes = session();
    for cut in 0..=bytes.len() {
        assert_eq!(run(&bytes, cut), (5, Ok(())), "cut at {cut}");
    }
    let (mut session, mut pool) = (Session::default(), BufferPool::default());
    let mut input = &bytes[..];
    let to = NodePublic::from_bytes([7; 32]);
    let expected = [
        Action::Preferred(true),
        Action::Forward { to, packet: b"hello" },
        Action::Pong([1; 8]),
        Action::Forward { to, packet: b"" },
    ];
    for action in expected {
        assert_eq!(session.next(&mut input, &mut pool), Ok(Some(action)));
    }
}

#[test]
fn every_changed_byte_of_a_session_is_an_action_or_a_reason_to_close() {
    let golden = session();
    for at in 0..golden.len() {
        let mut bytes = golden.clone();
        for value in 0..=0xff {
            bytes[at] = value;
            let (actions, ended) = run(&bytes, at);
            assert!(actions <= 6, "byte {at} = {value:#x}");
            assert!(
                matches!(ended, Ok(()) | Err(Close::BadFrame | Close::UnknownFrame | Close::NotPermitted)),
                "byte {at} = {value:#x}: {ended:?}"
            );
        }
    }
}

#[test]
fn every_truncation_of_a_login_waits_and_every_changed_byte_is_refused() {
    let golden = login();
    let mut pool = BufferPool::default();
    for cut in 0..golden.len() {
        let mut login = Login::default();
        assert!(
            login.next(&mut &golden[..cut], &RELAY, &mut pool).is_ok_and(|login| login.is_none()),
            "{cut} bytes"
        );
        let introduced = login.next(&mut &golden[cut..], &RELAY, &mut pool).expect("the rest came");
        assert_eq!(introduced.map(|introduction| introduction.client), Some(CLIENT.public()));
    }
    for at in 0..golden.len() {
        for bit in 0..8 {
            let mut bytes = golden.clone();
            bytes[at] ^= 1 << bit;
            let outcome = Login::default().next(&mut &bytes[..], &RELAY, &mut pool);
            // A longer length waits for more than there is; all else is refused at once.
            let waits = Header::decode(&bytes).is_some_and(|header| {
                header.kind == 2 && header.len as usize > bytes.len() - HEADER_LEN && header.len <= 4096
            });
            assert_eq!(
                outcome.as_ref().is_ok_and(Option::is_none),
                waits,
                "byte {at}, bit {bit}: {outcome:?}"
            );
            assert!(waits || outcome.is_err(), "byte {at}, bit {bit}");
        }
    }
}

#[test]
fn what_follows_a_login_is_left_for_the_session() {
    let bytes = [login(), session()].concat();
    let mut input = &bytes[..];
    let introduced = Login::default().next(&mut input, &RELAY, &mut BufferPool::default());
    assert!(introduced.is_ok_and(|introduction| introduction.is_some()));
    assert_eq!(input, session());
}

#[test]
fn every_changed_byte_of_a_relays_stream_is_a_frame_or_an_error() {
    let peer = NodePublic::from_bytes([9; 32]);
    let sealed =
        ServerInfo::default().seal(&towpath_wire::sealed::SharedKey::new(&RELAY, &CLIENT.public()), &[6; 24]);
    let mut golden = Vec::new();
    for frame in [
        ServerFrame::ServerKey(RELAY.public()),
        ServerFrame::ServerInfo { nonce: &[6; 24], sealed: &sealed },
        ServerFrame::RecvPacket { from: peer, packet: b"hello" },
        ServerFrame::PeerGone { peer, reason: 1.into() },
        ServerFrame::Health("duplicate"),
        ServerFrame::Restarting { reconnect_in_ms: 1, try_for_ms: 2 },
    ] {
        frame.encode(&mut golden);
    }
    let mut pool = BufferPool::default();
    for at in 0..golden.len() {
        for value in 0..=0xff {
            let mut bytes = golden.clone();
            bytes[at] = value;
            let (mut session, mut input) = (ClientSession::default(), &bytes[..]);
            while let Ok(Some(_)) = session.next(&mut input, &mut pool) {}
        }
    }
}
