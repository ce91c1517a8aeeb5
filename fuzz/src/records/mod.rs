//! The record layer against a peer that has the keys and sends anything.
//!
//! The peer is written from RFC 8446 alone: it takes the traffic secrets of a handshake and derives every key from them
//! itself. So an error in the keys, nonces or key updates of the record layer does not cancel out.

mod handshake;
mod peer;

use std::ops::ControlFlow;

use arbitrary::{Arbitrary, Unstructured};
use towpath_tls::{Reader, RecordError, SealBuffer, TlsError, Writer};

use handshake::shake_hands;
use peer::{ALERT, APPLICATION_DATA, HANDSHAKE, KEY_UPDATE, Peer, TAG_LEN};

/// Records without data that may come in a row.
const MAX_IDLE: u32 = 32;
/// Key updates that may come before the 65,536 records that earn one more, which no input here is long enough for.
const MAX_UPDATES: u32 = 32;
const MAX_PLAINTEXT: usize = 16 * 1024;
/// The most that the sealed part of a record may have (RFC 8446 section 5.2).
const MAX_BODY: usize = MAX_PLAINTEXT + 256;
const LONGER_THAN_ALLOWED: usize = 17_000;
const CLOSE_NOTIFY: u8 = 0;
const USER_CANCELED: u8 = 90;
/// More steps than this reach nothing new.
const MAX_STEPS: usize = 64;

#[derive(Arbitrary, Debug)]
enum Step {
    /// The peer sends data, as long as this says, in a record with padding.
    Data { len: u16, padding: u8 },
    /// The peer sends nothing, in a record.
    Empty { padding: u8 },
    /// The peer changes its keys, and may ask us to change ours.
    KeyUpdate { requested: bool },
    /// The peer sends an alert.
    Alert(u8),
    /// The peer sends a record of any kind with any content.
    Any { kind: u8, content: Vec<u8> },
    /// The peer sends data, and something on the way changes a byte of the record.
    Changed { at: u8, with: u8 },
    /// The peer sends a record in clear.
    Clear { kind: u8 },
    /// What was sent arrives, up to this many bytes.
    Arrive { bytes: u8 },
    /// We send data, as long as this says.
    Send { len: u16 },
}

/// What the reading side must come to.
#[derive(Clone, Copy, Debug, PartialEq)]
enum End {
    Closed,
    Error(RecordError),
    InPieces,
    /// A record was changed on the way. It opens under no circumstances; it may wait for the rest of a false length.
    Changed,
}

/// Plays the steps against both directions.
pub(crate) fn both_ways(input: &[u8]) {
    let mut steps = Unstructured::new(input);
    let suite = steps.arbitrary::<u8>().unwrap_or(0);
    let mut connection = Connection::new(suite);
    for _ in 0..MAX_STEPS {
        let Ok(step) = Step::arbitrary(&mut steps) else { break };
        connection.play(step);
        if steps.is_empty() {
            break;
        }
    }
    connection.arrive(usize::MAX);
    connection.assert_end();
}

struct Connection {
    peer: Peer,
    reader: Reader<towpath_tls::Server>,
    writer: Writer<towpath_tls::Server>,
    /// What the peer sent and has not arrived, and what has arrived and is not a whole record.
    wire: Vec<u8>,
    pending: Vec<u8>,
    /// What must be handed on, of which so much has been.
    expected: Vec<u8>,
    received: usize,
    idle: u32,
    updates: u32,
    /// Key updates that the peer has asked for, with how much of what it sent they have been.
    requests: Vec<usize>,
    sent: usize,
    consumed: usize,
    /// How it must end, once what was sent has arrived.
    end: Option<End>,
    ended: Option<Result<(), TlsError>>,
}

impl Connection {
    fn new(suite: u8) -> Self {
        let (peer, reader, writer) = shake_hands(suite);
        Self {
            peer,
            reader,
            writer,
            wire: Vec::new(),
            pending: Vec::new(),
            expected: Vec::new(),
            received: 0,
            idle: 0,
            updates: 0,
            requests: Vec::new(),
            sent: 0,
            consumed: 0,
            end: None,
            ended: None,
        }
    }

