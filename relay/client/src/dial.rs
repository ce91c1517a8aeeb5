//! Dialling: from a name to a logged-in client, step by step, under one deadline.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ProtocolVersion};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use towpath_relay_proto::login::BINDING_LABEL;
use towpath_tls::{HandshakeError, Parts, RecordLayer};
use towpath_wire::derp::PROTOCOL_VERSION;
use towpath_wire::derp::binding::Binding;
use towpath_wire::derp::info::ClientInfo;
use towpath_wire::derp::token::Token;
use towpath_wire::key::{NodePrivate, NodePublic};

use crate::certificate::{is_meta, relay_key};
use crate::client::{Client, Welcome};
use crate::dial_error::{DialError, DialStep};
use crate::http;
use crate::incoming::Incoming;
use crate::login::{LoggedIn, LoginError, greeting, introduce, log_in};
use crate::outgoing::Outgoing;
use crate::proxy::{self, Proxy};
use crate::tcp::{self, ConnectFailure};
use crate::tls::TlsStream;
use crate::trust::{SetupError, TlsVersions, Trust, client_config, config_for};

/// How long all steps together may take, as in the Go client.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// What a relay shows to any client before its login.
#[derive(Clone, Debug)]
pub struct Greeting {
    /// The relay's node key.
    pub relay: NodePublic,
    /// The certificates of the relay, its own first, without meta certificates. Empty on plain TCP.
    pub chain: Vec<CertificateDer<'static>>,
}

/// How TLS is spoken with the relay.
#[derive(Clone, Debug)]
struct TlsSettings {
    config: Arc<ClientConfig>,
    /// The name that the relay is asked for.
    name: ServerName<'static>,
    /// What the configuration was made from.
    trust: Trust,
    versions: TlsVersions,
}

impl TlsSettings {
    async fn handshake(
        &self,
        socket: TcpStream,
        step: &mut DialStep,
    ) -> Result<TlsStream, DialError> {
        *step = DialStep::Tls;
        let stream = TlsStream::connect(socket, self.config.clone(), self.name.clone()).await;
        stream.map_err(|error| DialError::Tls(error.into()))
    }
}

/// A relay to dial, any number of times and for any number of keys.
#[derive(Clone, Debug)]
pub struct Dialer {
    host: String,
    port: u16,
    /// Empty: the host is looked up.
    addresses: Vec<SocketAddr>,
    proxy: Option<Proxy>,
    tls: Option<TlsSettings>,
    fast_start: bool,
    /// Whether a login over TLS is bound to its connection.
    bind: bool,
    info: ClientInfo,
    token: Option<Token>,
    relay_key: Option<NodePublic>,
    timeout: Duration,
}

impl Dialer {
    /// A relay behind TLS. `host` is what is looked up, what TLS asks for and verifies, and what HTTP says.
    ///
    /// Each login is bound to its connection, so that a relay of this kind refuses it on any other
    /// ([`LoginError::TlsEnded`]), and relays of other kinds take it as it is. [`TlsVersions::Only12`] leaves that out, because
    /// TLS 1.2 has no such binding here.
    ///
    /// # Errors
    ///
    /// See [`SetupError`].
    pub fn tls(host: &str, port: u16, trust: &Trust, versions: TlsVersions) -> Result<Self, SetupError> {
        let (config, trust) = (client_config(trust, versions)?, trust.clone());
        let tls = Some(TlsSettings { config, name: server_name(host)?, trust, versions });
        let bind = versions != TlsVersions::Only12;
        Ok(Self { tls, bind, ..Self::plain(host, port) })
    }

    /// A relay that speaks plain HTTP: behind a proxy that ends TLS, or in a test.
    #[must_use]
    pub fn plain(host: &str, port: u16) -> Self {
        let info = ClientInfo { version: PROTOCOL_VERSION.into(), can_ack_pings: true, ..Default::default() };
        Self {
            host: host.to_owned(),
            port,
            addresses: Vec::new(),
            proxy: None,
            tls: None,
            fast_start: true,
            bind: false,
            info,
            token: None,
            relay_key: None,
            timeout: CONNECT_TIMEOUT,
        }
    }

    /// Connects to this address instead of looking the host up.
    #[must_use]
    pub fn at(self, address: SocketAddr) -> Self {
        self.at_any(vec![address])
    }

    /// Connects to the first of these addresses that accepts instead of looking the host up. An empty list looks it up.
    ///
    /// However addresses are found, IPv6 and IPv4 take turns, and each has 250 ms before the next is tried beside it
    /// (RFC 8305).
    #[must_use]
    pub fn at_any(mut self, addresses: Vec<SocketAddr>) -> Self {
        self.addresses = addresses;
        self
    }

    /// Connects through a tunnel of this proxy, which is told host and port and looks the host up itself: addresses that the
    /// dialer was given are not used. TLS, its pins and names, and fast start are the same inside of the tunnel.
    #[must_use]
    pub fn through(mut self, proxy: Proxy) -> Self {
        self.proxy = Some(proxy);
        self
    }

