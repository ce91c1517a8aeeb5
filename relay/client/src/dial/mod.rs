//! Dialling: from a name to a logged-in client, step by step, under one deadline.

mod error;
mod steps;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use rustls::ClientConfig;
use rustls::pki_types::{CertificateDer, ServerName};
use tokio::time::timeout;
use towpath_wire::derp::PROTOCOL_VERSION;
use towpath_wire::derp::info::ClientInfo;
use towpath_wire::derp::token::Token;
use towpath_wire::key::{NodePrivate, NodePublic};

use crate::client::Client;
use crate::proxy::Proxy;
use crate::trust::{SetupError, TlsVersions, Trust, client_config, config_for};

pub use error::{DialError, DialStep};

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

/// A relay to dial, any number of times and for any number of keys.
#[derive(Clone, Debug)]
pub struct Dialer {
    host: String,
    port: u16,
    /// Empty: the host is looked up.
    addresses: Vec<SocketAddr>,
    proxy: Option<Proxy>,
    /// The mark of the packets (`SO_MARK`).
    mark: Option<u32>,
    tls: Option<TlsSettings>,
    websocket: bool,
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
    /// ([`LoginError::TlsEnded`](crate::LoginError::TlsEnded)), and relays of other kinds take it as it is. [`TlsVersions::Only12`] leaves that out, because
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
            mark: None,
            tls: None,
            websocket: false,
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

    /// Marks the packets to the relay or to its proxy for the routing rules of this host (`SO_MARK`), as for a program whose own
    /// traffic must not go through a tunnel. Looking the host up is not marked. Needs CAP_NET_ADMIN; without it no address can be
    /// connected to.
    #[must_use]
    pub const fn with_mark(mut self, mark: u32) -> Self {
        self.mark = Some(mark);
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

    /// Speaks DERP in WebSocket messages, for networks and proxies that let nothing else pass. There is no fast start then, and
    /// each packet costs this side a mask. Relays in the field speak it, derper among them.
    #[must_use]
    pub const fn websocket(mut self) -> Self {
        self.websocket = true;
        self
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
}

fn server_name(name: &str) -> Result<ServerName<'static>, SetupError> {
    let known = ServerName::try_from(name).map_err(|_| SetupError::ServerName(name.to_owned()))?;
    Ok(known.to_owned())
}
