//! A handshake in memory, as cheap as one can be had: its cost is most of a run.

use std::pin::{Pin, pin};
use std::sync::{Arc, LazyLock, Mutex};
use std::task::{Context, Poll, Waker};
use std::{fmt, io};

use rustls::crypto::CryptoProvider;
use rustls::crypto::aws_lc_rs::{cipher_suite, default_provider, kx_group};
use rustls::pki_types::{PrivateKeyDer, ServerName};
use rustls::{
    CipherSuite, ClientConfig, ClientConnection, KeyLog, RootCertStore, ServerConfig, SupportedCipherSuite,
};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use towpath_tls::{Parts, Reader, RecordLayer, Server, Stream, Writer};

use super::peer::{Direction, Peer};

const SUITES: [SupportedCipherSuite; 3] = [
    cipher_suite::TLS13_CHACHA20_POLY1305_SHA256,
    cipher_suite::TLS13_AES_128_GCM_SHA256,
    cipher_suite::TLS13_AES_256_GCM_SHA384,
];

static SERVER: LazyLock<(Arc<ServerConfig>, RootCertStore)> = LazyLock::new(|| {
    let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ED25519).expect("a key");
    let certificate = rcgen::CertificateParams::new(["localhost".to_owned()])
        .and_then(|params| params.self_signed(&key))
        .expect("a certificate");
    let mut roots = RootCertStore::empty();
    roots.add(certificate.der().clone()).expect("a root");
    let mut server = ServerConfig::builder_with_provider(provider(&SUITES))
        .with_safe_default_protocol_versions()
        .expect("TLS 1.3")
        .with_no_client_auth()
        .with_single_cert(vec![certificate.der().clone()], PrivateKeyDer::Pkcs8(key.serialize_der().into()))
        .expect("a key that fits");
    server.send_tls13_tickets = 0;
    server.enable_secret_extraction = true;
    (Arc::new(server), roots)
});

fn provider(suites: &[SupportedCipherSuite]) -> Arc<CryptoProvider> {
    let kx_groups = vec![kx_group::X25519];
    Arc::new(CryptoProvider { cipher_suites: suites.to_vec(), kx_groups, ..default_provider() })
}

/// The traffic secrets of a connection: the client's and the server's.
#[derive(Debug, Default)]
struct Secrets(Mutex<[Vec<u8>; 2]>);

impl KeyLog for Secrets {
    fn log(&self, label: &str, _client_random: &[u8], secret: &[u8]) {
        let side = match label {
            "CLIENT_TRAFFIC_SECRET_0" => 0,
            "SERVER_TRAFFIC_SECRET_0" => 1,
            _ => return,
        };
        self.0.lock().expect("no panic in here")[side] = secret.to_vec();
    }
}

/// The client, which to the server is its socket. It has always done what it can do.
struct Client(ClientConnection);

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Client(..)")
    }
}

impl AsyncRead for Client {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let mut sent = Vec::new();
        while self.0.wants_write() {
            self.0.write_tls(&mut sent)?;
        }
        buf.put_slice(&sent);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Client {
    fn poll_write(mut self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let mut rest = bytes;
        while !rest.is_empty() {
            self.0.read_tls(&mut rest)?;
            self.0.process_new_packets().map_err(io::Error::other)?;
        }
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// The peer, and our two halves, after a handshake with one of three suites.
pub(super) fn shake_hands(suite: u8) -> (Peer, Reader<Server>, Writer<Server>) {
    let (server, roots) = &*SERVER;
    let suite = SUITES[usize::from(suite) % SUITES.len()];
    let secrets = Arc::new(Secrets::default());
    let mut config = ClientConfig::builder_with_provider(provider(&[suite]))
        .with_safe_default_protocol_versions()
        .expect("TLS 1.3")
        .with_root_certificates(roots.clone())
        .with_no_client_auth();
    config.key_log = secrets.clone();
    let name = ServerName::try_from("localhost").expect("a name");
    let client = Client(ClientConnection::new(Arc::new(config), name).expect("a client"));
    let shaking = pin!(Stream::accept(client, server.clone()));
    let Poll::Ready(stream) = shaking.poll(&mut Context::from_waker(Waker::noop())) else {
        panic!("the client has always done what it can do")
    };
    let parts = stream.expect("a handshake").into_parts(RecordLayer::Own).expect("two halves");
    let Parts { reader, writer, incoming, plaintext, .. } = parts;
    assert!(incoming.is_empty() && plaintext.is_empty());
    (peer(suite.suite(), &secrets), reader, writer)
}

fn peer(suite: CipherSuite, secrets: &Secrets) -> Peer {
    let [client, server] = &*secrets.0.lock().expect("no panic in there");
    Peer { tx: Direction::new(suite, client), rx: Direction::new(suite, server) }
}
