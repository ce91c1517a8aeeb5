//! The control plane: from an accepted socket to a connection that the data plane reads.
//!
//! TLS handshake, HTTP, login: everything that takes long happens here, on threads that give way to the data plane's.
//! hyper parses the request; an upgrade is taken from it with nothing written, so that the response, the ServerKey
//! frame and, in fast start, no response at all go out in one write, and bytes that came behind the request are kept.

use std::convert::Infallible;
use std::future::{pending, poll_fn};
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use hyper::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use relay_proto::login::{Login, LoginError, greet};
use rustls::server::UnbufferedServerConnection;
use tls::{HandshakeError, Parts, RecordLayer};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{error::Elapsed, timeout};
use tracing::debug;
use wire::derp::frame::ServerFrame;
use wire::derp::info::{ClientInfoError, Introduction, ServerInfo};
use wire::key::{NodePrivate, NodePublic};
use wire::pool::BufferPool;

use crate::config::LoginLimits;
use crate::forward::peer::Peer;
use crate::forward::{Arrival, DataPlane};
use crate::metrics::ControlMetrics;
use crate::pages::{self, Page, Routed, Upgrade};

/// How long an HTTP connection lives at most, however busy: probes need milliseconds.
const MAX_HTTP_LIFE: Duration = Duration::from_secs(300);
/// Most bytes of a request's head, and of what comes behind it before it is answered: hyper's own bound is 400 KiB, which
/// every connection that has not logged in could make the relay hold. Requests of clients have less than 500.
const MAX_HTTP_BUFFER: usize = 16 * 1024;
/// How long a client of old has to read an alert or a page after which the connection is closed.
const LINGER: Duration = Duration::from_secs(1);
/// Keep-alives of connections that came together are spread over this much, as upstream does.
const KEEPALIVE_SPREAD: Duration = Duration::from_secs(5);

type Stream = tls::Stream<tokio::net::TcpStream, UnbufferedServerConnection>;

/// Why a connection did not become a client. The variants are metric labels.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Refusal {
    #[error("its host holds as many connections that have not logged in as it may")]
    HostLimit,
    #[error("the TLS handshake took too long")]
    HandshakeTimeout,
    #[error("TLS: {0}")]
    Handshake(HandshakeError),
    #[error("HTTP: {0}")]
    Http(hyper::Error),
    #[error("the HTTP connection was idle or too long")]
    HttpTimeout,
    #[error("the login took too long")]
    LoginTimeout,
    #[error("login: {0}")]
    Login(LoginError),
    #[error("the connection broke during the login: {0}")]
    Broken(io::Error),
}

impl Refusal {
    pub(crate) const LABELS: [&'static str; 10] = [
        "host_limit",
        "handshake_timeout",
        "handshake",
        "http",
        "http_timeout",
        "login_timeout",
        "bad_frame",
        "bad_key",
        "bad_info",
        "broken",
    ];

    pub(crate) const fn label(&self) -> &'static str {
        match self {
            Self::HostLimit => "host_limit",
            Self::HandshakeTimeout => "handshake_timeout",
            Self::Handshake(_) => "handshake",
            Self::Http(_) => "http",
            Self::HttpTimeout => "http_timeout",
            Self::LoginTimeout => "login_timeout",
            Self::Login(LoginError::NotClientInfo(_) | LoginError::Length(_)) => "bad_frame",
            Self::Login(LoginError::ClientInfo(ClientInfoError::Key | ClientInfoError::Box)) => "bad_key",
            Self::Login(LoginError::ClientInfo(_)) => "bad_info",
            Self::Broken(_) => "broken",
        }
    }
}

/// What every new connection needs.
#[derive(Debug)]
pub(crate) struct Door {
    pub(crate) tls: Arc<rustls::ServerConfig>,
    pub(crate) records: RecordLayer,
    pub(crate) node_key: NodePrivate,
    pub(crate) node_public: NodePublic,
    pub(crate) limits: LoginLimits,
    pub(crate) keepalive: Duration,
    pub(crate) metrics: ControlMetrics,
    pub(crate) plane: Arc<DataPlane>,
}

