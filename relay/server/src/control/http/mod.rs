//! The stage that reads the request: answers HTTP requests until one asks for DERP.
//!
//! hyper parses requests. The connection of an upgrade is taken from hyper before it writes a response, so that the
//! response and the ServerKey frame go out in one write, and in fast start only the frame. Bytes behind the request are
//! kept.
//!
//! - [`upgrade`]: the request for DERP. [`pages`]: everything else. [`bootstrap`]: one page that needs the DNS.
//! - [`proxies`]: the proxies in front of the plain listener.

mod bootstrap;
mod pages;
mod proxies;
mod response;
mod upgrade;

use std::convert::Infallible;
use std::future::{pending, poll_fn};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Mutex;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use hyper::Request;
use hyper::body::Incoming;
use hyper::header::{CONNECTION, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::AsyncWriteExt;
use tokio::time::error::Elapsed;
use tokio::time::timeout;
use towpath_relay_proto::account::Origin;
use towpath_wire::host::Host;
use towpath_wire::sync::lock;

use super::accounts::Standing;
use super::listener::{Accepted, ListenerKind};
use super::refusal::Refusal;
use super::stream::{ClientStream, LINGER};
use pages::Routed;
use response::Page;

pub(crate) use bootstrap::Bootstrap;
pub(crate) use pages::Site;
pub(crate) use proxies::Proxies;
pub(crate) use upgrade::{Upgrade, UpgradeProtocol};

/// The longest life of an HTTP connection, however busy it is. Probes need milliseconds.
const MAX_HTTP_LIFE: Duration = Duration::from_secs(300);
/// Answers on one HTTP connection. netcheck asks a handful of questions, and an answer costs the control plane what could be
/// a step of a login.
const MAX_ANSWERS: usize = 16;
/// Most bytes of a request's head, and of the bytes behind it before it is answered. hyper's own bound is 400 KiB,
/// which every connection that has not logged in could make the relay hold. Requests of clients have less than 500
/// bytes.
const MAX_HTTP_BUFFER: usize = 16 * 1024;

/// The settings and pages of the stage.
#[derive(Debug)]
pub(crate) struct Http {
    pub(crate) site: Site,
    pub(crate) proxies: Proxies,
}

/// A connection that has asked for DERP.
#[derive(Debug)]
pub(super) struct UpgradeRequest {
    pub(super) stream: ClientStream,
    /// Bytes that came behind the request.
    pub(super) received: Bytes,
    pub(super) upgrade: Upgrade,
    /// The address of the client: behind a proxy, the address that the proxy names.
    pub(super) client: SocketAddr,
}

/// The request that ends the HTTP connection: an upgrade with the address of the client, or why it is refused.
type Asked = Result<(Upgrade, SocketAddr), Refusal>;

/// The state of an HTTP connection.
struct Exchange<'a> {
    standing: &'a mut Standing,
    answers: usize,
    asked: Option<Asked>,
}

/// Answers requests until one is an upgrade. Returns `None` if the client closes before that. The connection may send no request
/// for `idle_timeout`.
pub(super) async fn read_request(
    stream: ClientStream,
    http: &Http,
    idle_timeout: Duration,
    accepted: Accepted,
    standing: &mut Standing,
) -> Result<Option<UpgradeRequest>, Refusal> {
    let exchange = Mutex::new(Exchange { standing, answers: 0, asked: None });
    let service = service_fn(|request: Request<Incoming>| {
        let page = http.answer(&request, accepted, &mut lock(&exchange));
        Box::pin(async move {
            match page {
                Some(page) => Ok::<Page, Infallible>(page),
                // hyper must not respond, because the connection is about to be taken from it.
                None => pending().await,
            }
        })
    });
    let mut connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(idle_timeout)
        .max_buf_size(MAX_HTTP_BUFFER)
        .serve_connection(TokioIo::new(stream), service);
    let served = poll_fn(|cx| {
        let done = Pin::new(&mut connection).poll_without_shutdown(cx);
        let asked = lock(&exchange).asked.take();
        match (asked, done) {
            (Some(asked), _) => Poll::Ready(asked.map(Some)),
            (None, Poll::Ready(Ok(()))) => Poll::Ready(Ok(None)),
            (None, Poll::Ready(Err(error))) if error.is_timeout() => Poll::Ready(Err(Refusal::HttpTimeout)),
            (None, Poll::Ready(Err(error))) => Poll::Ready(Err(Refusal::Http(error))),
            (None, Poll::Pending) => Poll::Pending,
        }
    });
    let served = timeout(MAX_HTTP_LIFE, served).await.map_err(|_: Elapsed| Refusal::HttpTimeout)?;
    let asked = served?;
    let parts = connection.into_parts();
    let mut stream = parts.io.into_inner();
    let Some((upgrade, client)) = asked else {
        // The close_notify tells the client that the page is complete.
        let _ = timeout(LINGER, stream.shutdown()).await;
        return if lock(&exchange).answers < MAX_ANSWERS { Ok(None) } else { Err(Refusal::HttpRequests) };
    };
    Ok(Some(UpgradeRequest { stream, received: parts.read_buf, upgrade, client }))
}

