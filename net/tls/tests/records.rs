//! The stream and its halves against rustls' own buffered client, which is the oracle for every byte.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on shall say where")]

use std::collections::HashSet;
use std::io::{Read, Write};
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use rustls::crypto::CryptoProvider;
use rustls::crypto::aws_lc_rs::default_provider;
use rustls::pki_types::{PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, ServerConfig, SupportedProtocolVersion};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use towpath_tls::{
    ExporterLog, HandshakeError, Parts, RecordError, RecordLayer, SealBuffer, Stream, TlsError,
};

type Client = Stream<DuplexStream, towpath_tls::Client>;
type Server = Stream<DuplexStream, towpath_tls::Server>;

/// A client and a server that trust each other and speak `version`.
fn configs(version: &'static SupportedProtocolVersion) -> (Arc<ClientConfig>, Arc<ServerConfig>) {
    configs_with(default_provider(), version)
}

/// A client and a server that trust each other, of which the client speaks `version` by `provider`.
fn configs_with(
    provider: CryptoProvider,
    version: &'static SupportedProtocolVersion,
) -> (Arc<ClientConfig>, Arc<ServerConfig>) {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let mut roots = RootCertStore::empty();
    roots.add(made.cert.der().clone()).unwrap();
    let mut client = ClientConfig::builder_with_provider(Arc::new(provider))
        .with_protocol_versions(&[version])
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    client.enable_secret_extraction = true;
    client.key_log = Arc::new(ExporterLog);
    let key = PrivateKeyDer::Pkcs8(made.signing_key.serialize_der().into());
    let mut server = ServerConfig::builder_with_provider(Arc::new(default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key)
        .unwrap();
    server.send_tls13_tickets = 0;
    server.enable_secret_extraction = true;
    server.key_log = Arc::new(ExporterLog);
    (Arc::new(client), Arc::new(server))
}

/// rustls' buffered client on the other end of a pipe.
struct Oracle {
    connection: ClientConnection,
    io: DuplexStream,
    plaintext: Vec<u8>,
}

impl Oracle {
    /// Sends what the connection wants to send.
    async fn send(&mut self) {
        let mut out = Vec::new();
        while self.connection.wants_write() {
            self.connection.write_tls(&mut out).unwrap();
        }
        self.io.write_all(&out).await.unwrap();
    }

    /// Receives once; whether the other side is still there.
    async fn receive(&mut self) -> bool {
        let mut bytes = vec![0; 40_000];
        let read = self.io.read(&mut bytes).await.unwrap();
        let mut rest = &bytes[..read];
        while !rest.is_empty() {
            self.connection.read_tls(&mut rest).unwrap();
            let opened = self.connection.process_new_packets().unwrap().plaintext_bytes_to_read();
            let start = self.plaintext.len();
            self.plaintext.resize(start + opened, 0);
            self.connection.reader().read_exact(&mut self.plaintext[start..]).unwrap();
        }
        read > 0
    }

    async fn read_exact(&mut self, len: usize) -> Vec<u8> {
        while self.plaintext.len() < len {
            assert!(self.receive().await, "the server closed after {} bytes", self.plaintext.len());
        }
        self.plaintext.drain(..len).collect()
    }
}

async fn connect(version: &'static SupportedProtocolVersion) -> (Oracle, Server) {
    let (client, server) = configs(version);
    connect_with(client, server).await
}

async fn connect_with(client: Arc<ClientConfig>, server: Arc<ServerConfig>) -> (Oracle, Server) {
    let (near, far) = tokio::io::duplex(1 << 20);
    let connection = ClientConnection::new(client, ServerName::try_from("localhost").unwrap()).unwrap();
    let mut oracle = Oracle { connection, io: near, plaintext: Vec::new() };
    let server = tokio::spawn(Server::accept(far, server));
    while oracle.connection.is_handshaking() {
        oracle.send().await;
        if oracle.connection.is_handshaking() {
            assert!(oracle.receive().await);
        }
    }
    oracle.send().await;
    (oracle, server.await.unwrap().unwrap())
}

#[tokio::test]
async fn a_client_that_closes_with_its_last_flight_is_heard_and_answered() {
    for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
        let (client, server) = configs(version);
        let (near, far) = tokio::io::duplex(1 << 20);
        let connection = ClientConnection::new(client, ServerName::try_from("localhost").unwrap()).unwrap();
        let mut oracle = Oracle { connection, io: near, plaintext: Vec::new() };
        let handshake = Server::accept(far, server);
        let server = tokio::spawn(async {
            let mut server = handshake.await.unwrap();
            let mut request = Vec::new();
            server.read_to_end(&mut request).await.unwrap();
            server.write_all(b"answer").await.unwrap();
            server.flush().await.unwrap();
            request
        });
        oracle.send().await;
        assert!(oracle.receive().await);
        // In TLS 1.2 the client may send data once the server has finished, in TLS 1.3 with its own Finished.
        while oracle.connection.is_handshaking() {
            oracle.send().await;
            assert!(oracle.receive().await);
        }
        oracle.connection.writer().write_all(b"request").unwrap();
        oracle.connection.send_close_notify();
        oracle.send().await;
        assert_eq!(oracle.read_exact(6).await, b"answer");
        assert_eq!(server.await.unwrap(), b"request");
    }
}