    fn play(&mut self, step: Step) {
        match step {
            Step::Data { len, padding } => {
                self.peer_sends_data(noise(usize::from(len) % LONGER_THAN_ALLOWED), padding.into());
            }
            Step::Empty { padding } => self.peer_sends_data(Vec::new(), padding.into()),
            Step::KeyUpdate { requested } => {
                self.peer_sends(HANDSHAKE, &[KEY_UPDATE, 0, 0, 1, u8::from(requested)], 0);
                self.peer.tx.update();
            }
            Step::Alert(alert) => self.peer_sends(ALERT, &[1, alert], 0),
            // A peer that sends a KeyUpdate must change its keys.
            Step::Any { kind: HANDSHAKE, content } if matches!(content[..], [KEY_UPDATE, 0, 0, 1, 0 | 1]) => {
                self.play(Step::KeyUpdate { requested: content[4] == 1 });
            }
            Step::Any { kind: APPLICATION_DATA, content } => self.peer_sends_data(content, 0),
            Step::Any { kind, content } => self.peer_sends(kind, &content, 0),
            Step::Changed { at, with } => self.change_a_record(at, with),
            Step::Clear { kind } => {
                self.ends_with(match kind {
                    APPLICATION_DATA => End::Changed,
                    _ => End::Error(RecordError::Unexpected),
                });
                self.wire.extend([kind, 3, 3, 0, 0]);
                self.sent += 5;
            }
            Step::Arrive { bytes } => self.arrive(bytes.into()),
            Step::Send { len } => self.send(&noise(len.into())),
        }
    }

    /// Nothing counts any more behind what ends the stream.
    fn ends_with(&mut self, end: End) {
        self.end.get_or_insert(end);
    }

    fn peer_sends_data(&mut self, data: Vec<u8>, padding: usize) {
        if data.len() > MAX_PLAINTEXT || data.len() + 1 + padding + TAG_LEN > MAX_BODY {
            self.ends_with(End::Error(RecordError::Overflow));
        } else if self.end.is_none() && data.is_empty() {
            self.note_idle();
        } else if self.end.is_none() {
            self.idle = 0;
            self.expected.extend_from_slice(&data);
        }
        self.put(APPLICATION_DATA, &data, padding);
    }

    /// Sends a record that is not data.
    fn peer_sends(&mut self, kind: u8, content: &[u8], padding: usize) {
        if self.end.is_none() {
            match end_of(kind, content) {
                Some(end) => self.ends_with(end),
                None => {
                    if matches!(content, [KEY_UPDATE, 0, 0, 1, 0 | 1]) && kind == HANDSHAKE {
                        self.note_update();
                    }
                    self.note_idle();
                    if content == [KEY_UPDATE, 0, 0, 1, 1] && self.end.is_none() {
                        self.requests.push(self.sent);
                    }
                }
            }
        }
        self.put(kind, content, padding);
    }

    fn note_update(&mut self) {
        self.updates += 1;
        if self.updates > MAX_UPDATES {
            self.ends_with(End::Error(RecordError::KeyUpdates));
        }
    }

    fn note_idle(&mut self) {
        self.idle += 1;
        if self.idle > MAX_IDLE {
            self.ends_with(End::Error(RecordError::Idle));
        }
    }

    fn put(&mut self, kind: u8, content: &[u8], padding: usize) {
        let record = self.peer.tx.seal(kind, content, padding);
        self.sent += record.len();
        self.wire.extend(record);
    }

    fn change_a_record(&mut self, at: u8, with: u8) {
        let mut record = self.peer.tx.seal(APPLICATION_DATA, b"changed on its way", 0);
        let at = usize::from(at) % record.len();
        record[at] ^= with | 1;
        self.ends_with(End::Changed);
        self.sent += record.len();
        self.wire.extend(record);
    }

    /// Lets so many bytes arrive.
    fn arrive(&mut self, bytes: usize) {
        self.pending.extend(self.wire.drain(..bytes.min(self.wire.len())));
        if self.ended.is_some() {
            return;
        }
        let (expected, received) = (&self.expected, &mut self.received);
        let opened = self.reader.open(&mut self.pending, |data| {
            assert!(
                expected[*received..].starts_with(data),
                "what is handed on is what was sealed, in order"
            );
            *received += data.len();
            ControlFlow::Continue(())
        });
        match opened {
            Ok(opened) => {
                self.pending.drain(..opened.consumed);
                self.consumed += opened.consumed;
                assert!(
                    opened.closed || self.pending.len() < towpath_tls::MAX_RECORD,
                    "a whole record is opened"
                );
                if opened.closed {
                    self.ended = Some(Ok(()));
                }
            }
            Err(error) => self.ended = Some(Err(error)),
        }
    }

