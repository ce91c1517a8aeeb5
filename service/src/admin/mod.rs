//! Administration: metrics and health over plain HTTP for the operator's own network, and a socket for what changes the
//! service or shows its clients.
//!
//! | path | answer |
//! |---|---|
//! | `/metrics` | the registry in Prometheus' text format |
//! | `/healthz` | 200 `ok` while the process lives |
//! | `/readyz` | 200 `ready`, or 503 with the reason: `starting`, `draining` |
//! | any, by OPTIONS | 204 and the methods, which is HAProxy's health check unless told otherwise; but 503 as above |
//! | the others, on the socket | [`Operations`] of the service |
//!
//! A page of the web that a browser on the same network shows cannot read any of it, even if its name is made to resolve to
//! this listener (DNS rebinding). A request names an IP address, `localhost` or a name of the settings in `Host`, or it is
//! answered with 421: for any other name, the browser would take the answer for the page's own. An address cannot be rebound, so
//! each is allowed, and probes and scrapers that use one need no setting. A cross-origin request (`Origin`) is answered with 403.
//! No page reaches a Unix socket, so nothing of that concerns it; the mode of its file says which users may connect.
//!
//! It runs on a thread of its own with a runtime of its own: it must answer precisely when everything else is too busy
//! to. Connections are few, short (one request each) and bounded in time. The listener and the socket have bounds of their own,
//! so that probes and operators do not take each other's places.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::thread::{self, JoinHandle};

use hyper::StatusCode;
use ipnet::IpNet;
use prometheus::{IntCounter, Registry};
use tokio::select;
use tokio::sync::oneshot;
use tracing::warn;

pub mod ask;
mod door;
mod operations;
mod pages;
mod serve;
mod socket;

pub use operations::{Call, OperationAnswer, Operations, Parts};
pub use socket::{AdminSocket, SocketError};

use door::Door;
use pages::Pages;
use serve::accept;

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

/// The ways in, and which clients may use them.
#[derive(Debug, Default)]
pub struct AdminListeners {
    /// The listener for metrics and health; `None` for none.
    pub tcp: Option<TcpListener>,
    /// The addresses from which `tcp` may be asked besides this machine's own.
    pub clients: Vec<IpNet>,
    /// The names in `Host` by which `tcp` may be asked besides IP addresses and `localhost`.
    pub hosts: Vec<String>,
    /// The socket for administration; `None` for none.
    pub socket: Option<AdminSocket>,
}

/// The running administration. Stops when dropped.
#[derive(Debug)]
pub struct Admin {
    local_addr: Option<SocketAddr>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
    socket: Option<socket::SocketFile>,
}

impl Admin {
    /// Serves on `listeners`, on a new thread. `operations` are answered on the socket only.
    ///
    /// # Errors
    ///
    /// If the thread or its runtime cannot be set up, or the registry has a metric of this module's name.
    pub fn start(
        listeners: AdminListeners,
        registry: Registry,
        readiness: Readiness,
        operations: Option<Arc<dyn Operations>>,
    ) -> io::Result<Self> {
        let AdminListeners { tcp, clients, hosts, socket } = listeners;
        let turned_away = turned_away(&registry).map_err(io::Error::other)?;
        let local_addr = tcp.as_ref().map(TcpListener::local_addr).transpose()?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_io().enable_time().build()?;
        let (socket, file) = socket.map(AdminSocket::into_parts).unzip();
        let (network, socket) = {
            let _inside = runtime.enter();
            let network = tcp.map(|listener| Door::network(listener, clients, turned_away)).transpose()?;
            (network, socket.map(Door::socket).transpose()?)
        };
        let (stop, stopped) = oneshot::channel();
        let pages = Arc::new(Pages::new(registry, readiness, hosts, operations));
        let thread = thread::Builder::new().name("admin".into()).spawn(move || {
            runtime.block_on(async {
                select! {
                    () = accept(network, &pages) => {}
                    () = accept(socket, &pages) => {}
                    _ = stopped => {}
                }
            });
        })?;
        Ok(Self { local_addr, stop: Some(stop), thread: Some(thread), socket: file })
    }

    /// Returns the address of the TCP listener; `None` if there is none.
    pub const fn local_addr(&self) -> Option<SocketAddr> {
        self.local_addr
    }
}

/// Registers the counter of connections that are closed unread.
fn turned_away(registry: &Registry) -> prometheus::Result<IntCounter> {
    let counter = IntCounter::new(
        "towpath_admin_turned_away_total",
        "Connections to `admin.listen` from addresses that are neither this machine's nor in `admin.clients`",
    )?;
    registry.register(Box::new(counter.clone()))?;
    Ok(counter)
}

impl Drop for Admin {
    fn drop(&mut self) {
        // While the thread listens, no successor has put a file of its own in the place of this one.
        drop(self.socket.take());
        drop(self.stop.take());
        if let Some(Err(_)) = self.thread.take().map(JoinHandle::join) {
            warn!("the admin thread panicked: metrics and health were not served");
        }
    }
}