const LABEL: &[u8] = b"EXPORTER-Channel-Binding";

/// rustls' exporter is the oracle, for both hashes that TLS 1.3 has. TLS 1.2 has none here.
#[tokio::test]
async fn a_connection_exports_what_the_other_end_does_and_no_other_connection() {
    let mut exported = HashSet::new();
    for suite in default_provider().cipher_suites.into_iter().filter(|suite| suite.tls13().is_some()) {
        let provider = CryptoProvider { cipher_suites: vec![suite], ..default_provider() };
        let (client, server) = configs_with(provider, suite.version());
        let (oracle, server) = connect_with(client, server).await;
        let by_rustls = oracle.connection.export_keying_material([0; 32], LABEL, None).unwrap();
        assert_eq!(server.exporter(LABEL), Some(by_rustls), "{suite:?}");
        assert!(exported.insert(by_rustls), "another connection exports something else");
        let longer = oracle.connection.export_keying_material([0; 100], b"other", None).unwrap();
        assert_eq!(server.exporter(b"other"), Some(longer), "{suite:?}");
        assert_eq!(server.exporter::<32>(&[b'x'; 250]), None, "no label is that long");
    }
    let (_, server) = connect(&rustls::version::TLS12).await;
    assert_eq!(server.exporter::<32>(LABEL), None);
    assert_eq!(exported.len(), 3, "the suites of TLS 1.3");
}

#[tokio::test]
async fn both_sides_of_the_stream_export_the_same_if_their_configurations_have_the_log() {
    let (client, server) = configs(&rustls::version::TLS13);
    let mut silent = ClientConfig::clone(&client);
    silent.key_log = Arc::new(rustls::NoKeyLog);
    for (client, has_log) in [(client, true), (Arc::new(silent), false)] {
        let (near, far) = tokio::io::duplex(1 << 20);
        let name = ServerName::try_from("localhost").unwrap();
        let (near, far) =
            tokio::join!(Client::connect(near, client, name), Server::accept(far, server.clone()));
        let [near, far] = [near.unwrap().exporter::<32>(LABEL), far.unwrap().exporter::<32>(LABEL)];
        assert!(far.is_some());
        assert_eq!(near, far.filter(|_| has_log));
    }
}

fn noise(len: usize) -> Vec<u8> {
    (0..len).map(|i| (i * 31 % 251) as u8).collect()
}

#[tokio::test]
async fn bytes_of_any_length_pass_both_ways_through_the_stream() {
    for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
        let (mut oracle, mut server) = connect(version).await;
        for len in [1, 100, 16_383, 16_384, 16_385, 70_000] {
            oracle.connection.set_buffer_limit(None);
            oracle.connection.writer().write_all(&noise(len)).unwrap();
            oracle.send().await;
            let mut read = vec![0; len];
            server.read_exact(&mut read).await.unwrap();
            assert_eq!(read, noise(len));
            server.write_all(&read).await.unwrap();
            server.flush().await.unwrap();
            assert_eq!(oracle.read_exact(len).await, read);
        }
        oracle.connection.send_close_notify();
        oracle.send().await;
        assert_eq!(server.read(&mut [0; 10]).await.unwrap(), 0, "close_notify is the end");
        server.shutdown().await.unwrap();
        assert!(oracle.receive().await);
        assert!(oracle.connection.process_new_packets().unwrap().peer_has_closed());
    }
}

