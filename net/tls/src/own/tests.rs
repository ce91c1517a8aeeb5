//! Tests of the record layer against rustls on the other side, and against a forger that has the peer's keys.

use std::io::{Read, Write};

use proptest::prelude::*;
use rustls::crypto::aws_lc_rs::{cipher_suite, default_provider};
use rustls::pki_types::{PrivateKeyDer, ServerName};
use rustls::server::UnbufferedServerConnection;
use rustls::{AlertDescription, ClientConfig, ClientConnection, ServerConfig, SupportedCipherSuite};

use super::*;
use crate::records::{Records, Stopped};
use crate::{Reader, RecordLayer, Server, Writer};

const SUITES: [SupportedCipherSuite; 3] = [
    cipher_suite::TLS13_AES_128_GCM_SHA256,
    cipher_suite::TLS13_AES_256_GCM_SHA384,
    cipher_suite::TLS13_CHACHA20_POLY1305_SHA256,
];

/// Our side after the handshake, rustls' buffered client on the other.
struct Pair {
    client: ClientConnection,
    reader: Reader<Server>,
    writer: Writer<Server>,
}

fn pair(suite: SupportedCipherSuite) -> Pair {
    let mut provider = default_provider();
    provider.cipher_suites = vec![suite];
    let provider = Arc::new(provider);
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let mut roots = rustls::RootCertStore::empty();
    roots.add(made.cert.der().clone()).unwrap();
    let mut client = ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    client.enable_secret_extraction = true;
    let key = PrivateKeyDer::Pkcs8(made.signing_key.serialize_der().into());
    let mut server = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key)
        .unwrap();
    server.send_tls13_tickets = 0;
    server.enable_secret_extraction = true;

    let name = ServerName::try_from("localhost").unwrap();
    let mut client = ClientConnection::new(Arc::new(client), name).unwrap();
    let mut records = Records::<Server>::new(UnbufferedServerConnection::new(Arc::new(server)).unwrap());
    let mut incoming = Vec::new();
    loop {
        while client.wants_write() {
            client.write_tls(&mut incoming).unwrap();
        }
        let (consumed, stopped) = records.advance(&mut incoming, |_| unreachable!("no data yet")).unwrap();
        incoming.drain(..consumed);
        let owed = std::mem::take(&mut records.owed);
        receive(&mut client, &owed).unwrap();
        if stopped == Stopped::Open && !client.is_handshaking() {
            break;
        }
    }
    let (reader, writer) = records.into_halves(RecordLayer::Own).unwrap();
    Pair { client, reader, writer }
}

/// Opens `bytes` with the client, and returns their plaintext.
fn receive(client: &mut ClientConnection, mut bytes: &[u8]) -> Result<Vec<u8>, rustls::Error> {
    let mut plaintext = Vec::new();
    while !bytes.is_empty() {
        client.read_tls(&mut bytes).unwrap();
        let opened = client.process_new_packets()?.plaintext_bytes_to_read();
        let start = plaintext.len();
        plaintext.resize(start + opened, 0);
        client.reader().read_exact(&mut plaintext[start..]).unwrap();
    }
    Ok(plaintext)
}

/// What the client wants to send.
fn sent(client: &mut ClientConnection) -> Vec<u8> {
    let mut bytes = Vec::new();
    while client.wants_write() {
        client.write_tls(&mut bytes).unwrap();
    }
    bytes
}

/// Opens `bytes` and returns their plaintext.
fn open(reader: &mut Reader<Server>, bytes: &mut [u8]) -> Result<(Opened, Vec<u8>), TlsError> {
    let mut plaintext = Vec::new();
    let opened = reader.open(bytes, |data| {
        plaintext.extend_from_slice(data);
        ControlFlow::Continue(())
    })?;
    Ok((opened, plaintext))
}

fn noise(len: usize) -> Vec<u8> {
    (0..len).map(|i| (i * 31 % 251) as u8).collect()
}

