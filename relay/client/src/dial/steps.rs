//! The steps of dialling, one after the other.

use std::io;

use rustls::ProtocolVersion;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use towpath_relay_proto::login::BINDING_LABEL;
use towpath_tls::{HandshakeError, Parts, RecordLayer};
use towpath_wire::derp::binding::Binding;
use towpath_wire::derp::info::ClientInfo;
use towpath_wire::key::{NodePrivate, NodePublic};

use super::{DialError, DialStep, Dialer, Greeting, TlsSettings};
use crate::certificate::{is_meta, relay_key};
use crate::client::{Client, Connection, Welcome};
use crate::login::{LoggedIn, LoginError, greeting, introduce, log_in};
use crate::tcp::{self, ConnectFailure};
use crate::tls::TlsStream;
use crate::websocket::{Unwrapper, WebSocketStream};
use crate::{http, proxy};

impl TlsSettings {
    async fn handshake(&self, socket: TcpStream, step: &mut DialStep) -> Result<TlsStream, DialError> {
        *step = DialStep::Tls;
        let stream = TlsStream::connect(socket, self.config.clone(), self.name.clone()).await;
        stream.map_err(|error| DialError::Tls(error.into()))
    }
}

impl Dialer {
    pub(super) async fn take_steps_to_greeting(&self, step: &mut DialStep) -> Result<Greeting, DialError> {
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

    pub(super) async fn take_steps(
        &self,
        key: &NodePrivate,
        step: &mut DialStep,
    ) -> Result<Client, DialError> {
        let mut socket = self.reach(step).await?;
        let Some(tls) = &self.tls else {
            let (login, websocket) =
                self.upgrade(&mut socket, key, &self.info_with(None), None, step).await?;
            return Ok(client(Connection::plain(socket, websocket), login, None, false));
        };
        let mut stream = tls.handshake(socket, step).await?;
        let version = stream.protocol_version();
        // Older versions send certificates in clear, where an attacker can replace the last one.
        let certified = stream
            .peer_certificates()
            .filter(|_| self.fast_start && version == Some(ProtocolVersion::TLSv1_3))
            .and_then(relay_key)
            .filter(|_| !self.websocket);
        let info = self.info_with(self.bind.then(|| binding(&stream)));
        let (login, websocket) = self.upgrade(&mut stream, key, &info, certified, step).await?;
        let parts = stream
            .into_parts(RecordLayer::Own)
            .map_err(|error| DialError::Tls(HandshakeError::Tls(error).into()))?;
        let Parts { io: socket, reader, writer, incoming: sealed, plaintext: opened } = parts;
        let connection = Connection { socket, tls: Some((reader, writer)), websocket, sealed, opened };
        Ok(client(connection, login, version, certified.is_some()))
    }

    /// A TCP connection to the relay, or to the proxy that has made a tunnel to it.
    async fn reach(&self, step: &mut DialStep) -> Result<TcpStream, DialError> {
        if let Some(proxy) = &self.proxy {
            *step = DialStep::Proxy;
            let failed = |source| DialError::Proxy { proxy: proxy.clone(), source };
            return proxy::open(proxy, &self.host, self.port, self.mark).await.map_err(failed);
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
        tcp::connect(addresses, self.mark).await.map_err(failed)
    }

    async fn hear_key(
        &self,
        stream: &mut (impl AsyncRead + AsyncWrite + Unpin),
        step: &mut DialStep,
    ) -> Result<NodePublic, DialError> {
        let greeted = if self.websocket {
            greeting(&mut self.open_websocket(stream, step).await?, Vec::new()).await
        } else {
            *step = DialStep::Upgrade;
            let request = http::request(&self.host, self.port, false);
            write(stream, request.as_bytes()).await?;
            let mut received = Vec::with_capacity(1024);
            http::read_response(stream, &mut received).await.map_err(DialError::Upgrade)?;
            *step = DialStep::Login;
            greeting(stream, received).await
        };
        Ok(greeted.map_err(DialError::Login)?.relay())
    }

    /// Upgrade and login. In fast start both requests are one write, and no HTTP response comes.
    async fn upgrade(
        &self,
        stream: &mut (impl AsyncRead + AsyncWrite + Unpin),
        key: &NodePrivate,
        info: &ClientInfo,
        certified: Option<NodePublic>,
        step: &mut DialStep,
    ) -> Result<(LoggedIn, Option<Unwrapper>), DialError> {
        if self.websocket {
            let (login, unwrapper) = self.upgrade_to_websocket(stream, key, info, step).await?;
            return Ok((login, Some(unwrapper)));
        }
        *step = DialStep::Upgrade;
        let mut request = http::request(&self.host, self.port, certified.is_some()).into_bytes();
        if let Some(relay) = &certified {
            self.expect(relay).map_err(DialError::Login)?;
            introduce(key, relay, info, &mut request).map_err(DialError::Login)?;
        }
        write(stream, &request).await?;
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
        let login = log_in(stream, key, info, certified, greeted).await.map_err(DialError::Login)?;
        Ok((login, None))
    }

    async fn upgrade_to_websocket(
        &self,
        stream: &mut (impl AsyncRead + AsyncWrite + Unpin),
        key: &NodePrivate,
        info: &ClientInfo,
        step: &mut DialStep,
    ) -> Result<(LoggedIn, Unwrapper), DialError> {
        let mut stream = self.open_websocket(stream, step).await?;
        let greeted = greeting(&mut stream, Vec::new()).await.map_err(DialError::Login)?;
        self.expect(&greeted.relay()).map_err(DialError::Login)?;
        let login = log_in(&mut stream, key, info, None, greeted).await.map_err(DialError::Login)?;
        // The answer to a ping that came meanwhile.
        stream.flush().await.map_err(|error| DialError::Login(error.into()))?;
        let (unwrapper, content) = stream.into_parts();
        Ok((LoggedIn { rest: [login.rest, content].concat(), ..login }, unwrapper))
    }

    async fn open_websocket<'s, S: AsyncRead + AsyncWrite + Unpin>(
        &self,
        stream: &'s mut S,
        step: &mut DialStep,
    ) -> Result<WebSocketStream<'s, S>, DialError> {
        *step = DialStep::Upgrade;
        let early =
            http::upgrade_to_websocket(stream, &self.host, self.port).await.map_err(DialError::Upgrade)?;
        *step = DialStep::Login;
        WebSocketStream::new(stream, early).map_err(|violation| DialError::Login(violation.into()))
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

/// Writes a request.
async fn write(stream: &mut (impl AsyncWrite + Unpin), request: &[u8]) -> Result<(), DialError> {
    let broken = |error: io::Error| DialError::Upgrade(error.into());
    stream.write_all(request).await.map_err(broken)?;
    stream.flush().await.map_err(broken)
}

/// The binding of a login on this connection. TLS 1.2 has none, and a relay that speaks TLS 1.3 never agrees to it with a client
/// that does: whatever is in between has agreed, and the login must be of no use to it.
fn binding(stream: &TlsStream) -> Binding {
    stream.exporter(BINDING_LABEL).map_or(Binding::NOWHERE, Binding::from_bytes)
}

fn client(
    connection: Connection,
    LoggedIn { relay, info, session, rest }: LoggedIn,
    tls_version: Option<ProtocolVersion>,
    fast_start: bool,
) -> Client {
    Client::new(connection, session, rest, Welcome { relay, info, tls_version, fast_start })
}
