//! The admin listener: metrics and health over plain HTTP, for the operator's own network only.
//!
//! | path | answer |
//! |---|---|
//! | `/metrics` | the registry in Prometheus' text format |
//! | `/healthz` | 200 `ok` while the process lives |
//! | `/readyz` | 200 `ready`, or 503 with the reason: `starting`, `draining` |
//! | any, by OPTIONS | 204 and the methods, which is HAProxy's health check unless told otherwise; but 503 as above |
//!
//! A page of the web that a browser on the same network shows cannot read any of it, even if its name is made to resolve to
//! this listener (DNS rebinding). A request names an IP address, `localhost` or a name of the settings in `Host`, or it is
//! answered with 421: for any other name, the browser would take the answer for the page's own. An address cannot be rebound, so
//! each is allowed, and probes and scrapers that use one need no setting. A cross-origin request (`Origin`) is answered with 403.
//!
//! It runs on a thread of its own with a runtime of its own: it must answer precisely when everything else is too busy
//! to. Connections are few, short (one request each) and bounded in time.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener};
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, HOST, HeaderValue, ORIGIN};
use hyper::http::uri::Authority;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode, Version};
use hyper_util::rt::{TokioIo, TokioTimer};
use prometheus::{Encoder, Registry, TextEncoder};
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio::task::AbortHandle;
use tokio::{select, time};
use tracing::{debug, info, warn};

use crate::ErrorChain;
use crate::limits::SpareFile;
use crate::repeated::Repeated;

/// Connections served at a time; more take the places of older ones. A scraper, two probes and a person need four.
const MAX_CONNECTIONS: usize = 16;

/// How long a connection may take from being accepted to the last byte of the answer. Prometheus gives up after 10 s by
/// default.
const CONNECTION_DEADLINE: Duration = Duration::from_secs(5);

/// How long a connection may take from being accepted to the end of its request's head. Clients are near.
const HEAD_DEADLINE: Duration = Duration::from_secs(1);

/// The pause after a failed accept. Usually file descriptors have run out, and another accept would fail at once.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

const TEXT: HeaderValue = HeaderValue::from_static("text/plain; charset=utf-8");

/// The readiness of the service for traffic. Clones share the state.
#[derive(Clone, Debug)]
pub struct Readiness(Arc<AtomicU8>);

impl Readiness {
    const STARTING: u8 = 0;
    const READY: u8 = 1;
    const DRAINING: u8 = 2;

    /// Creates the state of a service that is starting.
    pub fn new() -> Self {
        Self(Arc::new(AtomicU8::new(Self::STARTING)))
    }

    /// Declares the service ready for traffic.
    pub fn ready(&self) {
        self.0.store(Self::READY, Ordering::Release);
    }

    /// Declares that the service finishes its work and wants no more traffic.
    pub fn draining(&self) {
        self.0.store(Self::DRAINING, Ordering::Release);
    }

    fn answer(&self) -> (StatusCode, &'static str) {
        match self.0.load(Ordering::Acquire) {
            Self::READY => (StatusCode::OK, "ready\n"),
            Self::DRAINING => (StatusCode::SERVICE_UNAVAILABLE, "draining\n"),
            _ => (StatusCode::SERVICE_UNAVAILABLE, "starting\n"),
        }
    }
}

impl Default for Readiness {
    fn default() -> Self {
        Self::new()
    }
}

/// A running admin listener. Stops when dropped.
#[derive(Debug)]
pub struct Admin {
    local_addr: SocketAddr,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Admin {
    /// Serves on `listener`, on a new thread. Requests may name it in `Host` by an IP address, as `localhost` or as one of
    /// `hosts`.
    ///
    /// # Errors
    ///
    /// If the thread or its runtime cannot be set up.
    pub fn start(
        listener: TcpListener,
        registry: Registry,
        readiness: Readiness,
        hosts: Vec<String>,
    ) -> io::Result<Self> {
        listener.set_nonblocking(true)?;
        let local_addr = listener.local_addr()?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_io().enable_time().build()?;
        let listener = {
            let _inside = runtime.enter();
            tokio::net::TcpListener::from_std(listener)?
        };
        let (stop, stopped) = oneshot::channel();
        let pages = Arc::new(Pages { registry, readiness, hosts, encode_failures: Mutex::default() });
        let thread = thread::Builder::new().name("admin".into()).spawn(move || {
            runtime.block_on(async {
                select! {
                    () = accept(&listener, &pages) => {}
                    _ = stopped => {}
                }
            });
        })?;
        Ok(Self { local_addr, stop: Some(stop), thread: Some(thread) })
    }

    /// Returns the address of the listener.
    pub fn local_addr(&self) -> SocketAddr {
        self.local_addr
    }
}

impl Drop for Admin {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(Err(_)) = self.thread.take().map(JoinHandle::join) {
            warn!("the admin thread panicked: metrics and health were not served");
        }
    }
}