#[test]
fn records_of_every_length_pass_both_ways_under_every_suite() {
    for suite in SUITES {
        let mut pair = pair(suite);
        let mut out = SealBuffer::default();
        let lengths =
            (1..600).chain((600..MAX_PLAINTEXT).step_by(97)).chain(MAX_PLAINTEXT - 2..=MAX_PLAINTEXT + 2);
        for len in lengths {
            let data = noise(len);
            pair.client.writer().write_all(&data).unwrap();
            let mut bytes = sent(&mut pair.client);
            let (opened, plaintext) = open(&mut pair.reader, &mut bytes).unwrap();
            assert_eq!((opened.consumed, opened.closed), (bytes.len(), false));
            assert!(plaintext == data, "{len} bytes from rustls under {suite:?}");
            out.clear();
            pair.writer.seal(&data, &mut out).unwrap();
            assert!(receive(&mut pair.client, out.as_slice()).unwrap() == data, "{len} bytes to rustls");
        }
    }
}

#[test]
fn a_stream_with_key_updates_means_the_same_however_it_is_cut() {
    let stream = |client: &mut ClientConnection| {
        let mut bytes = Vec::new();
        for data in [&b"one"[..], b"two", b"three"] {
            client.writer().write_all(data).unwrap();
            client.refresh_traffic_keys().unwrap();
            bytes.extend(sent(client));
        }
        bytes
    };
    let len = stream(&mut pair(SUITES[0]).client).len();
    for cut in 0..=len {
        let mut pair = pair(SUITES[0]);
        let mut bytes = stream(&mut pair.client);
        let (opened, mut plaintext) = open(&mut pair.reader, &mut bytes[..cut]).unwrap();
        let (_, rest) = open(&mut pair.reader, &mut bytes[opened.consumed..]).unwrap();
        plaintext.extend(rest);
        assert_eq!(plaintext, b"onetwothree", "cut at {cut}");
    }
}

#[test]
fn our_keys_are_replaced_in_time_and_rustls_follows() {
    for suite in SUITES {
        let mut pair = pair(suite);
        let mut out = SealBuffer::default();
        for round in 0..5 * REKEY_AFTER {
            out.clear();
            pair.writer.seal(b"data", &mut out).unwrap();
            assert_eq!(receive(&mut pair.client, out.as_slice()).unwrap(), b"data", "record {round}");
            let sequence = pair.writer.sealer().expect("records of our own").key.sequence;
            assert!(sequence <= REKEY_AFTER + 1, "{sequence} records under one key");
        }
    }
}

#[test]
fn a_requested_key_update_is_answered_once_and_first() {
    let mut pair = pair(SUITES[0]);
    let mut out = SealBuffer::default();
    pair.client.refresh_traffic_keys().unwrap();
    pair.client.refresh_traffic_keys().unwrap();
    open(&mut pair.reader, &mut sent(&mut pair.client)).unwrap();
    pair.writer.seal(b"x", &mut out).unwrap();
    let first = record_len(out.as_slice()).unwrap().unwrap();
    assert_eq!(first, RECORD_HEADER + 5 + 1 + TAG_LEN, "a KeyUpdate");
    assert_eq!(out.as_slice().len(), first + RECORD_HEADER + 1 + 1 + TAG_LEN, "and then the data");
    assert_eq!(receive(&mut pair.client, out.as_slice()).unwrap(), b"x");
}

#[test]
fn no_truncation_of_a_record_opens() {
    let mut pair = pair(SUITES[0]);
    pair.client.writer().write_all(b"secret").unwrap();
    let mut bytes = sent(&mut pair.client);
    for len in 0..bytes.len() {
        let (opened, plaintext) = open(&mut pair.reader, &mut bytes[..len]).unwrap();
        assert_eq!((opened.consumed, plaintext.len()), (0, 0), "{len} bytes");
    }
    assert_eq!(open(&mut pair.reader, &mut bytes).unwrap().1, b"secret", "and the whole still does");
}

