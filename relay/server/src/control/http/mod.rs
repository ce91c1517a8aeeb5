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
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::AsyncWriteExt;
use tokio::time::error::Elapsed;
use tokio::time::timeout;
use towpath_wire::sync::lock;

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
/// Most bytes of a request's head, and of the bytes behind it before it is answered. hyper's own bound is 400 KiB,
/// which every connection that has not logged in could make the relay hold. Requests of clients have less than 500
/// bytes.
const MAX_HTTP_BUFFER: usize = 16 * 1024;

/// The settings and pages of the stage.
#[derive(Debug)]
pub(crate) struct Http {
    pub(crate) site: Site,
    pub(crate) proxies: Proxies,
    /// How long a connection may send no request.
    pub(crate) idle_timeout: Duration,
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

/// Answers requests until one is an upgrade. Returns `None` if the client closes before that.
pub(super) async fn read_request(
    stream: ClientStream,
    http: &Http,
    accepted: Accepted,
) -> Result<Option<UpgradeRequest>, Refusal> {
    let slot = Mutex::new(None);
    let service = service_fn(|request: Request<Incoming>| {
        let routed = http.route(&request, accepted);
        let slot = &slot;
        Box::pin(async move {
            match routed {
                Err(page) => Ok::<Page, Infallible>(*page),
                Ok(asked) => {
                    *lock(slot) = Some(asked);
                    // hyper must not respond, because the connection is about to be taken from it.
                    pending().await
                }
            }
        })
    });
    let mut connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(http.idle_timeout)
        .max_buf_size(MAX_HTTP_BUFFER)
        .serve_connection(TokioIo::new(stream), service);
    let served = poll_fn(|cx| {
        let done = Pin::new(&mut connection).poll_without_shutdown(cx);
        let asked = lock(&slot).take();
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
    let Some((upgrade, client)) = asked else {
        // The close_notify tells the client that the page is complete.
        let _ = timeout(LINGER, stream.shutdown()).await;
        return Ok(None);
    };
    Ok(Some(UpgradeRequest { stream, received: parts.read_buf, upgrade, client }))
}

impl Http {
    /// Returns the upgrade that a request asks for with the address of the client, or the answer to any other request.
    fn route<B>(
        &self,
        request: &Request<B>,
        Accepted { address, kind, .. }: Accepted,
    ) -> Result<(Upgrade, SocketAddr), Box<Page>> {
        let routed = match kind {
            ListenerKind::Redirect => Routed::Page(self.site.redirect(request)),
            ListenerKind::Tls | ListenerKind::Plain => self.site.route(request),
        };
        let upgrade = match routed {
            Routed::Page(page) => return Err(Box::new(page)),
            Routed::Derp(upgrade) => upgrade,
        };
        let client = match kind {
            ListenerKind::Plain => self.proxies.client(address, request.headers()),
            ListenerKind::Tls | ListenerKind::Redirect => address,
        };
        Ok((upgrade, client))
    }
}
