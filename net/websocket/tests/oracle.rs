//! The codec against tungstenite: what either of its sides writes we read, what we write it reads, and what it refuses we
//! refuse.

use std::io::{self, Cursor, Read, Write};

use proptest::prelude::*;
use towpath_websocket::{
    Client, CloseCode, Decoder, MAX_MASKED_PAYLOAD, MAX_SENT, MaskedFrame, Messages, Piece, Role as Side,
    Server, Violation,
};
use tungstenite::protocol::frame::Frame;
use tungstenite::protocol::frame::coding::{Data, OpCode};
use tungstenite::protocol::{Role, WebSocket};
use tungstenite::{Error, Message};

/// A stream that has bytes to read and takes bytes.
#[derive(Default)]
struct Pipe {
    input: Cursor<Vec<u8>>,
    output: Vec<u8>,
}

impl Read for Pipe {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self.input.read(buffer)? {
            0 => Err(io::ErrorKind::WouldBlock.into()),
            read => Ok(read),
        }
    }
}

impl Write for Pipe {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.output.extend_from_slice(bytes);
        Ok(bytes.len())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn peer(role: Role, input: Vec<u8>) -> WebSocket<Pipe> {
    WebSocket::from_raw_socket(Pipe { input: Cursor::new(input), output: Vec::new() }, role, None)
}

/// What tungstenite's client writes for these messages.
fn written(messages: impl IntoIterator<Item = Message>) -> Vec<u8> {
    written_by(Role::Client, messages)
}

fn written_by(role: Role, messages: impl IntoIterator<Item = Message>) -> Vec<u8> {
    let mut sender = peer(role, Vec::new());
    for message in messages {
        sender.send(message).expect("a message goes out");
    }
    sender.get_ref().output.clone()
}

fn fragment(bytes: &[u8], code: Data, last: bool) -> Message {
    Message::Frame(Frame::message(bytes.to_vec(), OpCode::Data(code), last))
}

#[derive(Debug, Default, PartialEq, Eq)]
struct Stream {
    data: Vec<u8>,
    pings: Vec<Vec<u8>>,
    closed: bool,
}

/// Decodes a client's `stream`, which arrives in slices that end at `cuts`.
fn decode(stream: &[u8], cuts: &[usize]) -> Result<Stream, Violation> {
    decode_as::<Server>(stream, cuts)
}

fn decode_as<S: Side>(stream: &[u8], cuts: &[usize]) -> Result<Stream, Violation> {
    let (mut decoder, mut read) = (Decoder::<S>::default(), Stream::default());
    let mut stream = stream.to_vec();
    let mut rest = &mut stream[..];
    for cut in cuts.iter().copied().chain([usize::MAX]) {
        let (mut slice, later) = rest.split_at_mut(cut.min(rest.len()));
        rest = later;
        while let Some(piece) = decoder.next(&mut slice)? {
            match piece {
                Piece::Data(bytes) => read.data.extend_from_slice(bytes),
                Piece::Ping(payload) => read.pings.push(payload.as_slice().to_vec()),
                Piece::Close => read.closed = true,
            }
        }
        assert!(slice.is_empty());
    }
    Ok(read)
}

#[derive(Clone, Debug)]
enum Sent {
    Whole(Vec<u8>),
    Fragments(Vec<Vec<u8>>, Vec<u8>),
    Ping(Vec<u8>),
    Pong(Vec<u8>),
}

fn sent() -> impl Strategy<Value = Sent> {
    let bytes = |max| prop::collection::vec(any::<u8>(), 0..max);
    prop_oneof![
        bytes(300).prop_map(Sent::Whole),
        (65_530usize..65_545).prop_map(|len| Sent::Whole(vec![7; len])),
        (prop::collection::vec(bytes(200), 2..5), bytes(126))
            .prop_map(|(parts, ping)| Sent::Fragments(parts, ping)),
        bytes(126).prop_map(Sent::Ping),
        bytes(126).prop_map(Sent::Pong),
    ]
}

proptest! {
    #[test]
    fn what_tungstenite_writes_is_read_whatever_the_cuts(
        sent in prop::collection::vec(sent(), 0..6),
        cuts in prop::collection::vec(0usize..300, 0..20),
    ) {
        let mut expected = Stream::default();
        let mut messages = Vec::new();
        for sent in sent {
            match sent {
                Sent::Whole(bytes) => {
                    expected.data.extend(&bytes);
                    messages.push(Message::binary(bytes));
                }
                // A ping may come between the fragments of a message.
                Sent::Fragments(parts, ping) => {
                    let last = parts.len() - 1;
                    for (at, part) in parts.iter().enumerate() {
                        expected.data.extend(part);
                        let code = if at == 0 { Data::Binary } else { Data::Continue };
                        messages.push(fragment(part, code, at == last));
                        if at == 0 {
                            expected.pings.push(ping.clone());
                            messages.push(Message::Ping(ping.clone().into()));
                        }
                    }
                }
                Sent::Ping(ping) => {
                    expected.pings.push(ping.clone());
                    messages.push(Message::Ping(ping.into()));
                }
                Sent::Pong(pong) => messages.push(Message::Pong(pong.into())),
            }
        }
        messages.push(Message::Close(None));
        expected.closed = true;
        let by_server = written_by(Role::Server, messages.clone());
        prop_assert_eq!(decode_as::<Client>(&by_server, &cuts), decode(&written(messages.clone()), &cuts));
        prop_assert_eq!(decode(&written(messages), &cuts), Ok(expected));
    }

    #[test]
    fn what_a_client_sends_tungstenite_reads_whatever_the_mask(
        sent in prop::collection::vec(prop_oneof![0usize..300, 65_530usize..65_545], 0..6),
        mask in any::<[u8; 4]>(),
    ) {
        let mut stream = Vec::new();
        for (at, &len) in sent.iter().enumerate() {
            MaskedFrame::Binary(&vec![at as u8; len]).append(mask, &mut stream);
        }
        let mut server = peer(Role::Server, stream);
        for (at, len) in sent.into_iter().enumerate() {
            prop_assert_eq!(server.read().expect("a message"), Message::binary(vec![at as u8; len]));
        }
        prop_assert!(server.read().is_err());
    }

    #[test]
    fn what_is_pushed_tungstenite_reads_in_as_few_messages_as_possible(
        chunks in prop::collection::vec(prop_oneof![0usize..200, 0usize..70_000], 0..6),
    ) {
        let mut messages = Messages::default();
        let mut expected = Vec::new();
        for (at, len) in chunks.into_iter().enumerate() {
            let chunk = vec![at as u8; len];
            messages.push(&chunk);
            expected.extend(chunk);
        }
        messages.finish();
        let mut client = peer(Role::Client, messages.as_slice().to_vec());
        let (mut read, mut count) = (Vec::new(), 0);
        while let Ok(message) = client.read() {
            prop_assert!(message.is_binary() && !message.is_empty());
            prop_assert!(message.len() + 4 <= MAX_SENT);
            read.extend(message.into_data());
            count += 1;
        }
        prop_assert_eq!(count, expected.len().div_ceil(MAX_SENT - 4));
        prop_assert!(read == expected);
    }
}

#[test]
fn control_frames_go_between_messages() {
    let mut ping = written([Message::Ping(b"who?".to_vec().into())]);
    let mut input = &mut ping[..];
    let Ok(Some(Piece::Ping(payload))) = Decoder::<Server>::default().next(&mut input) else {
        panic!("a ping")
    };
    let mut messages = Messages::default();
    messages.push(b"data");
    messages.pong(&payload);
    messages.push(b"more");
    messages.close(CloseCode::GoingAway, &"ä".repeat(100));
    let mut client = peer(Role::Client, messages.as_slice().to_vec());
    assert_eq!(client.read().expect("a message"), Message::binary(b"data".to_vec()));
    assert_eq!(client.read().expect("a pong"), Message::Pong(b"who?".to_vec().into()));
    assert_eq!(client.read().expect("a message"), Message::binary(b"more".to_vec()));
    let Message::Close(Some(close)) = client.read().expect("a close") else { panic!("a close") };
    assert_eq!((u16::from(close.code), close.reason.as_str()), (1001, "ä".repeat(61).as_str()));
    messages.clear();
    assert!(messages.is_empty());
}

#[test]
fn a_client_answers_pings_and_closes_within_the_bound_of_a_message() {
    let mut ping = written_by(Role::Server, [Message::Ping(b"who?".to_vec().into())]);
    let mut input = &mut ping[..];
    let Ok(Some(Piece::Ping(payload))) = Decoder::<Client>::default().next(&mut input) else {
        panic!("a ping")
    };
    let mut stream = Vec::new();
    MaskedFrame::Pong(&payload).append([1, 2, 3, 4], &mut stream);
    MaskedFrame::Binary(&[5; MAX_MASKED_PAYLOAD]).append([5; 4], &mut stream);
    let answered = stream.len();
    assert_eq!(answered, 2 + 4 + 4 + MAX_SENT);
    // Each byte of the payload is the mask's: it is masked to zero.
    assert!(stream[answered - MAX_MASKED_PAYLOAD..].iter().all(|&byte| byte == 0));
    MaskedFrame::Close(CloseCode::Normal).append([9; 4], &mut stream);
    let mut server = peer(Role::Server, stream);
    assert_eq!(server.read().expect("a pong"), Message::Pong(b"who?".to_vec().into()));
    assert_eq!(server.read().expect("a message"), Message::binary(vec![5; MAX_MASKED_PAYLOAD]));
    let Message::Close(Some(close)) = server.read().expect("a close") else { panic!("a close") };
    assert_eq!((u16::from(close.code), close.reason.as_str()), (1000, ""));
}

#[test]
fn a_server_breaks_the_protocol_as_a_client_can_and_by_a_mask() {
    for (stream, violation) in [
        (&[0x82, 0x81, 0, 0, 0, 0, 0][..], Violation::Masked),
        (&[0x89, 0x80], Violation::Masked),
        (&[0xc2, 0x00], Violation::Reserved),
        (&[0x83, 0x00], Violation::Opcode(3)),
        (&[0x81, 0x00], Violation::Text),
        (&[0x89, 126], Violation::Control),
        (&[0x80, 0x00], Violation::Fragments),
        (&[0x82, 126, 0, 125], Violation::Length),
        (&[0x82, 127, 0, 0, 0, 0, 0, 0x10, 0, 1], Violation::TooBig),
        (&[0x88, 0x01, 3], Violation::CloseCode),
    ] {
        let cuts = vec![1; stream.len()];
        assert_eq!(decode_as::<Client>(stream, &[]), Err(violation), "{stream:x?}");
        assert_eq!(decode_as::<Client>(stream, &cuts), Err(violation), "{stream:x?}, a byte at a time");
    }
    assert_eq!(Violation::Masked.close_code(), CloseCode::Protocol);
}

#[test]
fn each_violation_has_its_name_and_its_close_code() {
    let cases: [(&[u8], Violation, CloseCode); 18] = [
        (&[0xc2, 0x80], Violation::Reserved, CloseCode::Protocol),
        (&[0x92, 0x80], Violation::Reserved, CloseCode::Protocol),
        (&[0x83, 0x80], Violation::Opcode(3), CloseCode::Protocol),
        (&[0x8f, 0x80], Violation::Opcode(15), CloseCode::Protocol),
        (&[0x82, 0x01], Violation::Unmasked, CloseCode::Protocol),
        (&[0x81, 0x80], Violation::Text, CloseCode::Unsupported),
        (&[0x01, 0x80], Violation::Text, CloseCode::Unsupported),
        (&[0x09, 0x80], Violation::Control, CloseCode::Protocol),
        (&[0x88, 0xfe], Violation::Control, CloseCode::Protocol),
        (&[0x80, 0x80], Violation::Fragments, CloseCode::Protocol),
        (&[0x02, 0x80, 0, 0, 0, 0, 0x82, 0x80], Violation::Fragments, CloseCode::Protocol),
        (&[0x82, 0xfe, 0, 125, 0, 0, 0, 0], Violation::Length, CloseCode::Protocol),
        (&[0x82, 0xff, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 0, 0, 0, 0], Violation::Length, CloseCode::Protocol),
        (&[0x82, 0xff, 0x80, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0], Violation::Length, CloseCode::Protocol),
        (&[0x82, 0xff, 0, 0, 0, 0, 0, 0x10, 0, 1, 0, 0, 0, 0], Violation::TooBig, CloseCode::TooBig),
        (&[0x88, 0x81, 0, 0, 0, 0, 3], Violation::CloseCode, CloseCode::Protocol),
        (&[0x88, 0x82, 0, 0, 0, 0, 3, 0xed], Violation::CloseCode, CloseCode::Protocol),
        (&[0x88, 0x83, 0, 0, 0, 0, 3, 0xe8, 0xff], Violation::CloseReason, CloseCode::InvalidText),
    ];
    for (stream, violation, code) in cases {
        let cuts = vec![1; stream.len()];
        assert_eq!(decode(stream, &[]), Err(violation), "{stream:x?}");
        assert_eq!(decode(stream, &cuts), Err(violation), "{stream:x?}, a byte at a time");
        assert_eq!(violation.close_code(), code);
    }
}

#[test]
fn the_bound_counts_all_fragments_and_starts_anew_with_each_message() {
    let part = vec![0; 512 * 1024];
    let fitting = || [fragment(&part, Data::Binary, false), fragment(&part, Data::Continue, true)];
    let twice = written(fitting().into_iter().chain(fitting()));
    assert_eq!(decode(&twice, &[]).map(|read| read.data.len()), Ok(4 * part.len()));
    let parts = [
        fragment(&part, Data::Binary, false),
        fragment(&part, Data::Continue, false),
        fragment(&[1], Data::Continue, true),
    ];
    assert_eq!(decode(&written(parts), &[]), Err(Violation::TooBig));
}

#[test]
fn nothing_is_read_behind_a_close() {
    let mut stream = written([Message::binary(b"last".to_vec()), Message::Close(None)]);
    stream.extend(b"\xff\xff\xff\xff");
    let expected = Stream { data: b"last".to_vec(), pings: Vec::new(), closed: true };
    assert_eq!(decode(&stream, &[]), Ok(expected));
}

#[test]
fn no_changed_bit_that_tungstenite_refuses_is_taken() {
    let golden = written([
        Message::binary(vec![1; 130]),
        fragment(b"two ", Data::Binary, false),
        Message::Ping(b"ping".to_vec().into()),
        fragment(b"parts", Data::Continue, true),
        Message::Close(None),
    ]);
    for (at, bit) in (0..golden.len()).flat_map(|at| (0..8).map(move |bit| (at, bit))) {
        let mut stream = golden.clone();
        stream[at] ^= 1 << bit;
        let ours = decode(&stream, &[]);
        let mut server = peer(Role::Server, stream);
        let mut theirs = Vec::new();
        let refused = loop {
            match server.read() {
                Ok(Message::Binary(bytes)) => theirs.extend(bytes),
                Ok(_) => {}
                Err(Error::Io(_) | Error::ConnectionClosed) => break false,
                Err(_) => break true,
            }
        };
        // It waits for a whole frame where we refuse it by its header, so only this way round.
        if let Ok(read) = ours {
            assert!(!refused, "byte {at}, bit {bit} should be refused");
            assert!(read.data.starts_with(&theirs), "byte {at}, bit {bit}");
        }
    }
}