#[tokio::test]
async fn the_halves_go_on_where_the_stream_stopped_whatever_the_cut() {
    for (version, layer) in ALL {
        let (mut oracle, mut server) = connect(version).await;
        // The stream is taken apart after it has read some of these bytes, opened more, and received part of a record.
        oracle.connection.writer().write_all(b"first").unwrap();
        let mut sent = Vec::new();
        oracle.connection.write_tls(&mut sent).unwrap();
        oracle.connection.writer().write_all(b"second").unwrap();
        let cut = sent.len() + 9;
        oracle.connection.write_tls(&mut sent).unwrap();
        oracle.io.write_all(&sent[..cut]).await.unwrap();
        let mut start = [0; 2];
        server.read_exact(&mut start).await.unwrap();

        let parts = server.into_parts(layer).unwrap();
        let Parts { mut io, mut reader, mut writer, incoming, plaintext } = parts;
        assert_eq!((&start[..], &plaintext[..], incoming.len()), (&b"fi"[..], &b"rst"[..], 9));
        let mut ciphertext = [&incoming, &sent[cut..]].concat();
        for until in incoming.len()..ciphertext.len() {
            let opened =
                reader.open(&mut ciphertext.clone()[..until], |_| unreachable!("no whole record")).unwrap();
            assert_eq!(opened.consumed, 0);
        }
        let mut received = Vec::new();
        let opened = reader.open(&mut ciphertext, |bytes| {
            received.extend_from_slice(bytes);
            ControlFlow::Continue(())
        });
        assert_eq!(opened.unwrap().consumed, ciphertext.len());
        assert_eq!(received, b"second");

        let mut sealed = SealBuffer::with_capacity(64);
        for len in [1, 16_384, 16_385, 50_000] {
            sealed.clear();
            writer.seal(&noise(len), &mut sealed).unwrap();
            io.write_all(sealed.as_slice()).await.unwrap();
            assert_eq!(oracle.read_exact(len).await, noise(len));
        }
        sealed.clear();
        writer.close(&mut sealed).unwrap();
        io.write_all(sealed.as_slice()).await.unwrap();
        oracle.receive().await;
        assert!(oracle.connection.process_new_packets().unwrap().peer_has_closed());
    }
}

#[tokio::test]
async fn a_key_update_is_answered_before_what_is_sealed_next() {
    for layer in [RecordLayer::Rustls, RecordLayer::Own] {
        let (mut oracle, server) = connect(&rustls::version::TLS13).await;
        let Parts { mut io, mut reader, mut writer, .. } = server.into_parts(layer).unwrap();
        let mut sealed = SealBuffer::default();
        for round in 0..3 {
            oracle.connection.refresh_traffic_keys().unwrap();
            oracle.connection.writer().write_all(b"under new keys").unwrap();
            let mut ciphertext = Vec::new();
            while oracle.connection.wants_write() {
                oracle.connection.write_tls(&mut ciphertext).unwrap();
            }
            let mut received = Vec::new();
            let opened = reader
                .open(&mut ciphertext, |bytes| {
                    received.extend_from_slice(bytes);
                    ControlFlow::Continue(())
                })
                .unwrap();
            assert_eq!(
                (opened.consumed, &received[..]),
                (ciphertext.len(), &b"under new keys"[..]),
                "round {round}"
            );
            sealed.clear();
            writer.seal(b"answer", &mut sealed).unwrap();
            io.write_all(sealed.as_slice()).await.unwrap();
            assert_eq!(oracle.read_exact(6).await, b"answer", "round {round}");
        }
    }
}

/// Every version with every record layer.
const ALL: [(&SupportedProtocolVersion, RecordLayer); 4] = [
    (&rustls::version::TLS12, RecordLayer::Rustls),
    (&rustls::version::TLS13, RecordLayer::Rustls),
    (&rustls::version::TLS12, RecordLayer::Own),
    (&rustls::version::TLS13, RecordLayer::Own),
];

#[tokio::test]
async fn a_close_that_the_stream_has_read_is_known_to_the_reader() {
    for (version, layer) in ALL {
        for behind in [&b""[..], &[23, 3, 3, 0, 1, 0], &[23, 3]] {
            let (mut oracle, mut server) = connect(version).await;
            oracle.connection.writer().write_all(b"last").unwrap();
            oracle.connection.send_close_notify();
            let mut sent = Vec::new();
            while oracle.connection.wants_write() {
                oracle.connection.write_tls(&mut sent).unwrap();
            }
            sent.extend_from_slice(behind);
            oracle.io.write_all(&sent).await.unwrap();
            server.read_exact(&mut [0; 4]).await.unwrap();
            let Parts { mut io, mut reader, mut writer, mut incoming, plaintext } =
                server.into_parts(layer).unwrap();
            assert!(plaintext.is_empty());
            for _ in 0..2 {
                let opened = reader.open(&mut incoming, |_| unreachable!("no data")).unwrap();
                assert_eq!((opened.consumed, opened.closed), (incoming.len(), true), "{version:?} {layer:?}");
                // What comes later is ignored as well.
                incoming.extend_from_slice(&[23, 3, 3, 0, 1, 0]);
            }
            // The other direction is open.
            let mut sealed = SealBuffer::default();
            writer.seal(b"answer", &mut sealed).unwrap();
            io.write_all(sealed.as_slice()).await.unwrap();
            assert_eq!(oracle.read_exact(6).await, b"answer");
        }
    }
}

