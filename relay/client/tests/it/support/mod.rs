//! A relay just large enough to dial: TLS, upgrade, login, and whatever a test makes of the rest.

use std::net::SocketAddr;
use std::sync::Arc;

use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair, SerialNumber};
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{ServerConfig, SupportedProtocolVersion};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpListener;
use towpath_relay_client::{Dialer, TlsVersions, Trust, certificate_pin};
use towpath_relay_proto::login::{Login, greet};
use towpath_relay_proto::session::{Action, Session};
use towpath_tls::ExporterLog;
use towpath_wire::derp::frame::ServerFrame;
use towpath_wire::derp::info::{Introduction, ServerInfo};
use towpath_wire::key::{NodePrivate, NodePublic};
use towpath_wire::pool::BufferPool;

pub(crate) const NAME: &str = "relay.test";
pub(crate) const RATE: ServerInfo = ServerInfo { rate: 1_000_000, burst: 70_000 };

pub(crate) fn relay_key() -> NodePrivate {
    NodePrivate::from_random([3; 32])
}

pub(crate) fn client_key() -> NodePrivate {
    NodePrivate::from_random([4; 32])
}

static ONLY_TLS_1_2: [&SupportedProtocolVersion; 1] = [&rustls::version::TLS12];

/// A certificate and its key, and the versions of TLS that are spoken with it.
pub(crate) struct Identity {
    pub(crate) chain: Vec<CertificateDer<'static>>,
    pub(crate) key: KeyPair,
    versions: &'static [&'static SupportedProtocolVersion],
}

impl Identity {
    /// Self-signed for `name`, as `change` wants it.
    pub(crate) fn new(name: &str, change: impl FnOnce(&mut CertificateParams)) -> Self {
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::new([name.to_owned()]).expect("a name");
        change(&mut params);
        let certificate = params.self_signed(&key).expect("a certificate");
        Self { chain: vec![certificate.der().clone()], key, versions: rustls::ALL_VERSIONS }
    }

    pub(crate) fn for_test() -> Self {
        Self::new(NAME, |_| {})
    }

    /// With the meta certificate of `relay` at the end of the chain.
    pub(crate) fn with_meta(mut self, relay: NodePublic) -> Self {
        let meta = Self::new(NAME, |params| {
            params.distinguished_name = DistinguishedName::new();
            params.distinguished_name.push(DnType::CommonName, format!("derpkey{}", relay.to_hex()));
            params.serial_number = Some(SerialNumber::from(2));
        });
        self.chain.extend(meta.chain);
        self
    }

    /// As a device that ends TLS and does not know the newest version.
    pub(crate) fn with_only_tls_1_2(mut self) -> Self {
        self.versions = &ONLY_TLS_1_2;
        self
    }

    pub(crate) fn pin(&self) -> Trust {
        Trust::Pin(certificate_pin(&self.chain[0]))
    }

    pub(crate) fn server_config(&self) -> Arc<ServerConfig> {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let key = PrivateKeyDer::Pkcs8(self.key.serialize_der().into());
        let key = provider.key_provider.load_private_key(key).expect("a key");
        // Not checked against the certificate, so that a test can be a thief of certificates.
        let shown = Arc::new(CertifiedKey::new(self.chain.clone(), key));
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(self.versions)
            .expect("versions")
            .with_no_client_auth()
            .with_cert_resolver(Arc::new(Shown(shown)));
        config.key_log = Arc::new(ExporterLog);
        Arc::new(config)
    }
}

/// A certificate that is shown to clients that ask for [`NAME`].
#[derive(Debug)]
struct Shown(Arc<CertifiedKey>);

impl ResolvesServerCert for Shown {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        (hello.server_name() == Some(NAME)).then(|| self.0.clone())
    }
}

pub(crate) type TlsStream = towpath_tls::Stream<tokio::net::TcpStream, towpath_tls::Server>;

/// Serves one connection over TLS with `serve`. A failed handshake ends it.
pub(crate) async fn tls_relay<F>(
    identity: &Identity,
    serve: impl FnOnce(TlsStream) -> F + Send + 'static,
) -> SocketAddr
where
    F: Future<Output = ()> + Send + 'static,
{
    let config = identity.server_config();
    tcp_relay(async move |socket| {
        if let Ok(stream) = TlsStream::accept(socket, config).await {
            tokio::spawn(serve(stream)).await.expect("the relay serves");
        }
    })
    .await
}

