//! Dialling over loopback: what is trusted, how the login goes, and which step is blamed.

use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, date_time_ymd};
use rustls::{CertificateError, ProtocolVersion, RootCertStore};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::oneshot;
use towpath_relay_client::{
    Client, DialError, DialStep, Dialer, Event, LoginError, NotTrusted, TlsFailureKind, TlsVersions, Trust,
    UpgradeError, certificate_pin,
};
use towpath_relay_proto::login::greet;
use towpath_tls::HandshakeError;
use towpath_wire::derp::frame::ServerFrame;
use towpath_wire::key::{NodePrivate, NodePublic};

use crate::support::{
    Identity, NAME, RATE, TlsStream, client_key, dialer, echo, log_in, read_request, relay_key, tcp_relay,
    tls_relay,
};

const BOTH: TlsVersions = TlsVersions::Both;

fn meta() -> Identity {
    Identity::for_test().with_meta(relay_key().public())
}

/// A packet and a batch that is cut into many records come back whole.
async fn exchange(client: &mut Client) {
    assert_eq!((client.relay(), client.server_info()), (relay_key().public(), RATE));
    let peer = NodePublic::from_bytes([7; 32]);
    let packets: Vec<Vec<u8>> = (0..200usize).map(|index| vec![index as u8; index * 7]).collect();
    client.send(peer, &packets[1]).await.unwrap();
    client.send_batch(packets.iter().map(|packet| (peer, &packet[..]))).await.unwrap();
    for packet in std::iter::once(&packets[1]).chain(&packets) {
        assert_eq!(client.recv().await.unwrap(), Event::Packet { from: peer, packet: packet.clone() });
    }
}

async fn serve(mut stream: TlsStream) {
    log_in(&mut stream, &[]).await;
    echo(&mut stream).await;
}

#[tokio::test]
async fn a_meta_certificate_makes_a_fast_start() {
    let (told, request) = oneshot::channel();
    let identity = meta();
    let address = tls_relay(&identity, async |mut stream| {
        told.send(log_in(&mut stream, &[]).await).unwrap();
        echo(&mut stream).await;
    })
    .await;
    let mut client = dialer(address, &identity.pin(), BOTH).connect(&client_key()).await.unwrap();
    assert!(client.fast_start());
    assert_eq!(client.tls_version(), Some(ProtocolVersion::TLSv1_3));
    exchange(&mut client).await;
    let request = request.await.unwrap();
    assert!(request.starts_with("GET /derp HTTP/1.1\r\nHost: relay.test\r\n"), "{request}");
}

#[tokio::test]
async fn without_a_meta_certificate_the_upgrade_is_awaited() {
    let identity = Identity::for_test();
    let address = tls_relay(&identity, serve).await;
    let mut client = dialer(address, &identity.pin(), BOTH).connect(&client_key()).await.unwrap();
    assert!(!client.fast_start());
    exchange(&mut client).await;
}

#[tokio::test]
async fn a_fast_start_can_be_refrained_from() {
    let identity = meta();
    let address = tls_relay(&identity, serve).await;
    let dialer = dialer(address, &identity.pin(), BOTH).without_fast_start();
    let mut client = dialer.connect(&client_key()).await.unwrap();
    assert!(!client.fast_start());
    exchange(&mut client).await;
}

#[tokio::test]
async fn tls_1_2_makes_no_fast_start() {
    let identity = meta();
    let address = tls_relay(&identity, serve).await;
    let dialer = dialer(address, &identity.pin(), TlsVersions::Only12);
    let mut client = dialer.connect(&client_key()).await.unwrap();
    assert_eq!((client.tls_version(), client.fast_start()), (Some(ProtocolVersion::TLSv1_2), false));
    exchange(&mut client).await;
}

#[tokio::test]
async fn plain_tcp_needs_no_certificate() {
    let address = tcp_relay(async |mut socket| {
        log_in(&mut socket, &[]).await;
        echo(&mut socket).await;
    })
    .await;
    let mut client =
        Dialer::plain(&address.ip().to_string(), address.port()).connect(&client_key()).await.unwrap();
    assert_eq!((client.tls_version(), client.fast_start()), (None, false));
    exchange(&mut client).await;
}