#[test]
fn every_flipped_bit_of_a_record_is_refused() {
    for suite in SUITES {
        let len = {
            let mut pair = pair(suite);
            pair.client.writer().write_all(b"secret").unwrap();
            sent(&mut pair.client).len()
        };
        for bit in 0..8 * len {
            let mut pair = pair(suite);
            pair.client.writer().write_all(b"secret").unwrap();
            let mut bytes = sent(&mut pair.client);
            bytes[bit / 8] ^= 1 << (bit % 8);
            match open(&mut pair.reader, &mut bytes) {
                Err(TlsError::Record(error)) => {
                    let expected = match bit / 8 {
                        0 => RecordError::Unexpected,
                        3 | 4 if record_len(&bytes).is_err() => RecordError::Overflow,
                        _ => RecordError::BadRecordMac,
                    };
                    assert_eq!(error, expected, "bit {bit}");
                    assert!(matches!(
                        pair.writer.seal(b"x", &mut SealBuffer::default()),
                        Err(TlsError::Unusable)
                    ));
                    assert!(matches!(open(&mut pair.reader, &mut []), Err(TlsError::Unusable)));
                }
                // A longer length waits for more.
                Ok((opened, plaintext)) => {
                    assert!(matches!(bit / 8, 3 | 4) && record_len(&bytes) == Ok(None), "bit {bit}");
                    assert_eq!((opened.consumed, plaintext.len()), (0, 0));
                }
                Err(other) => panic!("bit {bit}: {other}"),
            }
        }
    }
}

/// The client's keys in other hands.
struct Forger(Key);

impl Forger {
    /// A record with any content type, any content, and padding.
    fn record(&mut self, kind: u8, content: &[u8], padding: usize) -> Vec<u8> {
        let mut body = [content, &[kind], &vec![0; padding], &[0; TAG_LEN]].concat();
        let [high, low] = u16::try_from(body.len()).unwrap().to_be_bytes();
        let header = [APPLICATION_DATA, 3, 3, high, low];
        let nonce = self.0.next_nonce().unwrap();
        self.0.aead.seal(nonce, &header, &mut body).unwrap();
        [&header[..], &body].concat()
    }
}

/// Our side, and a forger in place of the client, with what the client itself needs to read our alert.
fn forged() -> (Forger, Reader<Server>, Writer<Server>, Key) {
    let Pair { client, reader, writer } = pair(SUITES[0]);
    let secrets = client.dangerous_extract_secrets().unwrap();
    (Forger(Key::new(secrets.tx).unwrap()), reader, writer, Key::new(secrets.rx).unwrap())
}

/// The alert that our side sends at its end.
fn last_word(writer: &mut Writer<Server>, mut key: Key) -> [u8; 2] {
    let mut out = SealBuffer::default();
    writer.close(&mut out).unwrap();
    let mut bytes = out.as_slice().to_vec();
    let (header, body) = bytes.split_first_chunk_mut::<RECORD_HEADER>().unwrap();
    let nonce = key.next_nonce().unwrap();
    let inner = key.aead.open(nonce, header, body).unwrap();
    assert_eq!(inner[2], ALERT);
    [inner[0], inner[1]]
}

#[test]
fn padding_is_taken_off() {
    let (mut forger, mut reader, ..) = forged();
    for padding in [0, 1, 255, 10_000] {
        let mut bytes = forger.record(APPLICATION_DATA, b"data\0\0", padding);
        assert_eq!(open(&mut reader, &mut bytes).unwrap().1, b"data\0\0");
    }
    let mut longest = forger.record(APPLICATION_DATA, &noise(MAX_PLAINTEXT), 0);
    assert_eq!(open(&mut reader, &mut longest).unwrap().1.len(), MAX_PLAINTEXT);
}

