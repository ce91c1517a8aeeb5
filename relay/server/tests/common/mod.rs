//! A relay in this process, on ports of its own, and clients for it.

#![allow(dead_code, reason = "each test file uses a part of it")]

pub(crate) mod heap;
pub(crate) mod login;
pub(crate) mod process;
pub(crate) mod sweep;
pub(crate) mod tls_proxy;
pub(crate) mod websocket;

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tokio::sync::oneshot;
use towpath_relay::config::Config;
use towpath_relay::{Addresses, Identity, Server};
use towpath_relay_client::{Client, DialStep, Dialer, Event, TlsVersions, Trust, certificate_pin};
use towpath_service::config::Sources;
use towpath_wire::derp::info::ClientInfo;
use towpath_wire::derp::mesh::MeshKey;
use towpath_wire::key::{NodePrivate, NodePublic};
use towpath_wire::pin::CertificatePin;

/// How long anything may take that takes milliseconds.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// A running relay; stops when dropped.
pub(crate) struct Relay {
    pub(crate) addresses: Addresses,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

/// The node key of the client with this seed.
pub(crate) fn private(seed: u8) -> NodePrivate {
    NodePrivate::from_random([seed; 32])
}

impl Relay {
    /// Starts a relay with one worker and these settings besides.
    pub(crate) fn start(settings: &str) -> Self {
        Self::start_with_hook(settings, || {})
    }

    /// Starts a relay with one worker, which calls `hook` first, and these settings besides.
    pub(crate) fn start_with_hook(settings: &str, hook: fn()) -> Self {
        Self::start_whole(&format!("listen = \"127.0.0.1:0\"\n{settings}"), hook, |_| {})
    }

    /// Starts a relay with one worker and these settings besides, with what `change` makes of its configuration.
    pub(crate) fn start_with_config(settings: &str, change: impl FnOnce(&mut Config)) -> Self {
        Self::start_whole(&format!("listen = \"127.0.0.1:0\"\n{settings}"), || {}, change)
    }

    /// Starts a relay with one worker at the address in these settings.
    pub(crate) fn start_at(settings: &str) -> Self {
        Self::start_whole(settings, || {}, |_| {})
    }

    fn start_whole(settings: &str, hook: fn(), change: impl FnOnce(&mut Config)) -> Self {
        let text = format!("workers = 1\nstun.listen = []\nadmin.listen = \"127.0.0.1:0\"\n{settings}\n");
        let sources = Sources::new("UNSET").text("test.toml", &text);
        let (mut config, _) = Config::read(&sources, true).unwrap_or_else(|problems| panic!("{problems}"));
        change(&mut config);
        let identity = Identity::load(&config).expect("an identity");
        let server = Server::bind(&config, identity).expect("free ports").with_worker_hook(hook);
        let addresses = server.addresses();
        let (stop, stopped) = oneshot::channel::<()>();
        let thread = std::thread::spawn(move || {
            let shutdown = async {
                let _ = stopped.await;
            };
            server.run(shutdown).expect("the relay runs until it is stopped");
        });
        let relay = Self { addresses, stop: Some(stop), thread: Some(thread) };
        relay.wait("ready", |relay| relay.get("/readyz").starts_with("HTTP/1.1 200"));
        relay
    }