#[tokio::test]
async fn what_came_behind_the_login_is_kept() {
    let identity = meta();
    let mut behind = Vec::new();
    let from = NodePublic::from_bytes([8; 32]);
    ServerFrame::RecvPacket { from, packet: b"early" }.encode(&mut behind);
    let expected = behind.clone();
    for raw in [false, true] {
        let behind = behind.clone();
        let address = tls_relay(&identity, async move |mut stream| {
            log_in(&mut stream, &behind).await;
            echo(&mut stream).await;
        })
        .await;
        let mut client = dialer(address, &identity.pin(), BOTH).connect(&client_key()).await.unwrap();
        if raw {
            let raw = client.into_raw().unwrap();
            assert_eq!((raw.plaintext, raw.incoming, raw.tls.is_some()), (expected.clone(), vec![], true));
        } else {
            assert_eq!(client.recv().await.unwrap(), Event::Packet { from, packet: b"early".to_vec() });
        }
    }
}

/// Why the handshake with `identity` fails under `trust`.
async fn tls_error(identity: &Identity, trust: &Trust) -> rustls::Error {
    let address = tls_relay(identity, serve).await;
    let error = dialer(address, trust, BOTH).connect(&client_key()).await.unwrap_err();
    assert_eq!(error.step(), DialStep::Tls);
    match error {
        DialError::Tls(failure) => match failure.error() {
            HandshakeError::Tls(towpath_tls::TlsError::Rustls(error)) => error.clone(),
            other => panic!("{other}"),
        },
        other => panic!("{other}"),
    }
}

fn not_trusted(error: &rustls::Error) -> Option<&NotTrusted> {
    let rustls::Error::InvalidCertificate(CertificateError::Other(reason)) = error else { return None };
    reason.source().and_then(|reason| reason.downcast_ref()).or_else(|| reason.0.downcast_ref())
}

#[tokio::test]
async fn another_certificate_than_the_pinned_one_is_refused() {
    let (pinned, other) = (meta(), meta());
    let error = tls_error(&other, &pinned.pin()).await;
    assert_eq!(not_trusted(&error), Some(&NotTrusted::OtherCertificate(certificate_pin(&other.chain[0]))));
}

#[tokio::test]
async fn the_pinned_certificate_without_its_key_is_refused() {
    let mut thief = meta();
    thief.key = KeyPair::generate().unwrap();
    for trust in [thief.pin(), Trust::Anyone] {
        let error = tls_error(&thief, &trust).await;
        assert_eq!(error, rustls::Error::InvalidCertificate(CertificateError::BadSignature));
    }
}

#[tokio::test]
async fn the_pinned_certificate_comes_alone() {
    let mut identity = meta();
    let pin = identity.pin();
    identity.chain.extend(Identity::for_test().chain);
    assert_eq!(not_trusted(&tls_error(&identity, &pin).await), Some(&NotTrusted::MoreThanOne(2)));
    // As a second certificate it proves nothing, whatever the first is called.
    let mut behind_a_meta = Identity::for_test().with_meta(relay_key().public());
    behind_a_meta.chain.reverse();
    let pin = Trust::Pin(certificate_pin(&behind_a_meta.chain[1]));
    let error = tls_error(&behind_a_meta, &pin).await;
    assert!(matches!(not_trusted(&error), Some(NotTrusted::OtherCertificate(_))), "{error}");
}

#[tokio::test]
async fn the_pinned_certificate_has_names_and_dates() {
    let other = Identity::new("other.test", |_| {});
    let error = tls_error(&other, &other.pin()).await;
    assert!(
        matches!(error, rustls::Error::InvalidCertificate(CertificateError::NotValidForNameContext { .. })),
        "{error}"
    );
    let old = Identity::new(NAME, |params| params.not_after = date_time_ymd(2020, 1, 1));
    let error = tls_error(&old, &old.pin()).await;
    assert_eq!(error, rustls::Error::InvalidCertificate(CertificateError::Expired));
    let early = Identity::new(NAME, |params| params.not_before = date_time_ymd(2200, 1, 1));
    let error = tls_error(&early, &early.pin()).await;
    assert_eq!(error, rustls::Error::InvalidCertificate(CertificateError::NotValidYet));
}