impl Door {
    /// Serves one accepted connection until it is a client of the data plane or closed.
    pub(crate) async fn serve(&self, socket: tokio::net::TcpStream, address: SocketAddr) {
        if let Err(refusal) = self.admit(socket, address).await {
            self.refuse(address, &refusal);
        }
    }

    /// Counts a connection that did not become a client.
    pub(crate) fn refuse(&self, address: SocketAddr, refusal: &Refusal) {
        self.metrics.refused(refusal.label());
        debug!(%address, reason = refusal.label(), "refused: {refusal}");
    }

    async fn admit(&self, socket: tokio::net::TcpStream, address: SocketAddr) -> Result<(), Refusal> {
        let connection = UnbufferedServerConnection::new(self.tls.clone())
            .map_err(|error| Refusal::Handshake(HandshakeError::Tls(error.into())))?;
        let stream = timeout(self.limits.handshake_timeout, Stream::handshake(socket, connection))
            .await
            .map_err(|_: Elapsed| Refusal::HandshakeTimeout)?
            .map_err(Refusal::Handshake)?;
        self.metrics.tls_version(stream.state().protocol_version());
        let Some((stream, rest, upgrade)) = self.serve_http(stream).await? else { return Ok(()) };
        self.metrics.accepted();
        timeout(self.limits.login_timeout, self.log_in(stream, rest, upgrade, address))
            .await
            .map_err(|_: Elapsed| Refusal::LoginTimeout)?
    }