#[test]
fn what_a_peer_must_not_send_is_refused_with_the_alert_that_says_so() {
    use RecordError::{Decode, Overflow, Unexpected};
    let update = |request| [KEY_UPDATE, 0, 0, 1, request];
    let cases: [(&str, u8, Vec<u8>, RecordError); 12] = [
        ("padding only", 0, Vec::new(), Unexpected),
        ("a change of cipher", 20, vec![1], Unexpected),
        ("a heartbeat", 24, vec![1, 0, 0], Unexpected),
        ("data that is too long", APPLICATION_DATA, noise(MAX_PLAINTEXT + 1), Overflow),
        ("an alert of one byte", ALERT, vec![1], Decode),
        ("an empty alert", ALERT, Vec::new(), Decode),
        ("an empty handshake record", HANDSHAKE, Vec::new(), Unexpected),
        ("a ClientHello", HANDSHAKE, vec![1, 0, 0, 0], Unexpected),
        ("a ticket from a client", HANDSHAKE, vec![NEW_SESSION_TICKET, 0, 0, 0], Unexpected),
        ("a KeyUpdate of two bytes", HANDSHAKE, vec![KEY_UPDATE, 0, 0, 2, 0, 0], Decode),
        ("a KeyUpdate that requests 2", HANDSHAKE, update(2).to_vec(), Decode),
        ("a message behind a KeyUpdate", HANDSHAKE, [update(0), update(0)].concat(), Unexpected),
    ];
    for (what, kind, content, expected) in cases {
        let (mut forger, mut reader, mut writer, key) = forged();
        let refused = open(&mut reader, &mut forger.record(kind, &content, 0));
        assert!(matches!(refused, Err(TlsError::Record(error)) if error == expected), "{what}: {refused:?}");
        let alert = expected.alert().expect("these have one");
        assert_eq!(last_word(&mut writer, key), [LEVEL_FATAL, alert], "{what}");
    }
}

#[test]
fn records_in_clear_and_records_that_are_too_long_are_refused_by_their_header() {
    for (header, expected) in [
        ([20, 3, 3, 0, 1], RecordError::Unexpected),
        ([ALERT, 3, 3, 0, 2], RecordError::Unexpected),
        ([HANDSHAKE, 3, 3, 0, 5], RecordError::Unexpected),
        ([APPLICATION_DATA, 3, 3, 0x41, 0x01], RecordError::Overflow),
    ] {
        let (_, mut reader, mut writer, key) = forged();
        let refused = open(&mut reader, &mut header.clone());
        assert!(
            matches!(refused, Err(TlsError::Record(error)) if error == expected),
            "{header:?}: {refused:?}"
        );
        assert_eq!(last_word(&mut writer, key), [LEVEL_FATAL, expected.alert().unwrap()]);
    }
}

#[test]
fn messages_in_pieces_are_refused() {
    for piece in [&[KEY_UPDATE][..], &[KEY_UPDATE, 0, 0, 1], &[KEY_UPDATE, 0]] {
        let (mut forger, mut reader, mut writer, key) = forged();
        let refused = open(&mut reader, &mut forger.record(HANDSHAKE, piece, 0));
        assert!(matches!(refused, Err(TlsError::HandshakeInPieces)), "{refused:?}");
        assert_eq!(last_word(&mut writer, key), [LEVEL_FATAL, 10]);
    }
}

#[test]
fn records_without_data_are_limited_in_a_row_and_not_in_all() {
    let (mut forger, mut reader, ..) = forged();
    for _ in 0..3 {
        for _ in 0..MAX_IDLE_RECORDS {
            open(&mut reader, &mut forger.record(APPLICATION_DATA, b"", 100)).unwrap();
        }
        open(&mut reader, &mut forger.record(APPLICATION_DATA, b"x", 0)).unwrap();
    }
    for _ in 0..MAX_IDLE_RECORDS {
        open(&mut reader, &mut forger.record(ALERT, &[1, USER_CANCELED], 0)).unwrap();
    }
    let refused = open(&mut reader, &mut forger.record(APPLICATION_DATA, b"", 0));
    assert!(matches!(refused, Err(TlsError::Record(RecordError::Idle))), "{refused:?}");
}