#[tokio::test]
async fn roots_vouch_for_a_relay_with_a_meta_certificate() {
    let authority_key = KeyPair::generate().unwrap();
    let mut authority = CertificateParams::default();
    authority.distinguished_name.push(DnType::CommonName, "an authority");
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let root = authority.self_signed(&authority_key).unwrap();
    let issuer = Issuer::new(authority, authority_key);
    let mut identity = meta();
    let params = CertificateParams::new([NAME.to_owned()]).unwrap();
    identity.chain[0] = params.signed_by(&identity.key, &issuer).unwrap().der().clone();

    let mut roots = RootCertStore::empty();
    roots.add(root.der().clone()).unwrap();
    let address = tls_relay(&identity, serve).await;
    let trust = Trust::Roots(Arc::new(roots));
    let mut client = dialer(address, &trust, BOTH).connect(&client_key()).await.unwrap();
    assert!(client.fast_start());
    exchange(&mut client).await;
    let error = tls_error(&meta(), &trust).await;
    assert_eq!(error, rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer));
}

#[tokio::test]
async fn a_relay_with_another_key_than_certified_is_refused() {
    let certified = NodePrivate::from_random([5; 32]).public();
    let identity = Identity::for_test().with_meta(certified);
    let address = tls_relay(&identity, async |mut stream: TlsStream| {
        let mut greeting = Vec::new();
        greet(&relay_key().public(), &mut greeting);
        stream.write_all(&greeting).await.unwrap();
        stream.flush().await.unwrap();
        let _ = stream.read_to_end(&mut Vec::new()).await;
    })
    .await;
    let error = dialer(address, &identity.pin(), BOTH).connect(&client_key()).await.unwrap_err();
    let expected = (relay_key().public(), certified);
    assert!(matches!(
        error,
        DialError::Login(LoginError::OtherKey { said, certified }) if (said, certified) == expected
    ));
}

/// What comes of it when the relay reads a little, answers with `answer` and closes.
async fn answered(identity: &Identity, answer: &'static [u8]) -> DialError {
    let address = tls_relay(identity, async move |mut stream: TlsStream| {
        read_request(&mut stream).await;
        stream.write_all(answer).await.unwrap();
        stream.shutdown().await.unwrap();
        let _ = stream.read_to_end(&mut Vec::new()).await;
    })
    .await;
    dialer(address, &identity.pin(), BOTH).connect(&client_key()).await.unwrap_err()
}

#[tokio::test]
async fn the_step_that_failed_is_named() {
    const REFUSED: &[u8] = b"HTTP/1.1 426 Upgrade Required\r\nContent-Length: 0\r\n\r\n";
    for identity in [meta(), Identity::for_test()] {
        let error = answered(&identity, REFUSED).await;
        assert!(matches!(error, DialError::Upgrade(UpgradeError::Status(426))), "{error}");
    }
    let error = answered(&meta(), b"").await;
    assert!(matches!(error, DialError::Login(LoginError::Refused)), "{error}");
    let error = answered(&meta(), b"\x15\0\0\0\0").await;
    assert!(matches!(error, DialError::Login(LoginError::OutOfOrder)), "{error}");
    let error = answered(&Identity::for_test(), b"HTTP/1.1 101 A\r\n\r\n").await;
    assert!(matches!(error, DialError::Login(LoginError::Refused)), "{error}");
    let error = answered(&Identity::for_test(), b"SSH-2.0-OpenSSH_9.2\r\n\r\n").await;
    assert!(matches!(error, DialError::Upgrade(UpgradeError::NotHttp)), "{error}");
}