    /// Stops the relay and waits until it has ended.
    pub(crate) fn stop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            thread.join().expect("the relay ends without a panic");
        }
    }

    /// The address of the listener for TLS.
    pub(crate) fn tls(&self) -> SocketAddr {
        self.addresses.tls.expect("TLS is on")
    }

    /// The address of the admin listener: loopback, where it is a wildcard.
    pub(crate) fn admin(&self) -> SocketAddr {
        let admin = self.addresses.admin.expect("an admin listener");
        if admin.ip().is_unspecified() {
            SocketAddr::new(Ipv4Addr::LOCALHOST.into(), admin.port())
        } else {
            admin
        }
    }

    pub(crate) fn dialer(&self) -> Dialer {
        let SocketAddr::V4(address) = self.tls() else { panic!("an IPv4 address") };
        assert_eq!(*address.ip(), Ipv4Addr::LOCALHOST);
        Dialer::tls("localhost", address.port(), &Trust::Anyone, TlsVersions::Both)
            .expect("a dialer")
            .at(self.tls())
    }

    /// A client with a key of its own, made from `seed`.
    pub(crate) async fn client(&self, seed: u8) -> (NodePublic, Client) {
        let key = private(seed);
        let client = self.dialer().connect(&key).await.expect("a login");
        (key.public(), client)
    }

    /// Whether the relay refuses the login of the client with this seed.
    pub(crate) async fn refuses(&self, seed: u8) -> bool {
        match self.dialer().connect(&private(seed)).await {
            Ok(_) => false,
            Err(error) => {
                assert_eq!(error.step(), DialStep::Login, "{error}");
                true
            }
        }
    }

    /// The socket of a client without TLS that has logged in, with a key made from `seed`.
    pub(crate) async fn plain_socket(&self, seed: u8) -> tokio::net::TcpStream {
        let address = self.addresses.http.expect("a plain listener");
        let dialer = Dialer::plain("localhost", address.port()).at(address);
        let client = dialer.connect(&private(seed)).await.expect("a login");
        let socket = client.into_raw().expect("the client's parts").socket;
        tokio::net::TcpStream::from_std(socket).expect("a socket")
    }

    /// The answer of the admin listener, head and body.
    pub(crate) fn get(&self, path: &str) -> String {
        let admin = self.admin();
        let mut stream = TcpStream::connect(admin).expect("the admin listener accepts");
        write!(stream, "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            .expect("a request");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("an answer");
        answer
    }

    /// The sum of all samples of a metric; with labels, of the one sample.
    pub(crate) fn metric(&self, name: &str) -> u64 {
        let page = self.get("/metrics");
        let samples = page.lines().filter_map(|line| {
            let (sample, value) = line.rsplit_once(' ')?;
            let matches = sample == name || sample.split('{').next() == Some(name);
            matches.then(|| value.parse::<f64>().expect("a number") as u64)
        });
        let samples: Vec<_> = samples.collect();
        assert!(!samples.is_empty(), "no metric {name}");
        samples.iter().sum()
    }

    /// Sends from a client that is made from `seed` to `deaf`, which never reads, until the socket of `deaf` is full
    /// and its outbox is full of packets of `packet`'s length. Then the sending client leaves.
    pub(crate) async fn fill(&self, deaf: NodePublic, packet: &'static [u8], seed: u8) {
        let others = self.metric("derp_current_connections");
        let (_, client) = self.client(seed).await;
        let (sender, _) = client.split();
        let flooding =
            tokio::spawn(async move { while sender.send_batch(vec![(deaf, packet); 32]).await.is_ok() {} });
        let counts = || ["towpath_writes_total", "derp_packets_dropped"].map(|name| self.metric(name));
        let deadline = Instant::now() + PATIENCE;
        loop {
            let [writes, dropped] = counts();
            // Longer than any acknowledgement is put off.
            tokio::time::sleep(Duration::from_millis(300)).await;
            let [later_writes, later_dropped] = counts();
            if later_writes == writes && later_dropped > dropped {
                break;
            }
            assert!(Instant::now() < deadline, "the socket never fills");
        }
        flooding.abort();
        // An error is that it was aborted.
        let _ = flooding.await;
        self.wait("the flood is over", |relay| relay.metric("derp_current_connections") <= others);
    }

    /// Waits until `fact` is one.
    pub(crate) fn wait(&self, what: &str, fact: impl Fn(&Self) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !fact(self) {
            assert!(Instant::now() < deadline, "not in time: {what}\n{}", self.get("/metrics"));
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // A panic there has been printed, and this may be the drop of another.
            let _ = thread.join();
        }
    }
}

/// The key of every mesh here.
pub(crate) const MESH_KEY: [u8; 32] = [0x5a; 32];

/// A relay that can be in a mesh: with a certificate that others can pin.
pub(crate) struct MeshFiles {
    dir: tempfile::TempDir,
    pin: CertificatePin,
    key: NodePrivate,
}