#[tokio::test]
async fn a_close_that_comes_later_is_known_to_the_reader() {
    for (version, layer) in ALL {
        let (mut oracle, server) = connect(version).await;
        let Parts { mut reader, .. } = server.into_parts(layer).unwrap();
        oracle.connection.send_close_notify();
        let mut sent = Vec::new();
        oracle.connection.write_tls(&mut sent).unwrap();
        for _ in 0..2 {
            let opened = reader.open(&mut sent, |_| unreachable!("no data")).unwrap();
            assert_eq!((opened.consumed, opened.closed), (sent.len(), true), "{version:?} {layer:?}");
        }
    }
}

#[tokio::test]
async fn a_key_update_that_the_stream_has_read_is_answered_by_the_writer() {
    for layer in [RecordLayer::Rustls, RecordLayer::Own] {
        for updates in 1..=2 {
            let (mut oracle, mut server) = connect(&rustls::version::TLS13).await;
            server.write_all(b"greeting").await.unwrap();
            server.flush().await.unwrap();
            assert_eq!(oracle.read_exact(8).await, b"greeting");
            for _ in 0..updates {
                oracle.connection.refresh_traffic_keys().unwrap();
            }
            oracle.connection.writer().write_all(b"login").unwrap();
            oracle.send().await;
            server.read_exact(&mut [0; 5]).await.unwrap();
            let Parts { mut io, mut reader, mut writer, .. } = server.into_parts(layer).unwrap();
            for round in 0..2 {
                let mut sealed = SealBuffer::default();
                writer.seal(b"answer", &mut sealed).unwrap();
                io.write_all(sealed.as_slice()).await.unwrap();
                assert_eq!(oracle.read_exact(6).await, b"answer", "{layer:?}, round {round}");
                oracle.connection.writer().write_all(b"under the new keys").unwrap();
                let mut ciphertext = Vec::new();
                oracle.connection.write_tls(&mut ciphertext).unwrap();
                let opened = reader.open(&mut ciphertext, |_| ControlFlow::Continue(())).unwrap();
                assert_eq!(opened.consumed, ciphertext.len());
            }
        }
    }
}

#[tokio::test]
async fn a_forged_record_on_the_stream_is_answered_with_an_alert() {
    let (mut oracle, mut server) = connect(&rustls::version::TLS13).await;
    oracle.connection.writer().write_all(b"secret").unwrap();
    let mut record = Vec::new();
    oracle.connection.write_tls(&mut record).unwrap();
    record[7] ^= 1;
    oracle.io.write_all(&record).await.unwrap();
    server.read(&mut [0; 10]).await.unwrap_err();
    drop(server);
    let mut alert = Vec::new();
    oracle.io.read_to_end(&mut alert).await.unwrap();
    oracle.connection.read_tls(&mut &alert[..]).unwrap();
    let told = oracle.connection.process_new_packets();
    assert_eq!(told.unwrap_err(), rustls::Error::AlertReceived(rustls::AlertDescription::BadRecordMac));
}

#[tokio::test]
async fn every_changed_byte_of_a_record_is_refused_with_an_alert() {
    for layer in [RecordLayer::Rustls, RecordLayer::Own] {
        let (mut oracle, server) = connect(&rustls::version::TLS13).await;
        let Parts { mut reader, mut writer, .. } = server.into_parts(layer).unwrap();
        oracle.connection.writer().write_all(b"secret").unwrap();
        let mut record = Vec::new();
        oracle.connection.write_tls(&mut record).unwrap();
        // The length decides how much is waited for, so its bytes are not changed here; a connection has one failure only.
        record[7] ^= 1;
        let refused = reader.open(&mut record, |_| unreachable!("the record is forged"));
        let forged = match &refused {
            Err(TlsError::Rustls(error)) => *error == rustls::Error::DecryptError,
            Err(TlsError::Record(error)) => *error == RecordError::BadRecordMac,
            _ => false,
        };
        assert!(forged, "{refused:?}");
        let mut sealed = SealBuffer::default();
        let _ = writer.close(&mut sealed);
        let mut alert = sealed.as_slice();
        oracle.connection.read_tls(&mut alert).unwrap();
        let told = oracle.connection.process_new_packets();
        assert_eq!(told.unwrap_err(), rustls::Error::AlertReceived(rustls::AlertDescription::BadRecordMac));
    }
}