#[tokio::test]
async fn a_port_without_listener_fails_the_tcp_step() {
    // The socket is bound and does not listen, so that no other process can take the port.
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let address = socket.local_addr().unwrap();
    let error = dialer(address, &Trust::Anyone, BOTH).connect(&client_key()).await.unwrap_err();
    assert_eq!(error.step(), DialStep::Tcp, "{error}");
}

#[tokio::test]
async fn one_deadline_bounds_every_step() {
    const LIMIT: Duration = Duration::from_millis(200);
    let address = tcp_relay(async |mut socket| {
        let _ = socket.read_to_end(&mut Vec::new()).await;
    })
    .await;
    let silent = dialer(address, &Trust::Anyone, BOTH).with_timeout(LIMIT);
    let error = silent.connect(&client_key()).await.unwrap_err();
    assert!(matches!(error, DialError::Timeout(DialStep::Tls)), "{error}");

    for (identity, step) in [(meta(), DialStep::Login), (Identity::for_test(), DialStep::Upgrade)] {
        let address = tls_relay(&identity, async |mut stream| {
            let _ = stream.read_to_end(&mut Vec::new()).await;
        })
        .await;
        let silent = dialer(address, &identity.pin(), BOTH).with_timeout(LIMIT);
        let error = silent.connect(&client_key()).await.unwrap_err();
        assert_eq!(error.step(), step);
        assert!(matches!(error, DialError::Timeout(_)), "{error}");
    }
}

#[tokio::test]
async fn a_relay_with_another_key_is_told_nothing() {
    let expected = NodePrivate::from_random([9; 32]).public();
    // It is found out by its meta certificate, and without one by its ServerKey frame.
    for identity in [meta(), Identity::for_test()] {
        let (told, heard) = oneshot::channel();
        let certified = identity.chain.len() > 1;
        let address = tls_relay(&identity, async move |mut stream| {
            let mut bytes = Vec::new();
            if !certified {
                let (_request, rest) = read_request(&mut stream).await;
                assert!(rest.is_empty());
                let mut greeting = b"HTTP/1.1 101 Switching Protocols\r\n\r\n".to_vec();
                greet(&relay_key().public(), &mut greeting);
                stream.write_all(&greeting).await.unwrap();
                stream.flush().await.unwrap();
            }
            // The client closes without another word.
            let _ = stream.read_to_end(&mut bytes).await;
            told.send(bytes).unwrap();
        })
        .await;
        let dialer = dialer(address, &identity.pin(), BOTH).with_relay_key(expected);
        let error = dialer.connect(&client_key()).await.unwrap_err();
        assert!(
            matches!(&error, DialError::Login(LoginError::OtherRelay { said, expected: wanted })
                if (*said, *wanted) == (relay_key().public(), expected)),
            "{error}"
        );
        assert_eq!(error.step(), DialStep::Login);
        assert_eq!(heard.await.unwrap(), b"", "certified: {certified}");
    }
    let identity = meta();
    let address = tls_relay(&identity, serve).await;
    let dialer = dialer(address, &identity.pin(), BOTH).with_relay_key(relay_key().public());
    exchange(&mut dialer.connect(&client_key()).await.unwrap()).await;
}

/// An error with its causes, as an operator reads it.
fn chain(error: &DialError) -> String {
    let mut told = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        told += &format!(": {error}");
        cause = error.source();
    }
    told
}

