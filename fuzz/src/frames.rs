//! DERP frames in both directions: cut anywhere, they mean what a plain reading of the whole stream says.

use towpath_relay_proto::rights::Rights;
use towpath_relay_proto::session::{Action, ClientSession, Close, Session, StreamError};
use towpath_wire::derp::buffer::{BadLength, Deframer};
use towpath_wire::derp::frame::{ClientFrame, MAX_PING, PayloadBounds, ServerFrame};
use towpath_wire::derp::{HEADER_LEN, MAX_CLIENT_FRAME, MAX_PACKET};
use towpath_wire::key::KEY_LEN;
use towpath_wire::pool::BufferPool;

use crate::bytes::CutStream;

type Bounds = fn(u8) -> PayloadBounds;

/// What a stream of frames comes to: the frames that are read and how many are skipped, up to the first bad length.
#[derive(Debug, PartialEq)]
struct StreamReading {
    read: Vec<(u8, Vec<u8>)>,
    skipped: u64,
    end: Result<(), BadLength>,
}

/// The plain reading, of a stream that is whole.
fn read(mut stream: &[u8], bounds: Bounds) -> StreamReading {
    let mut frames = StreamReading { read: Vec::new(), skipped: 0, end: Ok(()) };
    while let Some((&[kind, a, b, c, d], rest)) = stream.split_first_chunk() {
        let len = u32::from_be_bytes([a, b, c, d]);
        match bounds(kind) {
            PayloadBounds::Skip(most) if len <= most => frames.skipped += 1,
            PayloadBounds::Read { least, most } if least <= len && len <= most => {
                match rest.get(..len as usize) {
                    Some(payload) => frames.read.push((kind, payload.to_vec())),
                    None => break,
                }
            }
            _ => {
                frames.end = Err(BadLength { kind, len });
                break;
            }
        }
        stream = rest.get(len as usize..).unwrap_or_default();
    }
    frames
}

/// The reading of the [`Deframer`], which must not hold more than it was given, nor more than one frame.
fn deframe(pieces: &[&[u8]], bounds: Bounds, most: usize) -> StreamReading {
    let (mut deframer, mut pool) = (Deframer::default(), BufferPool::default());
    let mut frames = StreamReading { read: Vec::new(), skipped: 0, end: Ok(()) };
    let mut given = 0;
    'stream: for piece in pieces {
        given += piece.len();
        let mut input = *piece;
        loop {
            match deframer.next(&mut input, bounds, &mut pool) {
                Ok(Some(frame)) => frames.read.push((frame.kind, frame.payload.to_vec())),
                Ok(None) => break,
                Err(bad) => {
                    frames.end = Err(bad);
                    break 'stream;
                }
            }
        }
        assert!(input.is_empty(), "a piece is used up");
        assert!(deframer.held() <= given.min(HEADER_LEN + most), "{} bytes are held", deframer.held());
    }
    frames.skipped = deframer.skipped();
    frames
}

/// What a relay makes of a client.
pub(crate) fn from_client(input: &[u8]) {
    const MOST: usize = 2 * KEY_LEN + MAX_PACKET;
    let stream = CutStream::of(input);
    let pieces = stream.pieces();
    let frames = read(stream.whole, ClientFrame::payload_bounds);
    assert_eq!(deframe(&pieces, ClientFrame::payload_bounds, MOST), frames);

    for rights in [Rights::Client, Rights::Watch, Rights::Mesh] {
        let mut expected = Vec::new();
        let mut end = frames.end.map_err(Close::from);
        for (kind, payload) in &frames.read {
            let frame = ClientFrame::decode(*kind, payload).expect("the length is within bounds");
            let frame = frame.expect("a type with bounds is known");
            assert_client_frame_reads_back(*kind, payload, &frame);
            let permitted = match frame {
                ClientFrame::ForwardPacket { .. } | ClientFrame::ClosePeer(_) => rights == Rights::Mesh,
                ClientFrame::WatchConns => rights != Rights::Client,
                _ => true,
            };
            if !permitted {
                end = Err(Close::NotPermitted);
                break;
            }
            frame.encode(&mut expected);
        }
        let (asked, ended, skipped) = serve(&pieces, rights);
        assert_eq!((asked, ended), (expected, end), "{rights:?}");
        assert!(end.is_err() || skipped == frames.skipped);
    }
}