async fn accept(listener: &tokio::net::TcpListener, pages: &Arc<Pages>) {
    let mut connections = Connections::default();
    let (mut spare, mut failures) = (SpareFile::open(), Repeated::default());
    loop {
        let accepted = select! {
            times = failures.over() => {
                info!(times, "admin connections are accepted again");
                continue;
            }
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, peer)) => connections.start(stream, peer, pages),
            Err(error) => {
                if let Some(times) = failures.note() {
                    warn!(times, %error, "cannot accept admin connections; raise the limit on open files if they have run out");
                }
                // The spare file makes room for one connection at a time.
                let served = spare.lend(async {
                    if let Ok(Ok((stream, peer))) = time::timeout(ACCEPT_PAUSE, listener.accept()).await {
                        serve(stream, peer, pages, &AtomicBool::default()).await;
                    } else {
                        time::sleep(ACCEPT_PAUSE).await;
                    }
                });
                served.await;
            }
        }
    }
}

/// The connections that are served, the oldest first.
#[derive(Default)]
struct Connections(VecDeque<Connection>);

struct Connection {
    /// Its request has come.
    has_asked: Arc<AtomicBool>,
    task: AbortHandle,
}

impl Connections {
    /// Serves a connection. If as many are served as may be, the oldest whose request has not come is closed, or else the
    /// oldest: a client that sends nothing must not make a probe wait.
    fn start(&mut self, stream: TcpStream, peer: SocketAddr, pages: &Arc<Pages>) {
        self.0.retain(|connection| !connection.task.is_finished());
        if self.0.len() >= MAX_CONNECTIONS {
            let silent = self.0.iter().position(|connection| !connection.has_asked.load(Ordering::Relaxed));
            if let Some(oldest) = self.0.remove(silent.unwrap_or(0)) {
                oldest.task.abort();
            }
        }
        let (pages, has_asked) = (pages.clone(), Arc::new(AtomicBool::default()));
        let asked = has_asked.clone();
        let task = tokio::spawn(async move { serve(stream, peer, &pages, &asked).await }).abort_handle();
        self.0.push_back(Connection { has_asked, task });
    }
}

/// Serves one request, which it notes in `has_asked`. A connection that fails is logged at `debug` only.
async fn serve(stream: TcpStream, peer: SocketAddr, pages: &Pages, has_asked: &AtomicBool) {
    let service = service_fn(async |request: Request<Incoming>| {
        has_asked.store(true, Ordering::Relaxed);
        Ok::<_, Infallible>(pages.answer(&request))
    });
    let connection = http1::Builder::new()
        .keep_alive(false)
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_DEADLINE)
        .serve_connection(TokioIo::new(stream), service);
    match time::timeout(CONNECTION_DEADLINE, connection).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => debug!(%peer, error = %ErrorChain(&error), "admin connection failed"),
        Err(_) => debug!(%peer, "closed an admin connection that took too long"),
    }
}

#[derive(Debug)]
struct Pages {
    registry: Registry,
    readiness: Readiness,
    hosts: Vec<String>,
    encode_failures: Mutex<Repeated>,
}

impl Pages {
    fn answer(&self, request: &Request<Incoming>) -> Response<Full<Bytes>> {
        if !self.is_named(request) {
            const WHY: &str =
                "Host is neither an IP address nor localhost nor one of the names in admin.hosts\n";
            return page(StatusCode::MISDIRECTED_REQUEST, TEXT, WHY);
        }
        if is_cross_origin(request) {
            return page(StatusCode::FORBIDDEN, TEXT, "not for pages of other sites\n");
        }
        match *request.method() {
            Method::GET | Method::HEAD => {}
            Method::OPTIONS => return self.options(request.uri().path()),
            _ => return with_methods(page(StatusCode::METHOD_NOT_ALLOWED, TEXT, "only GET and HEAD\n")),
        }
        match request.uri().path() {
            "/healthz" => page(StatusCode::OK, TEXT, "ok\n"),
            "/readyz" => {
                let (status, reason) = self.readiness.answer();
                page(status, TEXT, reason)
            }
            "/metrics" => self.metrics(),
            _ => page(StatusCode::NOT_FOUND, TEXT, "not found; there are /metrics, /healthz and /readyz\n"),
        }
    }