#[tokio::test]
async fn what_an_operator_can_meet_in_tls_is_told_in_words() {
    let roots = |identity: &Identity| {
        let mut roots = RootCertStore::empty();
        roots.add(identity.chain[0].clone()).unwrap();
        Trust::Roots(Arc::new(roots))
    };
    // As openssl makes a self-signed certificate by default.
    let authority = Identity::new(NAME, |params| params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained));
    // Of another issuer's name than the authority.
    let plain = Identity::new(NAME, |params| params.distinguished_name.push(DnType::CommonName, NAME));
    let other = Identity::new("other.test", |_| {});
    let old = Identity::new(NAME, |params| params.not_after = date_time_ymd(2020, 1, 1));
    for (identity, trust, expected) in [
        (&authority, roots(&authority), "the server's certificate is one of an authority (CA:TRUE)"),
        (
            &plain,
            roots(&authority),
            "the server's certificate is self-signed, or none of the trusted roots has signed it",
        ),
        (&other, other.pin(), "the server's certificate is for another name: other.test"),
        (&old, old.pin(), "the server's certificate has expired, or the clock of this host is wrong"),
        (&plain, old.pin(), "the certificate is not the pinned one: its SHA-256 is "),
    ] {
        let address = tls_relay(identity, serve).await;
        let error = dialer(address, &trust, BOTH).connect(&client_key()).await.unwrap_err();
        let told = chain(&error);
        assert!(told.starts_with(&format!("the TLS handshake failed: {expected}")), "{told}");
        assert!(!told.contains("Error(") && !told.contains("invalid peer"), "{told}");
    }
}

#[tokio::test]
async fn a_server_that_does_not_speak_tls_is_told_by_what_it_speaks() {
    for (answer, kind) in [
        (&b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n"[..], TlsFailureKind::PlainHttp),
        (b"SSH-2.0-OpenSSH_9.2\r\n", TlsFailureKind::NotTls),
        (b"", TlsFailureKind::Closed),
        (b"\x15\x03\x03\0\x02\x02\x50", TlsFailureKind::UnknownName("internal_error")),
    ] {
        let address = tcp_relay(async move |mut socket| {
            let _ = socket.read(&mut [0; 1024]).await.unwrap();
            socket.write_all(answer).await.unwrap();
            socket.shutdown().await.unwrap();
            let _ = socket.read_to_end(&mut Vec::new()).await;
        })
        .await;
        let error = dialer(address, &Trust::Anyone, BOTH).connect(&client_key()).await.unwrap_err();
        let DialError::Tls(failure) = &error else { panic!("{error}") };
        assert_eq!(failure.kind(), &kind, "{}", chain(&error));
    }
}

/// In TLS 1.3 the client is done before the server looks for a certificate.
#[tokio::test]
async fn a_server_that_wants_a_certificate_is_found_out_behind_the_handshake() {
    let identity = Identity::for_test();
    let mut roots = RootCertStore::empty();
    roots.add(identity.chain[0].clone()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let verifier =
        rustls::server::WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone())
            .build()
            .unwrap();
    let key = rustls::pki_types::PrivateKeyDer::Pkcs8(identity.key.serialize_der().into());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(rustls::ALL_VERSIONS)
        .unwrap()
        .with_client_cert_verifier(verifier)
        .with_single_cert(identity.chain.clone(), key)
        .unwrap();
    let address = tcp_relay(async move |socket| {
        assert!(TlsStream::accept(socket, Arc::new(config)).await.is_err());
    })
    .await;
    let error = dialer(address, &identity.pin(), BOTH).connect(&client_key()).await.unwrap_err();
    let DialError::Upgrade(UpgradeError::Tls(failure)) = &error else { panic!("{error:?}") };
    assert_eq!(failure.kind(), &TlsFailureKind::ClientCertificate("certificate_required"));
}

#[tokio::test]
async fn a_relay_states_its_key_to_a_client_without_one() {
    for identity in [meta(), Identity::for_test()] {
        let address = tls_relay(&identity, async |mut stream: TlsStream| {
            let (request, rest) = read_request(&mut stream).await;
            assert!(rest.is_empty() && !request.contains("Fast-Start"), "{request}");
            let mut greeting = b"HTTP/1.1 101 Switching Protocols\r\n\r\n".to_vec();
            greet(&relay_key().public(), &mut greeting);
            stream.write_all(&greeting).await.unwrap();
            stream.flush().await.unwrap();
            assert_eq!(stream.read_to_end(&mut Vec::new()).await.unwrap_or(0), 0, "nothing is sent after it");
        })
        .await;
        let greeting = dialer(address, &Trust::Anyone, BOTH).greet().await.unwrap();
        assert_eq!((greeting.relay, greeting.chain), (relay_key().public(), vec![identity.chain[0].clone()]));
    }
}