#[tokio::test]
async fn a_handshake_message_in_pieces_is_refused_and_the_writer_survives() {
    for layer in [RecordLayer::Rustls, RecordLayer::Own] {
        let (oracle, server) = connect(&rustls::version::TLS13).await;
        let Parts { mut reader, mut writer, .. } = server.into_parts(layer).unwrap();
        // A record of content type handshake with the first three bytes of a KeyUpdate, sealed with the client's own keys.
        let (_, secrets) = oracle.connection.dangerous_extract_secrets().map(|s| (s.rx, s.tx)).unwrap();
        let mut record = seal_tls13(secrets, 22, &[24, 0, 0]);
        let refused = reader.open(&mut record, |_| ControlFlow::Continue(()));
        assert!(matches!(refused, Err(TlsError::HandshakeInPieces)), "{refused:?}");
        let mut sealed = SealBuffer::default();
        assert!(matches!(writer.seal(b"x", &mut sealed), Err(TlsError::Unusable)));
        // The last word is an alert, where there is one.
        assert_eq!(writer.close(&mut sealed).is_ok(), layer == RecordLayer::Own);
    }
}

/// RFC 8446 section 5.2, for the sequence number and keys that rustls gives out.
fn seal_tls13(
    (sequence, secrets): (u64, rustls::ConnectionTrafficSecrets),
    kind: u8,
    plaintext: &[u8],
) -> Vec<u8> {
    use aws_lc_rs::aead::{AES_128_GCM, AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
    use rustls::ConnectionTrafficSecrets::{Aes128Gcm, Aes256Gcm};
    let (algorithm, key, iv) = match &secrets {
        Aes128Gcm { key, iv } => (&AES_128_GCM, key.as_ref(), iv.as_ref()),
        Aes256Gcm { key, iv } => (&AES_256_GCM, key.as_ref(), iv.as_ref()),
        _ => panic!("an AES suite is preferred"),
    };
    let mut nonce: [u8; 12] = iv.try_into().unwrap();
    nonce.iter_mut().skip(4).zip(sequence.to_be_bytes()).for_each(|(byte, number)| *byte ^= number);
    let mut body = [plaintext, &[kind]].concat();
    let header = [23, 3, 3, 0, (body.len() + 16) as u8];
    LessSafeKey::new(UnboundKey::new(algorithm, key).unwrap())
        .seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), Aad::from(header), &mut body)
        .unwrap();
    [&header[..], &body].concat()
}

#[tokio::test]
async fn a_peer_that_leaves_during_the_handshake_is_an_error() {
    let (_, server) = configs(&rustls::version::TLS13);
    let (near, far) = tokio::io::duplex(1000);
    drop(near);
    let refused = Server::accept(far, server).await;
    assert!(matches!(refused, Err(HandshakeError::Io(_))));
}

#[tokio::test]
async fn a_client_that_does_not_speak_tls_is_told_by_an_alert() {
    let (_, server) = configs(&rustls::version::TLS13);
    let (mut near, far) = tokio::io::duplex(1000);
    near.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
    let refused = Server::accept(far, server).await;
    assert!(matches!(refused, Err(HandshakeError::NotTls)));
    let mut alert = Vec::new();
    near.read_to_end(&mut alert).await.unwrap();
    assert_eq!((alert[0], alert.len()), (21, 7), "a fatal alert in clear");
}

/// The start of a ClientHello of 65,535 bytes, in records of 8 KiB.
fn endless_hello(records: usize) -> Vec<u8> {
    let mut message = vec![1, 0, 0xff, 0xff, 3, 3];
    message.resize(records * 8192, 0);
    message.chunks(8192).flat_map(|chunk| [&[22, 3, 1, 0x20, 0][..], chunk].concat()).collect()
}

#[tokio::test]
async fn a_client_hello_of_more_than_16_kib_is_refused_before_it_is_whole() {
    let (_, server) = configs(&rustls::version::TLS13);
    let (mut near, far) = tokio::io::duplex(100_000);
    near.write_all(&endless_hello(1)).await.unwrap();
    let accepting = tokio::spawn(Server::accept(far, server));
    // It has been read, and the server waits for the rest: nothing ends by itself.
    tokio::task::yield_now().await;
    tokio::task::yield_now().await;
    assert!(!accepting.is_finished());
    near.write_all(&endless_hello(3)).await.unwrap();
    let refused = tokio::time::timeout(Duration::from_secs(20), accepting).await.expect("an end").unwrap();
    assert!(matches!(refused, Err(HandshakeError::TooLong)));
}