    /// Returns the answer to OPTIONS. It must not make a relay that is not ready look healthy.
    fn options(&self, path: &str) -> Response<Full<Bytes>> {
        with_methods(match self.readiness.answer() {
            (status, reason) if path == "/readyz" && !status.is_success() => page(status, TEXT, reason),
            _ => {
                let mut page = Response::new(Full::default());
                *page.status_mut() = StatusCode::NO_CONTENT;
                page
            }
        })
    }

    /// Whether `request` names this listener in a way that no page of another site can.
    fn is_named<B>(&self, request: &Request<B>) -> bool {
        let mut hosts = request.headers().get_all(HOST).iter();
        let authority = match (request.uri().authority(), hosts.next(), hosts.next()) {
            (_, _, Some(_)) => return false,
            (Some(authority), ..) => authority.clone(),
            (None, Some(host), None) => {
                let Ok(authority) = Authority::try_from(host.as_bytes()) else { return false };
                authority
            }
            // Browsers speak no version without `Host`.
            (None, None, None) => return request.version() < Version::HTTP_11,
        };
        let name = authority.host();
        let address = name.strip_prefix('[').and_then(|name| name.strip_suffix(']')).unwrap_or(name);
        let is = |host: &str| name.trim_end_matches('.').eq_ignore_ascii_case(host);
        address.parse::<IpAddr>().is_ok() || is("localhost") || self.hosts.iter().any(|host| is(host))
    }

    fn metrics(&self) -> Response<Full<Bytes>> {
        let encoder = TextEncoder::new();
        let mut text = Vec::new();
        match encoder.encode(&self.registry.gather(), &mut text) {
            Ok(()) => {
                let format = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
                page(StatusCode::OK, format, text)
            }
            Err(error) => {
                if let Some(times) =
                    self.encode_failures.lock().unwrap_or_else(PoisonError::into_inner).note()
                {
                    warn!(times, %error, "metrics cannot be encoded");
                }
                page(StatusCode::INTERNAL_SERVER_ERROR, TEXT, "metrics cannot be encoded\n")
            }
        }
    }
}

/// Whether a browser says that a page of another site has made the request.
fn is_cross_origin<B>(request: &Request<B>) -> bool {
    let Some(origin) = request.headers().get(ORIGIN) else { return false };
    let own = request.headers().get(HOST).map(HeaderValue::as_bytes).unwrap_or_default();
    let of_scheme = |scheme: &[u8]| origin.as_bytes().strip_prefix(scheme);
    of_scheme(b"http://")
        .or_else(|| of_scheme(b"https://"))
        .is_none_or(|origin| !origin.eq_ignore_ascii_case(own))
}

fn with_methods(mut page: Response<Full<Bytes>>) -> Response<Full<Bytes>> {
    page.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD, OPTIONS"));
    page
}

fn page(status: StatusCode, content_type: HeaderValue, body: impl Into<Bytes>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, content_type);
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt;

    use super::*;

    /// The clock of tokio goes on when nothing else can.
    #[tokio::test(start_paused = true)]
    async fn a_connection_without_a_whole_head_is_closed_after_a_second() {
        let pages = Pages {
            registry: Registry::new(),
            readiness: Readiness::new(),
            hosts: Vec::new(),
            encode_failures: Mutex::default(),
        };
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        for head in [&b""[..], b"GET /healthz HTTP/1.1\r\n"] {
            let address = listener.local_addr().expect("an address");
            let mut client = TcpStream::connect(address).await.expect("a connection");
            client.write_all(head).await.expect("the kernel takes the bytes");
            let (stream, peer) = listener.accept().await.expect("a connection");
            let (begun, has_asked) = (time::Instant::now(), AtomicBool::default());
            serve(stream, peer, &pages, &has_asked).await;
            assert_eq!(begun.elapsed(), HEAD_DEADLINE);
            assert!(!has_asked.into_inner());
        }
    }
}
