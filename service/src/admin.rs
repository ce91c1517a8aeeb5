//! The admin listener: metrics and health over plain HTTP, for the operator's own network only.
//!
//! | path | answer |
//! |---|---|
//! | `/metrics` | the registry in Prometheus' text format |
//! | `/healthz` | 200 `ok` while the process lives |
//! | `/readyz` | 200 `ready`, or 503 with the reason: `starting`, `draining` |
//!
//! It runs on a thread of its own with a runtime of its own: it must answer precisely when everything else is too busy
//! to. Connections are few, short (one request each) and bounded in time.

use std::convert::Infallible;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use prometheus::{Encoder, Registry, TextEncoder};
use tokio::net::TcpStream;
use tokio::sync::{Semaphore, oneshot};
use tokio::{select, time};
use tracing::{debug, warn};

use crate::ErrorChain;

/// Connections served at a time; more wait in the listener's backlog. A scraper, two probes and a person need four.
const MAX_CONNECTIONS: usize = 16;

/// How long a connection may take from being accepted to the last byte of the answer. Prometheus gives up after 10 s by
/// default.
const CONNECTION_DEADLINE: Duration = Duration::from_secs(5);

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
    /// Serves on `listener`, on a new thread.
    ///
    /// # Errors
    ///
    /// If the thread or its runtime cannot be set up.
    pub fn start(listener: TcpListener, registry: Registry, readiness: Readiness) -> io::Result<Self> {
        listener.set_nonblocking(true)?;
        let local_addr = listener.local_addr()?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_io().enable_time().build()?;
        let listener = {
            let _inside = runtime.enter();
            tokio::net::TcpListener::from_std(listener)?
        };
        let (stop, stopped) = oneshot::channel();
        let pages = Arc::new(Pages { registry, readiness });
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
    let slots = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    loop {
        let slot = slots.clone().acquire_owned().await.expect("the semaphore is never closed");
        match listener.accept().await {
            Ok((stream, peer)) => {
                let pages = pages.clone();
                tokio::spawn(async move {
                    if time::timeout(CONNECTION_DEADLINE, serve(stream, &pages)).await.is_err() {
                        debug!(%peer, "closed an admin connection that took too long");
                    }
                    drop(slot);
                });
            }
            Err(error) => {
                warn!(%error, "cannot accept an admin connection; retrying");
                time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// Serves one request. A connection that fails is logged at `debug` only.
async fn serve(stream: TcpStream, pages: &Pages) {
    let service = service_fn(async |request: Request<Incoming>| Ok::<_, Infallible>(pages.answer(&request)));
    let connection = http1::Builder::new().keep_alive(false).serve_connection(TokioIo::new(stream), service);
    if let Err(error) = connection.await {
        debug!(error = %ErrorChain(&error), "admin connection failed");
    }
}

#[derive(Debug)]
struct Pages {
    registry: Registry,
    readiness: Readiness,
}

impl Pages {
    fn answer(&self, request: &Request<Incoming>) -> Response<Full<Bytes>> {
        if !matches!(*request.method(), Method::GET | Method::HEAD) {
            let mut refusal = page(StatusCode::METHOD_NOT_ALLOWED, TEXT, "only GET and HEAD\n");
            refusal.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
            return refusal;
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

    fn metrics(&self) -> Response<Full<Bytes>> {
        let encoder = TextEncoder::new();
        let mut text = Vec::new();
        match encoder.encode(&self.registry.gather(), &mut text) {
            Ok(()) => {
                let format = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
                page(StatusCode::OK, format, text)
            }
            Err(error) => {
                warn!(%error, "metrics cannot be encoded");
                page(StatusCode::INTERNAL_SERVER_ERROR, TEXT, "metrics cannot be encoded\n")
            }
        }
    }
}

fn page(status: StatusCode, content_type: HeaderValue, body: impl Into<Bytes>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, content_type);
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}