    /// Answers requests until one is an upgrade; `None` when the client is done before.
    async fn serve_http(&self, stream: Stream) -> Result<Option<(Stream, Bytes, Upgrade)>, Refusal> {
        let upgrade = Arc::new(Mutex::new(None));
        let slot = upgrade.clone();
        let service = service_fn(move |request: Request<Incoming>| {
            let slot = slot.clone();
            Box::pin(async move {
                match pages::route(&request) {
                    Routed::Page(page) => Ok::<Page, Infallible>(page),
                    Routed::Derp(upgrade) => {
                        *slot.lock().unwrap_or_else(|poisoned| poisoned.into_inner()) = Some(upgrade);
                        // No response from here: the connection is about to be taken from hyper.
                        pending().await
                    }
                }
            })
        });
        let mut connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(self.limits.idle_http_timeout)
            .max_buf_size(MAX_HTTP_BUFFER)
            .serve_connection(TokioIo::new(stream), service);
        let served = poll_fn(|cx| {
            let done = Pin::new(&mut connection).poll_without_shutdown(cx);
            let upgrade = upgrade.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).take();
            match (upgrade, done) {
                (Some(upgrade), _) => Poll::Ready(Ok(Some(upgrade))),
                (None, Poll::Ready(Ok(()))) => Poll::Ready(Ok(None)),
                (None, Poll::Ready(Err(error))) => Poll::Ready(Err(error)),
                (None, Poll::Pending) => Poll::Pending,
            }
        });
        let served = timeout(MAX_HTTP_LIFE, served).await.map_err(|_: Elapsed| Refusal::HttpTimeout)?;
        let upgrade = served
            .map_err(|error| if error.is_timeout() { Refusal::HttpTimeout } else { Refusal::Http(error) })?;
        let parts = connection.into_parts();
        let mut stream = parts.io.into_inner();
        let Some(upgrade) = upgrade else {
            // The close_notify by which the client knows that the page was whole.
            let _ = timeout(LINGER, stream.shutdown()).await;
            return Ok(None);
        };
        Ok(Some((stream, parts.read_buf, upgrade)))
    }

    /// The DERP login, and the handing-over to the data plane.
    async fn log_in(
        &self,
        mut stream: Stream,
        mut received: Bytes,
        upgrade: Upgrade,
        address: SocketAddr,
    ) -> Result<(), Refusal> {
        let mut greeting = Vec::with_capacity(256);
        if !upgrade.fast_start {
            greeting.extend_from_slice(
                format!(
                    "HTTP/1.1 101 Switching Protocols\r\nUpgrade: DERP\r\nConnection: Upgrade\r\nDerp-Version: 2\r\n\
                     Derp-Public-Key: {}\r\n\r\n",
                    self.node_public.to_hex()
                )
                .as_bytes(),
            );
        }
        greet(&self.node_public, &mut greeting);
        stream.write_all(&greeting).await.map_err(Refusal::Broken)?;
        stream.flush().await.map_err(Refusal::Broken)?;

        let (mut login, mut pool) = (Login::default(), BufferPool::default());
        let mut buffer = [0; 4096];
        let (introduction, rest) = loop {
            let mut input = &received[..];
            let login = login.next(&mut input, &self.node_key, &mut pool).map_err(Refusal::Login)?;
            if let Some(introduction) = login {
                break (introduction, input.to_vec());
            }
            let read = stream.read(&mut buffer).await.map_err(Refusal::Broken)?;
            if read == 0 {
                return Err(Refusal::Broken(io::ErrorKind::UnexpectedEof.into()));
            }
            received = Bytes::copy_from_slice(&buffer[..read]);
        };
        self.hand_over(stream, rest, &introduction, upgrade, address).map_err(Refusal::Broken)
    }

    /// Hands a client over to the data plane, with the ServerInfo in its outbox and whatever of it was already read.
    fn hand_over(
        &self,
        stream: Stream,
        rest: Vec<u8>,
        introduction: &Introduction,
        upgrade: Upgrade,
        address: SocketAddr,
    ) -> io::Result<()> {
        let Introduction { client, info, shared } = introduction;
        let parts = stream.into_parts(self.records).map_err(io::Error::other)?;
        let Parts { io, reader, writer, incoming, plaintext } = parts;
        let socket = Arc::new(io.into_std()?);
        let peer =
            Arc::new(Peer::new(*client, self.plane.registry().next_id(), address, socket.clone(), writer));

        let (mut nonce, mut jitter) = ([0; 24], [0]);
        getrandom::fill(&mut nonce).and_then(|()| getrandom::fill(&mut jitter)).map_err(io::Error::other)?;
        let server_info =
            ServerFrame::ServerInfo { nonce: &nonce, sealed: &ServerInfo::default().seal(shared, &nonce) };
        // The worker flushes every new outbox, so whoever owes this flush need not be asked.
        let _ = peer.egress.push(|outbox| outbox.push_control(&server_info, &mut BufferPool::default()));
        debug!(peer = ?client, %address, prober = info.is_prober, fast_start = upgrade.fast_start, "logged in");
        self.plane.attach(Arrival {
            peer,
            socket,
            reader,
            incoming,
            plaintext: [rest, plaintext].concat(),
            not_ideal: upgrade.not_ideal,
            first_keepalive: first_keepalive(self.keepalive, jitter[0]),
        });
        Ok(())
    }
}

/// How long after its login a client is sent its first keep-alive: spread over the values of a random byte.
fn first_keepalive(interval: Duration, random: u8) -> Duration {
    interval + KEEPALIVE_SPREAD * u32::from(random) / u32::from(u8::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn first_keepalives_are_spread_over_five_seconds() {
        let minute = Duration::from_secs(60);
        let due: Vec<_> = (0..=u8::MAX).map(|random| first_keepalive(minute, random) - minute).collect();
        assert_eq!((due[0], due[255]), (Duration::ZERO, Duration::from_secs(5)));
        let gap = due.windows(2).map(|pair| pair[1] - pair[0]).max();
        assert!(gap <= Some(Duration::from_millis(20)), "{gap:?}");
    }
}