/// Serves one connection with `serve`.
pub(crate) async fn tcp_relay<F>(
    serve: impl FnOnce(tokio::net::TcpStream) -> F + Send + 'static,
) -> SocketAddr
where
    F: Future<Output = ()> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    tokio::spawn(async move {
        let (socket, _) = listener.accept().await.expect("a connection");
        serve(socket).await;
    });
    address
}

pub(crate) fn dialer(address: SocketAddr, trust: &Trust, versions: TlsVersions) -> Dialer {
    Dialer::tls(NAME, 443, trust, versions).expect("good settings").at(address)
}

/// Reads the request; what follows it.
pub(crate) async fn read_request(stream: &mut (impl AsyncRead + Unpin)) -> (String, Vec<u8>) {
    let mut received = Vec::new();
    loop {
        if let Some(end) = received.windows(4).position(|bytes| bytes == b"\r\n\r\n") {
            let rest = received.split_off(end + 4);
            return (String::from_utf8(received).expect("text"), rest);
        }
        assert_ne!(stream.read_buf(&mut received).await.expect("a request"), 0);
    }
}

/// Upgrade and login. In fast start nothing is written before the ClientInfo is there. `and_then` goes out together
/// with the ServerInfo.
pub(crate) async fn log_in(stream: &mut (impl AsyncRead + AsyncWrite + Unpin), and_then: &[u8]) -> String {
    let Introduced { request, introduction, owed: mut answer } = introduced(stream).await;
    let nonce = [9; 24];
    let sealed = RATE.seal(&introduction.shared, &nonce);
    ServerFrame::ServerInfo { nonce: &nonce, sealed: &sealed }.encode(&mut answer);
    answer.extend_from_slice(and_then);
    write(stream, &answer).await;
    request
}

pub(crate) async fn write(stream: &mut (impl AsyncWrite + Unpin), bytes: &[u8]) {
    stream.write_all(bytes).await.expect("written");
    stream.flush().await.expect("written");
}

/// A client that has proved its key.
pub(crate) struct Introduced {
    pub(crate) request: String,
    pub(crate) introduction: Introduction,
    /// What is to be written before anything else.
    pub(crate) owed: Vec<u8>,
}

/// Upgrade and login, up to the ClientInfo.
pub(crate) async fn introduced(stream: &mut (impl AsyncRead + AsyncWrite + Unpin)) -> Introduced {
    let (request, mut received) = read_request(stream).await;
    let fast_start = request.contains("Derp-Fast-Start: 1\r\n");
    let mut greeting = Vec::new();
    if !fast_start {
        greeting.extend_from_slice(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: DERP\r\n\r\n");
    }
    greet(&relay_key().public(), &mut greeting);
    if !fast_start {
        assert!(received.is_empty(), "a client that does not know the relay's key says nothing");
        write(stream, &greeting).await;
    }
    let (mut login, mut pool) = (Login::default(), BufferPool::default());
    let introduction = loop {
        if let Some(introduction) = login.next(&mut &received[..], &relay_key(), &mut pool).expect("a login")
        {
            break introduction;
        }
        received.clear();
        assert_ne!(stream.read_buf(&mut received).await.expect("a login"), 0);
    };
    assert_eq!(introduction.client, client_key().public());
    let owed = if fast_start { greeting } else { Vec::new() };
    Introduced { request, introduction, owed }
}

/// Returns every packet to its sender until the client closes. What the client did besides.
pub(crate) async fn echo(stream: &mut (impl AsyncRead + AsyncWrite + Unpin)) -> Vec<String> {
    let (mut session, mut pool) = (Session::default(), BufferPool::default());
    let mut notes = Vec::new();
    let mut received = Vec::new();
    while stream.read_buf(&mut received).await.expect("a stream") > 0 {
        let mut answer = Vec::new();
        let mut input = &received[..];
        while let Some(action) = session.next(&mut input, &mut pool).expect("good frames") {
            match action {
                Action::Forward { to, packet } => {
                    ServerFrame::RecvPacket { from: to, packet }.encode(&mut answer);
                }
                Action::Pong(data) => ServerFrame::Pong(data).encode(&mut answer),
                Action::Preferred(on) => notes.push(format!("preferred: {on}")),
                Action::Relay(_) | Action::Watch | Action::ClosePeer(_) => {
                    unreachable!("a client without mesh rights")
                }
            }
        }
        received.clear();
        stream.write_all(&answer).await.expect("written");
        stream.flush().await.expect("written");
    }
    notes
}
