//! The control plane: from an accepted socket to a connection that the data plane reads.
//!
//! TLS handshake unless the listener is plain, HTTP, login: everything that takes long happens here, on threads that give
//! way to the data plane's. hyper parses the request; an upgrade is taken from it with nothing written, so that the
//! response, the ServerKey frame and, in fast start, no response at all go out in one write, and bytes that came behind
//! the request are kept.

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
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{error::Elapsed, timeout};
use towpath_relay_proto::login::{Login, greet};
use towpath_relay_proto::rights::{Claim, Rights};
use towpath_relay_proto::session::Close;
use towpath_tls::RecordLayer;
use towpath_websocket::{CloseCode, Messages};
use towpath_wire::derp::frame::ServerFrame;
use towpath_wire::derp::info::{Introduction, ServerInfo};
use towpath_wire::derp::mesh::PresentFlags;
use towpath_wire::key::{NodePrivate, NodePublic};
use towpath_wire::pool::BufferPool;
use tracing::debug;

use crate::config::LoginLimits;
use crate::forward::peer::{Peer, Sink};
use crate::forward::websocket::{MessageInlet, MessageSink, Replying, Unwrapper};
use crate::forward::{Arrival, DataPlane, Inlet};
use crate::mesh::Gate;
use crate::metrics::{ControlMetrics, MeshMetrics};
use crate::pages::{Page, Routed, Site};
use crate::proxies::Proxies;
use crate::stream::{LINGER, Parts, Stream, TlsStream};
use crate::upgrade::{Protocol, Upgrade};

mod refusal;

pub(crate) use refusal::Refusal;

/// How long an HTTP connection lives at most, however busy: probes need milliseconds.
const MAX_HTTP_LIFE: Duration = Duration::from_secs(300);
/// Most bytes of a request's head, and of what comes behind it before it is answered: hyper's own bound is 400 KiB, which
/// every connection that has not logged in could make the relay hold. Requests of clients have less than 500.
const MAX_HTTP_BUFFER: usize = 16 * 1024;
/// Keep-alives of connections that came together are spread over this much, as upstream does.
const KEEPALIVE_SPREAD: Duration = Duration::from_secs(5);

/// By which listener a connection came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Entrance {
    /// The one for clients.
    Tls,
    /// The one for proxies, without TLS.
    Plain,
    /// The one that only leads to HTTPS.
    Redirect,
}

/// What a client asked for, and where it really connects from.
#[derive(Debug)]
struct Asked {
    upgrade: Upgrade,
    client: SocketAddr,
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
    pub(crate) site: Site,
    pub(crate) proxies: Proxies,
    pub(crate) metrics: ControlMetrics,
    pub(crate) mesh: Gate,
    pub(crate) mesh_metrics: MeshMetrics,
    pub(crate) plane: Arc<DataPlane>,
}

impl Door {
    /// Serves one accepted connection until it is a client of the data plane or closed.
    pub(crate) async fn serve(&self, socket: tokio::net::TcpStream, address: SocketAddr, entrance: Entrance) {
        if let Err(refusal) = self.admit(socket, address, entrance).await {
            self.refuse(address, &refusal);
        }
    }

    /// Counts a connection that did not become a client.
    pub(crate) fn refuse(&self, address: SocketAddr, refusal: &Refusal) {
        self.metrics.refused(refusal.label());
        debug!(%address, reason = refusal.label(), "refused: {refusal}");
    }

    async fn admit(
        &self,
        socket: tokio::net::TcpStream,
        address: SocketAddr,
        entrance: Entrance,
    ) -> Result<(), Refusal> {
        let stream = match entrance {
            Entrance::Tls => Stream::Tls(Box::new(self.shake_hands(socket).await?)),
            Entrance::Plain if !self.proxies.admit(address.ip()) => return Err(Refusal::NotAProxy),
            Entrance::Plain | Entrance::Redirect => Stream::Plain(socket),
        };
        let Some((stream, rest, asked)) = self.serve_http(stream, address, entrance).await? else {
            return Ok(());
        };
        self.metrics.accepted(matches!(asked.upgrade.protocol, Protocol::WebSocket { .. }));
        timeout(self.limits.login_timeout, self.log_in(stream, rest, asked))
            .await
            .map_err(|_: Elapsed| Refusal::LoginTimeout)?
    }

    async fn shake_hands(&self, socket: tokio::net::TcpStream) -> Result<TlsStream, Refusal> {
        let stream = timeout(self.limits.handshake_timeout, TlsStream::accept(socket, self.tls.clone()))
            .await
            .map_err(|_: Elapsed| Refusal::HandshakeTimeout)?
            .map_err(Refusal::Handshake)?;
        self.metrics.tls_version(stream.protocol_version());
        Ok(stream)
    }