impl Http {
    /// Returns the answer to a request, or else puts into `exchange` what it asks for.
    fn answer<B>(
        &self,
        request: &Request<B>,
        accepted: Accepted,
        exchange: &mut Exchange<'_>,
    ) -> Option<Page> {
        let Accepted { address, kind, .. } = accepted;
        let client = match kind {
            ListenerKind::Plain => self.proxies.client(address, request.headers()),
            ListenerKind::Tls | ListenerKind::Redirect => address,
        };
        if kind == ListenerKind::Plain
            && let Err(exceeded) = exchange.standing.charge_to(named(client, accepted))
        {
            exchange.asked = Some(Err(Refusal::Exceeded(exceeded)));
            return None;
        }
        let routed = match kind {
            ListenerKind::Redirect => Routed::Page(self.site.redirect(request)),
            ListenerKind::Tls | ListenerKind::Plain => self.site.route(request),
        };
        match routed {
            Routed::Page(mut page) => {
                exchange.answers += 1;
                if exchange.answers >= MAX_ANSWERS {
                    page.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
                }
                Some(page)
            }
            Routed::Derp(upgrade) => {
                exchange.asked = Some(Ok((upgrade, client)));
                None
            }
        }
    }
}

/// The origin of a request for `client`: if a proxy of HTTP has not named another, that of the connection.
fn named(client: SocketAddr, accepted: Accepted) -> Origin {
    if client.ip() == accepted.address.ip() { accepted.origin } else { Origin::Client(Host::of(client.ip())) }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tokio::io::AsyncReadExt;
    use tokio::net::{TcpListener, TcpStream};
    use tokio::time::{Instant, sleep};
    use towpath_relay_proto::account::connections::ConnectionBounds;
    use towpath_relay_proto::account::places::PlaceBounds;

    use super::*;
    use crate::config::{BootstrapDns, Home};
    use crate::control::accounts::Accounts;
    use crate::control::refusal::RefusalReason;

    /// A client asks again before it is idle for too long. The clock of tokio goes on when nothing else can.
    #[tokio::test(start_paused = true)]
    async fn a_busy_connection_is_closed_after_five_minutes() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let mut client = TcpStream::connect(address).await.expect("a connection");
        let (socket, peer) = listener.accept().await.expect("a connection");
        let bootstrap = Arc::new(Bootstrap::new(BootstrapDns::default()));
        let http = Http {
            site: Site::new("relay.example.com", 443, Home::Page, bootstrap),
            proxies: Proxies::default(),
        };
        let idle_timeout = Duration::from_secs(60);
        let accounts = Accounts::new(
            PlaceBounds { all: 1, per_host: 1 },
            ConnectionBounds { all: 1, per_host: 1, per_key: 8 },
        );
        let origin = Origin::Client(Host::of(peer.ip()));
        let (mut standing, _displaced) = accounts.open(1, origin).expect("a place is free");
        let accepted = Accepted { id: 1, address: peer, kind: ListenerKind::Tls, origin };
        let begun = Instant::now();
        let asking = async {
            let mut answers = 0;
            loop {
                client.write_all(b"GET /derp/probe HTTP/1.1\r\nHost: x\r\n\r\n").await.expect("it is read");
                if !client.read(&mut [0; 4096]).await.is_ok_and(|read| read > 0) {
                    return answers;
                }
                answers += 1;
                sleep(Duration::from_secs(45)).await;
            }
        };
        let serving = async {
            let ended =
                read_request(ClientStream::Plain(socket), &http, idle_timeout, accepted, &mut standing).await;
            (ended.err().map(|refusal| refusal.reason()), begun.elapsed())
        };
        let (answers, ended) = tokio::join!(asking, serving);
        assert_eq!(ended, (Some(RefusalReason::HttpTimeout), MAX_HTTP_LIFE));
        assert_eq!(answers, 7, "at 0, 45, …, 270 s");
    }
}