impl MeshFiles {
    /// Files for a relay whose node key is made from `seed`.
    pub(crate) fn new(seed: u8) -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let key = rcgen::KeyPair::generate().expect("a key");
        let params = rcgen::CertificateParams::new(["localhost".to_owned()]).expect("a name");
        let certificate = params.self_signed(&key).expect("a certificate");
        let write = |name, text: &str| {
            // Whatever the umask: a file that others can write is refused.
            let mut options = std::fs::OpenOptions::new();
            let file = options.write(true).create_new(true).mode(0o600).open(dir.path().join(name));
            file.and_then(|mut file| file.write_all(text.as_bytes())).expect("a file");
        };
        write("cert.pem", &certificate.pem());
        write("key.pem", &key.serialize_pem());
        write("mesh.key", &MeshKey::from_bytes(MESH_KEY).to_text());
        let pin = certificate_pin(certificate.der());
        Self { dir, pin, key: NodePrivate::from_random([seed; 32]) }
    }

    /// The settings of that relay, which dials `peers`.
    pub(crate) fn settings(&self, peers: &[String]) -> String {
        let [cert, key, mesh] = ["cert.pem", "key.pem", "mesh.key"].map(|name| self.path(name));
        format!(
            "private_key = \"{}\"\ncert = {cert:?}\nkey = {key:?}\nmesh.key_file = {mesh:?}\nmesh.peers = {peers:?}",
            self.key.to_text(),
        )
    }

    /// One of its files.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// The node key of that relay.
    pub(crate) const fn node_key(&self) -> &NodePrivate {
        &self.key
    }

    /// What a test needs that is that relay itself: TLS with its certificate.
    pub(crate) fn tls(&self) -> Arc<rustls::ServerConfig> {
        use rustls::pki_types::pem::PemObject;
        use rustls::pki_types::{CertificateDer, PrivateKeyDer};
        let certificate = CertificateDer::from_pem_file(self.path("cert.pem")).expect("a certificate");
        let key = PrivateKeyDer::from_pem_file(self.path("key.pem")).expect("a key");
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("TLS versions")
            .with_no_client_auth()
            .with_single_cert(vec![certificate], key);
        Arc::new(config.expect("a certificate and its key"))
    }

    /// How others find that relay, which listens at `address`.
    pub(crate) fn peer(&self, address: SocketAddr) -> String {
        let port = address.port();
        format!("localhost:{port} {} {} {address}", self.key.public(), self.pin)
    }
}

/// What a client says of itself that has the key of the mesh.
pub(crate) fn mesh_info() -> ClientInfo {
    ClientInfo { mesh_key: Some(MeshKey::from_bytes(MESH_KEY)), version: 2, ..ClientInfo::default() }
}

/// The next packet; other events are passed over.
pub(crate) async fn packet(client: &mut Client) -> (NodePublic, Vec<u8>) {
    loop {
        if let Event::Packet { from, packet } = event(client).await {
            return (from, packet);
        }
    }
}

/// The next event.
pub(crate) async fn event(client: &mut Client) -> Event {
    tokio::time::timeout(PATIENCE, client.recv()).await.expect("an event in time").expect("a connection")
}

/// A configuration of rustls that takes any certificate.
pub(crate) fn trusting_anyone() -> rustls::ClientConfig {
    trusting_anyone_over(rustls::DEFAULT_VERSIONS)
}

/// A configuration of rustls that takes any certificate and speaks these versions of TLS.
pub(crate) fn trusting_anyone_over(
    versions: &[&'static rustls::SupportedProtocolVersion],
) -> rustls::ClientConfig {
    #[derive(Debug)]
    struct Anyone(Arc<rustls::crypto::CryptoProvider>);
    use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
    use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
    impl ServerCertVerifier for Anyone {
        fn verify_server_cert(
            &self,
            _: &CertificateDer<'_>,
            _: &[CertificateDer<'_>],
            _: &ServerName<'_>,
            _: &[u8],
            _: UnixTime,
        ) -> Result<ServerCertVerified, rustls::Error> {
            Ok(ServerCertVerified::assertion())
        }
        fn verify_tls12_signature(
            &self,
            _: &[u8],
            _: &CertificateDer<'_>,
            _: &rustls::DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, rustls::Error> {
            Ok(HandshakeSignatureValid::assertion())
        }
        fn verify_tls13_signature(
            &self,
            _: &[u8],
            _: &CertificateDer<'_>,
            _: &rustls::DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, rustls::Error> {
            Ok(HandshakeSignatureValid::assertion())
        }
        fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
            self.0.signature_verification_algorithms.supported_schemes()
        }
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    rustls::ClientConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(versions)
        .expect("TLS versions")
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Anyone(provider)))
        .with_no_client_auth()
}