/// Lets the client of `pair` send `data` records of data and then a KeyUpdate that asks for one, and our side answer with
/// `answers` records.
fn update(pair: &mut Pair, data: u32, answers: u32) -> Result<(), TlsError> {
    let mut out = SealBuffer::default();
    for _ in 0..data {
        pair.client.writer().write_all(b"x").unwrap();
    }
    pair.client.refresh_traffic_keys().unwrap();
    open(&mut pair.reader, &mut sent(&mut pair.client))?;
    for _ in 0..answers {
        pair.writer.seal(b"y", &mut out).unwrap();
    }
    receive(&mut pair.client, out.as_slice()).unwrap();
    Ok(())
}

/// How many of 200 such updates are taken.
fn updates_taken(data: u32, answers: u32) -> usize {
    let mut pair = pair(SUITES[0]);
    for taken in 0..200 {
        match update(&mut pair, data, answers) {
            Ok(()) => {}
            Err(TlsError::Record(RecordError::KeyUpdates)) => {
                let mut out = SealBuffer::default();
                pair.writer.close(&mut out).unwrap();
                let told = receive(&mut pair.client, out.as_slice()).unwrap_err();
                assert_eq!(told, rustls::Error::AlertReceived(AlertDescription::UnexpectedMessage));
                return taken;
            }
            Err(other) => panic!("update {taken}: {other}"),
        }
    }
    200
}

#[test]
fn key_updates_are_refused_beyond_the_rate_of_the_records_between_them() {
    assert_eq!(updates_taken(0, 0), 32, "in a row");
    assert!((32..=34).contains(&updates_taken(1, 0)), "data between them earns next to nothing");
    assert!((32..=35).contains(&updates_taken(1, 1)), "nor do answers");
}

/// Whichever direction it changes keys for.
#[test]
fn a_peer_that_changes_keys_at_the_rate_of_the_records_is_never_refused() {
    let one = updates::RECORDS_FOR_ONE;
    assert_eq!(updates_taken(one, 0), 200, "that it sends");
    assert_eq!(updates_taken(1, one), 200, "that it receives");
    assert_eq!(updates_taken(one / 2, one / 2), 200, "together");
}

#[test]
fn the_end_is_told_and_understood() {
    let mut pair = pair(SUITES[0]);
    pair.client.writer().write_all(b"last").unwrap();
    pair.client.send_close_notify();
    let mut bytes = [sent(&mut pair.client), b"anything".to_vec()].concat();
    let (opened, plaintext) = open(&mut pair.reader, &mut bytes).unwrap();
    assert_eq!((opened.closed, &plaintext[..]), (true, &b"last"[..]));
    let mut out = SealBuffer::default();
    pair.writer.seal(b"answer", &mut out).unwrap();
    pair.writer.close(&mut out).unwrap();
    assert_eq!(receive(&mut pair.client, out.as_slice()).unwrap(), b"answer");
    assert!(pair.client.process_new_packets().unwrap().peer_has_closed());
}

#[test]
fn a_fatal_alert_is_the_peers_last_word() {
    let (mut forger, mut reader, mut writer, key) = forged();
    let refused = open(&mut reader, &mut forger.record(ALERT, &[2, 80], 0));
    assert!(matches!(refused, Err(TlsError::Record(RecordError::Alert(80)))), "{refused:?}");
    assert_eq!(last_word(&mut writer, key), [LEVEL_WARNING, CLOSE_NOTIFY], "it is not told what it told us");
}