    /// Accepts certificates that are valid for `name` instead of those for the host, as a DERP map asks for by a `CertName`
    /// that is a DNS name. TLS still asks for the host, and HTTP says it. Without TLS there is no certificate, and nothing
    /// changes.
    ///
    /// # Errors
    ///
    /// See [`SetupError`].
    pub fn with_certificate_name(mut self, name: &str) -> Result<Self, SetupError> {
        if let Some(tls) = &mut self.tls {
            tls.config = config_for(&tls.trust, tls.versions, Some(server_name(name)?))?;
        }
        Ok(self)
    }

    /// Waits for the HTTP response even where the relay's meta certificate would allow not to.
    #[must_use]
    pub const fn without_fast_start(mut self) -> Self {
        self.fast_start = false;
        self
    }

    /// Says this of the client instead of protocol version 2 and "answers pings". The binding is always the connection's own.
    #[must_use]
    pub fn with_info(mut self, info: ClientInfo) -> Self {
        self.info = info;
        self
    }

    /// Presents this token at each login, in place of one in [`with_info`](Self::with_info).
    #[must_use]
    pub fn with_token(mut self, token: Token) -> Self {
        self.token = Some(token);
        self
    }

    /// Does not bind logins to their connections, for a relay behind a proxy that ends TLS. The operator of that proxy, and of
    /// whatever else ends TLS on the way, can then repeat a login.
    #[must_use]
    pub const fn proxied(mut self) -> Self {
        self.bind = false;
        self
    }

    /// Logs in at the relay with this node key and at no other, whatever its certificate: to one with another key
    /// nothing is said.
    #[must_use]
    pub const fn with_relay_key(mut self, key: NodePublic) -> Self {
        self.relay_key = Some(key);
        self
    }

    /// Allows all steps together this much instead of [`CONNECT_TIMEOUT`].
    #[must_use]
    pub const fn with_timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Connects and logs `key` in. Returns when the relay has confirmed the login.
    ///
    /// # Errors
    ///
    /// See [`DialError`].
    pub async fn connect(&self, key: &NodePrivate) -> Result<Client, DialError> {
        let mut step = DialStep::Resolve;
        match timeout(self.timeout, self.take_steps(key, &mut step)).await {
            Ok(connected) => connected,
            Err(_elapsed) => Err(DialError::Timeout(step)),
        }
    }

    /// Connects and waits for the relay to state its key, without logging in: what the relay is can be asked without a key.
    ///
    /// # Errors
    ///
    /// See [`DialError`].
    pub async fn greet(&self) -> Result<Greeting, DialError> {
        let mut step = DialStep::Resolve;
        match timeout(self.timeout, self.take_steps_to_greeting(&mut step)).await {
            Ok(greeted) => greeted,
            Err(_elapsed) => Err(DialError::Timeout(step)),
        }
    }

    async fn take_steps_to_greeting(&self, step: &mut DialStep) -> Result<Greeting, DialError> {
        let mut socket = self.reach(step).await?;
        let Some(tls) = &self.tls else {
            let relay = self.hear_key(&mut socket, step).await?;
            return Ok(Greeting { relay, chain: Vec::new() });
        };
        let mut stream = tls.handshake(socket, step).await?;
        let relay = self.hear_key(&mut stream, step).await?;
        let chain = stream.peer_certificates().unwrap_or_default();
        Ok(Greeting { relay, chain: chain.iter().filter(|one| !is_meta(one)).cloned().collect() })
    }

    async fn hear_key(
        &self,
        stream: &mut (impl AsyncRead + AsyncWrite + Unpin),
        step: &mut DialStep,
    ) -> Result<NodePublic, DialError> {
        *step = DialStep::Upgrade;
        let request = http::request(&self.host, self.port, false);
        let broken = |error: io::Error| DialError::Upgrade(error.into());
        stream.write_all(request.as_bytes()).await.map_err(broken)?;
        stream.flush().await.map_err(broken)?;
        let mut received = Vec::with_capacity(1024);
        http::read_response(stream, &mut received).await.map_err(DialError::Upgrade)?;
        *step = DialStep::Login;
        Ok(greeting(stream, received).await.map_err(DialError::Login)?.relay())
    }

    async fn take_steps(&self, key: &NodePrivate, step: &mut DialStep) -> Result<Client, DialError> {
        let mut socket = self.reach(step).await?;
        let Some(tls) = &self.tls else {
            let logged_in = self.upgrade(&mut socket, key, &self.info_with(None), None, step).await?;
            return Ok(client(socket, None, logged_in, Vec::new(), Negotiated::default()));
        };
        let mut stream = tls.handshake(socket, step).await?;
        let version = stream.protocol_version();
        // Older versions send certificates in clear, where an attacker can replace the last one.
        let certified = stream
            .peer_certificates()
            .filter(|_| self.fast_start && version == Some(ProtocolVersion::TLSv1_3))
            .and_then(relay_key);
        let info = self.info_with(self.bind.then(|| binding(&stream)));
        let logged_in = self.upgrade(&mut stream, key, &info, certified, step).await?;
        let negotiated = Negotiated { version, fast_start: certified.is_some() };
        let parts = stream
            .into_parts(RecordLayer::Own)
            .map_err(|error| DialError::Tls(HandshakeError::Tls(error).into()))?;
        let Parts { io, reader, writer, incoming, plaintext } = parts;
        let logged_in = LoggedIn { rest: [logged_in.rest, plaintext].concat(), ..logged_in };
        Ok(client(io, Some((reader, writer)), logged_in, incoming, negotiated))
    }