fn assert_client_frame_reads_back(kind: u8, payload: &[u8], frame: &ClientFrame<'_>) {
    let mut bytes = Vec::new();
    frame.encode(&mut bytes);
    let encoded = &bytes[HEADER_LEN..];
    assert_eq!((bytes[0], ClientFrame::decode(kind, encoded)), (kind, Ok(Some(*frame))));
    match frame {
        ClientFrame::Ping(_) => assert!(payload.starts_with(encoded) && payload.len() <= MAX_PING as usize),
        ClientFrame::NotePreferred(on) => assert_eq!(*on, payload != [0]),
        _ => assert_eq!(encoded, payload),
    }
}

/// What a session asks for, as the frames that ask for it; how it ends; and how many frames it skips.
fn serve(pieces: &[&[u8]], rights: Rights) -> (Vec<u8>, Result<(), Close>, u64) {
    let (mut session, mut pool) = (Session::new(rights), BufferPool::default());
    let mut asked = Vec::new();
    for piece in pieces {
        let mut input = *piece;
        loop {
            let frame = match session.next(&mut input, &mut pool) {
                Ok(Some(Action::Forward { to, packet })) => ClientFrame::SendPacket { to, packet },
                Ok(Some(Action::Relay(relayed))) => {
                    let (from, to, packet) = relayed.parts();
                    ClientFrame::ForwardPacket { from, to, packet }
                }
                Ok(Some(Action::Watch)) => ClientFrame::WatchConns,
                Ok(Some(Action::ClosePeer(key))) => ClientFrame::ClosePeer(key),
                Ok(Some(Action::Pong(data))) => ClientFrame::Ping(data),
                Ok(Some(Action::Preferred(on))) => ClientFrame::NotePreferred(on),
                Ok(None) => break,
                Err(close) => return (asked, Err(close), session.skipped()),
            };
            frame.encode(&mut asked);
        }
    }
    (asked, Ok(()), session.skipped())
}

/// What a client makes of a relay.
pub(crate) fn from_server(input: &[u8]) {
    let stream = CutStream::of(input);
    let pieces = stream.pieces();
    let frames = read(stream.whole, ServerFrame::payload_bounds);
    assert_eq!(deframe(&pieces, ServerFrame::payload_bounds, MAX_CLIENT_FRAME), frames);

    let mut expected = Vec::new();
    let mut end = frames.end.map_err(StreamError::from);
    for (kind, payload) in &frames.read {
        match ServerFrame::decode(*kind, payload) {
            Ok(frame) => {
                let frame = frame.expect("a type that is not skipped is known");
                let start = expected.len();
                frame.encode(&mut expected);
                let encoded = &expected[start + HEADER_LEN..];
                assert_eq!(ServerFrame::decode(*kind, encoded), Ok(Some(frame)));
            }
            Err(malformed) => {
                end = Err(malformed.into());
                break;
            }
        }
    }
    assert_eq!(follow(&pieces), (expected, end));
}

/// What a client session hands out, encoded again, and how it ends.
fn follow(pieces: &[&[u8]]) -> (Vec<u8>, Result<(), StreamError>) {
    let (mut session, mut pool) = (ClientSession::default(), BufferPool::default());
    let mut frames = Vec::new();
    for piece in pieces {
        let mut input = *piece;
        loop {
            match session.next(&mut input, &mut pool) {
                Ok(Some(frame)) => frame.encode(&mut frames),
                Ok(None) => break,
                Err(error) => return (frames, Err(error)),
            }
        }
    }
    (frames, Ok(()))
}