    /// Sends data, which the peer opens.
    fn send(&mut self, data: &[u8]) {
        let mut out = SealBuffer::default();
        let sealed = self.writer.seal(data, &mut out);
        if matches!(self.ended, Some(Err(TlsError::Record(error))) if !matches!(error, RecordError::Alert(_)))
            || matches!(self.ended, Some(Err(TlsError::HandshakeInPieces)))
        {
            assert!(matches!(sealed, Err(TlsError::Unusable)) && out.is_empty(), "nothing but the alert");
            return;
        }
        sealed.expect("the writing side goes on");
        let mut records = out.as_slice();
        let before = self.requests.len();
        let read = if self.ended.is_some() { usize::MAX } else { self.consumed };
        self.requests.retain(|at| *at >= read);
        if self.requests.len() < before {
            let (kind, content) = self.peer.rx.open(&mut records);
            assert_eq!((kind, &content[..]), (HANDSHAKE, &[KEY_UPDATE, 0, 0, 1, 0][..]), "one answer, first");
            self.peer.rx.update();
        }
        let mut opened = Vec::new();
        while !records.is_empty() {
            let (kind, content) = self.peer.rx.open(&mut records);
            assert!(kind == APPLICATION_DATA && (1..=MAX_PLAINTEXT).contains(&content.len()));
            opened.extend(content);
        }
        assert!(opened == data, "{} bytes arrive as {}", data.len(), opened.len());
    }

    fn assert_end(mut self) {
        assert_eq!(self.received, self.expected.len(), "all that was sealed is handed on");
        match (self.end, &self.ended) {
            (None, None) | (Some(End::Closed), Some(Ok(()))) | (Some(End::Changed), None) => {}
            (Some(End::Error(expected)), Some(Err(TlsError::Record(error)))) => assert_eq!(*error, expected),
            (Some(End::InPieces), Some(Err(TlsError::HandshakeInPieces))) => {}
            (Some(End::Changed), Some(Err(TlsError::Record(error)))) => assert!(matches!(
                error,
                RecordError::BadRecordMac | RecordError::Unexpected | RecordError::Overflow
            )),
            (expected, found) => panic!("{expected:?} and not {found:?}"),
        }
        if self.ended.as_ref().is_some_and(Result::is_err) {
            let again =
                self.reader.open(&mut self.pending, |_| unreachable!("nothing is opened after an error"));
            assert!(matches!(again, Err(TlsError::Unusable)));
        }
        self.assert_last_word();
    }

    /// The alert at the end says what the peer did wrong.
    fn assert_last_word(mut self) {
        let mut out = SealBuffer::default();
        self.writer.close(&mut out).expect("an alert");
        let mut records = out.as_slice();
        let (kind, content) = self.peer.rx.open(&mut records);
        let expected = match &self.ended {
            Some(Err(
                TlsError::Record(RecordError::Unexpected | RecordError::Idle | RecordError::KeyUpdates)
                | TlsError::HandshakeInPieces,
            )) => [2, 10],
            Some(Err(TlsError::Record(RecordError::BadRecordMac))) => [2, 20],
            Some(Err(TlsError::Record(RecordError::Overflow))) => [2, 22],
            Some(Err(TlsError::Record(RecordError::Decode))) => [2, 50],
            _ => [1, CLOSE_NOTIFY],
        };
        assert_eq!((kind, &content[..], records), (ALERT, &expected[..], &[][..]));
    }
}

/// How a record that is not data ends the stream, by RFC 8446 sections 4.6.3, 5.1 and 6; `None` if it does not.
fn end_of(kind: u8, content: &[u8]) -> Option<End> {
    let unexpected = Some(End::Error(RecordError::Unexpected));
    if content.len() > MAX_PLAINTEXT {
        return Some(End::Error(RecordError::Overflow));
    }
    match (kind, content) {
        (ALERT, [_, CLOSE_NOTIFY]) => Some(End::Closed),
        (ALERT, [_, USER_CANCELED]) => None,
        (ALERT, [_, other]) => Some(End::Error(RecordError::Alert(*other))),
        (ALERT, _) => Some(End::Error(RecordError::Decode)),
        (HANDSHAKE, []) => unexpected,
        (HANDSHAKE, &[message, a, b, c, ref rest @ ..]) => {
            let len = u32::from_be_bytes([0, a, b, c]) as usize;
            match (message, rest.get(..len)) {
                (_, None) => Some(End::InPieces),
                (KEY_UPDATE, Some([0 | 1])) if rest.len() == 1 => None,
                (KEY_UPDATE, Some([0 | 1])) => unexpected,
                (KEY_UPDATE, Some(_)) => Some(End::Error(RecordError::Decode)),
                _ => unexpected,
            }
        }
        (HANDSHAKE, _) => Some(End::InPieces),
        _ => unexpected,
    }
}

/// Data of which no two places within reach are alike.
fn noise(len: usize) -> Vec<u8> {
    (0..len).map(|index| (index * 31 % 251) as u8).collect()
}