    /// A TCP connection to the relay, or to the proxy that has made a tunnel to it.
    async fn reach(&self, step: &mut DialStep) -> Result<TcpStream, DialError> {
        if let Some(proxy) = &self.proxy {
            *step = DialStep::Proxy;
            let failed = |source| DialError::Proxy { proxy: proxy.clone(), source };
            return proxy::open(proxy, &self.host, self.port).await.map_err(failed);
        }
        let resolved;
        let addresses = if self.addresses.is_empty() {
            let failed = |source| DialError::Resolve { host: self.host.clone(), source };
            resolved = tcp::resolve(&self.host, self.port).await.map_err(failed)?;
            &resolved
        } else {
            &self.addresses
        };
        *step = DialStep::Tcp;
        let failed = |ConnectFailure { address, source }| DialError::Tcp { address, source };
        tcp::connect(addresses).await.map_err(failed)
    }

    /// Upgrade and login. In fast start both requests are one write, and no HTTP response comes.
    async fn upgrade(
        &self,
        stream: &mut (impl AsyncRead + AsyncWrite + Unpin),
        key: &NodePrivate,
        info: &ClientInfo,
        certified: Option<NodePublic>,
        step: &mut DialStep,
    ) -> Result<LoggedIn, DialError> {
        *step = DialStep::Upgrade;
        let mut request = http::request(&self.host, self.port, certified.is_some()).into_bytes();
        if let Some(relay) = &certified {
            self.expect(relay).map_err(DialError::Login)?;
            introduce(key, relay, info, &mut request).map_err(DialError::Login)?;
        }
        let broken = |error: io::Error| DialError::Upgrade(error.into());
        stream.write_all(&request).await.map_err(broken)?;
        stream.flush().await.map_err(broken)?;
        let mut received = Vec::with_capacity(1024);
        if certified.is_none() {
            http::read_response(stream, &mut received).await.map_err(DialError::Upgrade)?;
        }
        *step = DialStep::Login;
        if certified.is_some() {
            let read =
                stream.read_buf(&mut received).await.map_err(|error| DialError::Login(error.into()))?;
            if read > 0 && received[0] == b'H' {
                // The certificate promised a relay, and something before it answers in HTTP.
                http::read_response(stream, &mut received).await.map_err(DialError::Upgrade)?;
            }
        }
        let greeted = greeting(stream, received).await.map_err(DialError::Login)?;
        self.expect(&greeted.relay()).map_err(DialError::Login)?;
        log_in(stream, key, info, certified, greeted).await.map_err(DialError::Login)
    }

    /// What is said of the client on the connection with this binding.
    fn info_with(&self, binding: Option<Binding>) -> ClientInfo {
        let ClientInfo { token, .. } = &self.info;
        ClientInfo { binding, token: self.token.as_ref().or(token.as_ref()).cloned(), ..self.info.clone() }
    }

    fn expect(&self, relay: &NodePublic) -> Result<(), LoginError> {
        match self.relay_key {
            Some(expected) if expected != *relay => Err(LoginError::OtherRelay { said: *relay, expected }),
            _ => Ok(()),
        }
    }
}

fn server_name(name: &str) -> Result<ServerName<'static>, SetupError> {
    let known = ServerName::try_from(name).map_err(|_| SetupError::ServerName(name.to_owned()))?;
    Ok(known.to_owned())
}

/// The binding of a login on this connection. TLS 1.2 has none, and a relay that speaks TLS 1.3 never agrees to it with a client
/// that does: whatever is in between has agreed, and the login must be of no use to it.
fn binding(stream: &TlsStream) -> Binding {
    stream.exporter(BINDING_LABEL).map_or(Binding::NOWHERE, Binding::from_bytes)
}

/// The facts about TLS that a login needs.
#[derive(Clone, Copy, Debug, Default)]
struct Negotiated {
    version: Option<ProtocolVersion>,
    fast_start: bool,
}

fn client(
    socket: TcpStream,
    halves: Option<(crate::tls::TlsReader, crate::tls::TlsWriter)>,
    logged_in: LoggedIn,
    incoming: Vec<u8>,
    Negotiated { version, fast_start }: Negotiated,
) -> Client {
    let (reader, writer) = halves.unzip();
    let (read_half, write_half) = socket.into_split();
    Client {
        incoming: Incoming::new(read_half, reader, logged_in.session, incoming, logged_in.rest),
        outgoing: Outgoing::new(write_half, writer),
        welcome: Welcome { relay: logged_in.relay, info: logged_in.info, tls_version: version, fast_start },
    }
}