    /// What a request is. Those that come by a proxy are its client's.
    fn route<B>(
        &self,
        request: &Request<B>,
        address: SocketAddr,
        entrance: Entrance,
    ) -> Result<Asked, Box<Page>> {
        let routed = match entrance {
            Entrance::Redirect => Routed::Page(self.site.redirect(request)),
            Entrance::Tls | Entrance::Plain => self.site.route(request),
        };
        let upgrade = match routed {
            Routed::Page(page) => return Err(Box::new(page)),
            Routed::Derp(upgrade) => upgrade,
        };
        let client = match entrance {
            Entrance::Plain => self.proxies.client(address, request.headers()),
            Entrance::Tls | Entrance::Redirect => address,
        };
        Ok(Asked { upgrade, client })
    }

    /// Answers requests until one is an upgrade; `None` when the client is done before.
    async fn serve_http(
        &self,
        stream: Stream,
        address: SocketAddr,
        entrance: Entrance,
    ) -> Result<Option<(Stream, Bytes, Asked)>, Refusal> {
        let slot = Mutex::new(None);
        let service = service_fn(|request: Request<Incoming>| {
            let routed = self.route(&request, address, entrance);
            let slot = &slot;
            Box::pin(async move {
                match routed {
                    Err(page) => Ok::<Page, Infallible>(*page),
                    Ok(asked) => {
                        *slot.lock().unwrap_or_else(|poisoned| poisoned.into_inner()) = Some(asked);
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
            let asked = slot.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).take();
            match (asked, done) {
                (Some(asked), _) => Poll::Ready(Ok(Some(asked))),
                (None, Poll::Ready(Ok(()))) => Poll::Ready(Ok(None)),
                (None, Poll::Ready(Err(error))) => Poll::Ready(Err(error)),
                (None, Poll::Pending) => Poll::Pending,
            }
        });
        let served = timeout(MAX_HTTP_LIFE, served).await.map_err(|_: Elapsed| Refusal::HttpTimeout)?;
        let asked = served
            .map_err(|error| if error.is_timeout() { Refusal::HttpTimeout } else { Refusal::Http(error) })?;
        let parts = connection.into_parts();
        let mut stream = parts.io.into_inner();
        let Some(asked) = asked else {
            // The close_notify by which the client knows that the page was whole.
            let _ = timeout(LINGER, stream.shutdown()).await;
            return Ok(None);
        };
        Ok(Some((stream, parts.read_buf, asked)))
    }

    /// The DERP login, and the handing-over to the data plane.
    async fn log_in(&self, mut stream: Stream, received: Bytes, asked: Asked) -> Result<(), Refusal> {
        let response = asked.upgrade.response(&self.node_public);
        let mut unwrapper = match asked.upgrade.protocol {
            Protocol::Derp { .. } => None,
            Protocol::WebSocket { agreed: true, .. } => Some(Unwrapper::default()),
            Protocol::WebSocket { agreed: false, .. } => {
                let mut messages = Messages::default();
                messages.close(CloseCode::Policy, "client must speak the derp subprotocol");
                stream.say_goodbye(&[response.as_bytes(), messages.as_slice()].concat()).await;
                return Err(Refusal::Subprotocol);
            }
        };
        match self.introduce(&mut stream, response, received, unwrapper.as_mut()).await {
            Ok((introduction, rest)) => self.hand_over(stream, unwrapper, rest, &introduction, &asked),
            Err(refusal) => {
                if let (Some(unwrapper), Refusal::WebSocket(_) | Refusal::Login(_)) = (unwrapper, &refusal) {
                    let mut messages = Messages::default();
                    unwrapper.wrapper().close(Close::BadFrame, &mut messages);
                    stream.say_goodbye(messages.as_slice()).await;
                }
                Err(refusal)
            }
        }
    }

    /// Says who the relay is and hears who the client is. What follows the login is returned, out of its messages.
    async fn introduce(
        &self,
        stream: &mut Stream,
        response: String,
        received: Bytes,
        mut unwrapper: Option<&mut Unwrapper>,
    ) -> Result<(Introduction, Vec<u8>), Refusal> {
        let mut greeting = Vec::with_capacity(64);
        greet(&self.node_public, &mut greeting);
        let mut messages = Messages::default();
        if unwrapper.is_some() {
            messages.push(&greeting);
            messages.finish();
            greeting.clear();
        }
        write(stream, &[response.as_bytes(), messages.as_slice(), &greeting].concat()).await?;

        let (mut login, mut pool) = (Login::default(), BufferPool::default());
        let (mut received, mut buffer) = (Vec::from(received), [0; 4096]);
        loop {
            let frames = match &mut unwrapper {
                None => std::mem::take(&mut received),
                Some(unwrapper) => {
                    let (frames, replying) =
                        unwrapper.unwrap_all(&mut received).map_err(Refusal::WebSocket)?;
                    if replying == Replying::Pong {
                        messages.clear();
                        unwrapper.wrapper().finish(&mut messages);
                        write(stream, messages.as_slice()).await?;
                    }
                    frames
                }
            };
            let mut input = &frames[..];
            let introduction = login.next(&mut input, &self.node_key, &mut pool).map_err(Refusal::Login)?;
            if let Some(introduction) = introduction {
                return Ok((introduction, input.to_vec()));
            }
            let read = stream.read(&mut buffer).await.map_err(Refusal::Broken)?;
            if read == 0 {
                return Err(Refusal::Broken(io::ErrorKind::UnexpectedEof.into()));
            }
            received.clear();
            received.extend_from_slice(&buffer[..read]);
        }
    }

    /// Hands a client over to the data plane, with the ServerInfo in its outbox and whatever of it was already read.
    fn hand_over(
        &self,
        stream: Stream,
        unwrapper: Option<Unwrapper>,
        mut frames: Vec<u8>,
        introduction: &Introduction,
        asked: &Asked,
    ) -> Result<(), Refusal> {
        let Introduction { client, info, shared } = introduction;
        let Parts { socket, halves, incoming, mut plaintext } =
            stream.into_parts(self.records).map_err(Refusal::Broken)?;
        let socket = Arc::new(socket);
        let (inlet, sink) = match (unwrapper, halves) {
            (None, Some((reader, writer))) => (Inlet::Tls(reader), Sink::Tls(writer)),
            (None, None) => (Inlet::Plain, Sink::Plain),
            (Some(mut unwrapper), halves) => {
                // A pong that is owed goes out with the ServerInfo.
                let (unwrapped, _) = unwrapper.unwrap_all(&mut plaintext).map_err(Refusal::WebSocket)?;
                plaintext = unwrapped;
                let (reader, writer) = halves.unzip();
                let sink = MessageSink { writer, wrapper: unwrapper.wrapper() };
                let inlet = MessageInlet { reader, unwrapper };
                (Inlet::WebSocket(Box::new(inlet)), Sink::WebSocket(Box::new(sink)))
            }
        };
        frames.extend_from_slice(&plaintext);
        let (id, address) = (self.plane.registry().next_id(), asked.client);
        let claim = info.mesh_key.as_ref().map(|claimed| self.mesh.judge(claimed, address.ip()));
        let rights = claim.map_or(Rights::Client, Claim::rights);
        let flags = PresentFlags::of(rights.is_mesh(), info.is_prober, asked.upgrade.not_ideal);
        let peer = Arc::new(Peer::new(*client, id, address, flags, socket.clone(), sink));

        let (mut nonce, mut jitter) = ([0; 24], [0]);
        getrandom::fill(&mut nonce)
            .and_then(|()| getrandom::fill(&mut jitter))
            .map_err(|error| Refusal::Broken(io::Error::other(error)))?;
        let server_info =
            ServerFrame::ServerInfo { nonce: &nonce, sealed: &ServerInfo::default().seal(shared, &nonce) };
        // The worker flushes every new outbox, so whoever owes this flush need not be asked.
        let _ = peer.egress.push(|outbox| outbox.push_control(&server_info, &mut BufferPool::default()));
        if let Some(claim) = claim {
            self.mesh_metrics.claimed(claim);
            debug!(peer = ?client, %address, claim = claim.label(), "claims rights");
        }
        debug!(peer = ?client, %address, prober = info.is_prober, protocol = ?asked.upgrade.protocol, "logged in");
        self.plane.attach(Arrival {
            peer,
            socket,
            inlet,
            incoming,
            frames,
            rights,
            not_ideal: asked.upgrade.not_ideal,
            first_keepalive: first_keepalive(self.keepalive, jitter[0]),
        });
        Ok(())
    }
}

async fn write(stream: &mut Stream, bytes: &[u8]) -> Result<(), Refusal> {
    stream.write_all(bytes).await.map_err(Refusal::Broken)?;
    stream.flush().await.map_err(Refusal::Broken)
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