#[test]
fn rustls_understands_our_alerts() {
    let mut pair = pair(SUITES[0]);
    pair.client.writer().write_all(b"secret").unwrap();
    let mut bytes = sent(&mut pair.client);
    bytes[9] ^= 1;
    open(&mut pair.reader, &mut bytes).unwrap_err();
    let mut out = SealBuffer::default();
    pair.writer.close(&mut out).unwrap();
    let told = receive(&mut pair.client, out.as_slice()).unwrap_err();
    assert_eq!(told, rustls::Error::AlertReceived(AlertDescription::BadRecordMac));
}

#[test]
fn a_sequence_that_would_come_round_ends_the_connection() {
    let (mut forger, mut reader, ..) = forged();
    let opener = reader.opener().expect("records of our own");
    opener.key.sequence = u64::MAX - 1;
    forger.0.sequence = u64::MAX - 1;
    open(&mut reader, &mut forger.record(APPLICATION_DATA, b"the last", 0)).unwrap();
    let any = [APPLICATION_DATA, 3, 3, 0, 17].iter().copied().chain([0; 17]).collect::<Vec<_>>();
    assert!(matches!(open(&mut reader, &mut any.clone()), Err(TlsError::Unusable)));
}

/// One record of a stream that a forger makes up.
#[derive(Clone, Debug)]
struct Made {
    kind: u8,
    content: Vec<u8>,
    padding: usize,
    /// Which byte of the record is changed, and how.
    change: Option<(usize, u8)>,
}

fn made() -> impl Strategy<Value = Made> {
    let kind =
        prop_oneof![6 => Just(APPLICATION_DATA), 2 => Just(HANDSHAKE), 1 => Just(ALERT), 1 => any::<u8>()];
    let content = prop_oneof![
        4 => prop::collection::vec(any::<u8>(), 0..80),
        1 => Just(vec![KEY_UPDATE, 0, 0, 1, 0]),
        1 => Just(vec![1, CLOSE_NOTIFY]),
        1 => Just(vec![1, USER_CANCELED]),
    ];
    let change = prop::option::weighted(0.1, (0usize..100, 1u8..));
    (kind, content, 0usize..40, change).prop_map(|(kind, content, padding, change)| Made {
        kind,
        content,
        padding,
        change,
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    /// Whatever a peer with the keys sends, and however it is cut: what is handed on is the data that was sealed, in
    /// order, up to the first record that ends the stream, and never a byte of what comes behind it.
    #[test]
    fn what_is_handed_on_is_what_was_sealed(stream in prop::collection::vec(made(), 1..12), cuts in prop::collection::vec(0usize..300, 0..6)) {
        let (mut forger, mut reader, ..) = forged();
        let (mut bytes, mut expected, mut ended) = (Vec::new(), Vec::new(), false);
        for Made { kind, content, padding, change } in stream {
            let mut record = forger.record(kind, &content, padding);
            let whole = match change {
                // The version is not looked at where the record says it, but it is sealed with the rest.
                Some((at, with)) => {
                    let at = at % record.len();
                    record[at] ^= with;
                    false
                }
                None => true,
            };
            bytes.extend(record);
            if !whole || kind != APPLICATION_DATA {
                // A key update that is none of the client's leaves both sides with different keys, which ends it, too.
                let continues = whole && kind == ALERT && content == [1, USER_CANCELED];
                ended |= !continues;
            }
            if !ended && kind == APPLICATION_DATA {
                expected.extend(content);
            }
        }
        let (mut received, mut pending, mut rest) = (Vec::new(), Vec::new(), &bytes[..]);
        for cut in cuts.into_iter().chain([usize::MAX]) {
            let (piece, later) = rest.split_at(cut.min(rest.len()));
            rest = later;
            pending.extend_from_slice(piece);
            match reader.open(&mut pending, |data| { received.extend_from_slice(data); ControlFlow::Continue(()) }) {
                Ok(opened) if !opened.closed => { pending.drain(..opened.consumed); }
                _ => break,
            }
        }
        prop_assert_eq!(received, expected);
    }
}
