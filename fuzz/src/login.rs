//! Logins: the frame that an unknown client sends, and the JSON that it has sealed.

use std::sync::LazyLock;

use towpath_relay_proto::login::{Login, LoginError, MAX_CLIENT_INFO};
use towpath_wire::derp::HEADER_LEN;
use towpath_wire::derp::frame::{FrameType, Header, frame};
use towpath_wire::derp::info::{ClientInfo, ClientInfoError, MIN_CLIENT_INFO, ServerInfo};
use towpath_wire::key::{NodePrivate, NodePublic};
use towpath_wire::pool::BufferPool;
use towpath_wire::sealed::SharedKey;

use crate::bytes::CutStream;

/// The keys of the golden vectors, so that the golden login is a seed.
static RELAY: LazyLock<NodePrivate> = LazyLock::new(|| NodePrivate::from_bytes(count_from(0x00, 0x5f)));
static CLIENT: LazyLock<NodePrivate> = LazyLock::new(|| NodePrivate::from_bytes(count_from(0x20, 0x7f)));
const NONCE: [u8; 24] = [9; 24];

static PUBLIC: LazyLock<(NodePublic, NodePublic)> = LazyLock::new(|| (RELAY.public(), CLIENT.public()));
static SHARED: LazyLock<SharedKey> = LazyLock::new(|| SharedKey::new(&CLIENT, &PUBLIC.0));

const fn count_from(first: u8, last: u8) -> [u8; 32] {
    let mut bytes = [0; 32];
    let mut index = 0;
    while index < 31 {
        bytes[index] = first + index as u8;
        index += 1;
    }
    bytes[31] = last;
    bytes
}

/// The client of a login, its ClientInfo, and the bytes left for the session; `None` while the login is incomplete.
type LoginReading = Result<Option<(NodePublic, ClientInfo, Vec<u8>)>, LoginError>;

/// A login means what its first frame says, however it arrives, and takes no byte of what follows.
pub(crate) fn stream(input: &[u8]) {
    let stream = CutStream::of(input);
    let mut expected = first_frame(stream.whole);
    if let Ok(Some((.., rest))) = &mut expected {
        assert!(stream.whole.ends_with(rest));
    }
    assert_eq!(log_in(&stream.pieces()), expected);
}

fn first_frame(stream: &[u8]) -> LoginReading {
    const KIND: u8 = FrameType::ClientInfo as u8;
    let Some(header) = Header::decode(stream) else { return Ok(None) };
    if header.kind != KIND {
        return Err(LoginError::NotClientInfo(header.kind));
    }
    if !(MIN_CLIENT_INFO as u32..=MAX_CLIENT_INFO).contains(&header.len) {
        return Err(LoginError::Length(header.len));
    }
    let Some((payload, rest)) = stream[HEADER_LEN..].split_at_checked(header.len as usize) else {
        return Ok(None);
    };
    let introduction = ClientInfo::open(&RELAY, payload)?;
    assert!(introduction.client.is_contributory());
    Ok(Some((introduction.client, introduction.info, rest.to_vec())))
}

fn log_in(pieces: &[&[u8]]) -> LoginReading {
    let (mut login, mut pool) = (Login::default(), BufferPool::default());
    for (index, piece) in pieces.iter().enumerate() {
        let mut input = *piece;
        if let Some(introduction) = login.next(&mut input, &RELAY, &mut pool)? {
            let rest = [input, &pieces[index + 1..].concat()].concat();
            return Ok(Some((introduction.client, introduction.info, rest)));
        }
        assert!(input.is_empty(), "a piece is used up");
    }
    Ok(None)
}

/// JSON is read alike inside and outside of its box, and what is read can be sealed and read again.
pub(crate) fn json(json: &[u8]) {
    let (relay, client) = *PUBLIC;
    let sealed = SHARED.seal(&NONCE, json);
    let mut login = Vec::new();
    frame(&mut login, FrameType::ClientInfo, &[client.as_bytes(), &NONCE, &sealed]);
    let read = ClientInfo::from_json(json);
    let expected = match &read {
        _ if login.len() - HEADER_LEN > MAX_CLIENT_INFO as usize => {
            Err(LoginError::Length((login.len() - HEADER_LEN) as u32))
        }
        Ok(info) => Ok(Some((client, info.clone(), Vec::new()))),
        Err(error) => Err((*error).into()),
    };
    assert_eq!(log_in(&[&login]), expected);
    if let Ok(info) = read {
        let mut again = Vec::new();
        info.seal(&CLIENT, &relay, &NONCE, &mut again);
        assert_eq!(log_in(&[&again]), Ok(Some((client, info, Vec::new()))));
    }
    match ServerInfo::open(&CLIENT, &relay, &NONCE, &sealed) {
        Ok(info) if info.rate > 0 => {
            let again = info.seal(&SHARED, &NONCE);
            assert_eq!(ServerInfo::open(&CLIENT, &relay, &NONCE, &again), Ok(info));
        }
        opened => assert!(matches!(opened, Ok(_) | Err(ClientInfoError::Json)), "{opened:?}"),
    }
}
