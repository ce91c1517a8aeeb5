//! The relay as a whole: binds everything, then runs until it is told to stop.

use std::future::Future;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use prometheus::Registry;
use rustix::process::setpriority_process;
use socket2::{Domain, Protocol, SockRef, Socket, TcpKeepalive, Type};
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;
use towpath_relay_proto::outbox::{Limits, UPSTREAM_PACKETS};
use towpath_service::admin::{Admin, Readiness};
use tracing::{info, warn};

use crate::bootstrap::Bootstrap;
use crate::config::Config;
use crate::control::{Door, Entrance, Refusal};
use crate::forward::{DataPlane, Rules};
use crate::hosts::Hosts;
use crate::identity::{Identity, IdentityError};
use crate::mesh::{MeshError, Setup};
use crate::metrics::{ControlMetrics, MeshMetrics, Scrape, StunScrape};
use crate::pages::Site;
use crate::proxies::Proxies;
use crate::stun_only;

/// Threads of the control plane. More would let a storm of logins compete with the data plane on small machines.
const CONTROL_THREADS: usize = 2;
/// How much the control plane's threads give way to the data plane's.
const CONTROL_NICENESS: i32 = 10;
/// Connections that wait to be accepted; the kernel has a limit of its own (`net.core.somaxconn`).
const BACKLOG: i32 = 4096;
/// Pause after a failed accept, which is usually for want of file descriptors and would fail again at once.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What derper sets: dead peers are found in 15 s where something is sent, in minutes where nothing is.
pub(crate) const TCP_USER_TIMEOUT: Duration = Duration::from_secs(15);
const TCP_KEEPALIVE: Duration = Duration::from_secs(600);
/// Unsent bytes that the kernel takes for a connection. Without a bound it takes megabytes, and what waits there can
/// neither be dropped nor overtaken.
const UNSENT_IN_KERNEL: u32 = 128 * 1024;

/// A listener that cannot be bound.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// A listener for TLS or HTTP.
    #[error("cannot bind {what} on {address}/tcp: {reason}")]
    Tcp {
        /// The listener's purpose.
        what: &'static str,
        /// Its address.
        address: SocketAddr,
        /// What the system says.
        reason: io::Error,
    },
    /// STUN.
    #[error(transparent)]
    Stun(#[from] towpath_stun::BindError),
    /// The mesh cannot be set up.
    #[error(transparent)]
    Mesh(#[from] MeshError),
    /// Certificates or keys cannot be used.
    #[error(transparent)]
    Identity(#[from] IdentityError),
}

/// Why a relay that ran does not run any more.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// Threads or their resources cannot be had.
    #[error("cannot start")]
    Start(#[from] io::Error),
    /// Two metrics have one name.
    #[error("cannot set up metrics")]
    Metrics(#[from] prometheus::Error),
    /// A thread that moves packets has panicked; the process must not go on without it.
    #[error("a worker of the data plane has failed")]
    Worker,
    /// The thread of the STUN server has ended.
    #[error("STUN has failed")]
    Stun(#[source] io::Error),
}

/// A relay with its sockets bound and nothing running.
#[derive(Debug)]
pub struct Server {
    config: Config,
    identity: Identity,
    tls: rustls::ServerConfig,
    mesh: Setup,
    listener: TcpListener,
    http: Option<TcpListener>,
    redirect: Option<TcpListener>,
    stun: Option<towpath_stun::BoundServer>,
    admin: Option<TcpListener>,
    worker_hook: fn(),
}

/// Where a relay listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Addresses {
    /// DERP and HTTP over TLS.
    pub tls: SocketAddr,
    /// DERP and HTTP without TLS; `None` when it is off.
    pub http: Option<SocketAddr>,
    /// What leads to HTTPS; `None` when it is off.
    pub redirect: Option<SocketAddr>,
    /// STUN; empty when it is off.
    pub stun: Vec<SocketAddr>,
    /// Metrics and health; `None` when they are off.
    pub admin: Option<SocketAddr>,
}

impl Server {
    /// Binds every socket that the configuration names, and reads the keys of the mesh.
    ///
    /// # Errors
    ///
    /// See [`BindError`]: each says which address of which listener is at fault.
    pub fn bind(config: &Config, identity: Identity) -> Result<Self, BindError> {
        let tls = identity.server_config(config.records)?;
        let mesh = Setup::load(&config.mesh, identity.node_public())?;
        let tcp = |what, address| listen(address).map_err(|reason| BindError::Tcp { what, address, reason });
        let listener = tcp("TLS", config.listen)?;
        let http = config.http.listen.map(|address| tcp("plain HTTP", address)).transpose()?;
        let redirect = config.http.redirect_listen.map(|address| tcp("HTTP", address)).transpose()?;
        let stun = if config.stun.listen.is_empty() {
            None
        } else {
            Some(towpath_stun::BoundServer::bind(&config.stun)?)
        };
        let admin = config.admin.map(|address| tcp("admin", address)).transpose()?;
        let config = config.clone();
        Ok(Self { config, identity, tls, mesh, listener, http, redirect, stun, admin, worker_hook: || {} })
    }

    /// Has each thread of the data plane call `hook` when it starts, for tests that watch what such a thread does.
    #[must_use]
    pub fn with_worker_hook(mut self, hook: fn()) -> Self {
        self.worker_hook = hook;
        self
    }

    /// Where it listens.
    ///
    /// # Panics
    ///
    /// Never for a socket that is bound.
    #[must_use]
    pub fn addresses(&self) -> Addresses {
        let bound = |listener: &TcpListener| listener.local_addr().expect("a bound socket has an address");
        Addresses {
            tls: bound(&self.listener),
            http: self.http.as_ref().map(bound),
            redirect: self.redirect.as_ref().map(bound),
            stun: self.stun.as_ref().map(towpath_stun::BoundServer::local_addrs).unwrap_or_default(),
            admin: self.admin.as_ref().map(bound),
        }
    }

    /// Runs until `shutdown` completes: then it accepts no more, closes its clients and returns.
    ///
    /// # Errors
    ///
    /// See [`RunError`].
    pub fn run(self, shutdown: impl Future<Output = ()>) -> Result<(), RunError> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(CONTROL_THREADS)
            .thread_name("control")
            .enable_all()
            .on_thread_start(|| {
                // Where it is refused the relay is only less fair to itself.
                let _ = setpriority_process(None, CONTROL_NICENESS);
            })
            .build()?;
        let ended = runtime.block_on(self.run_inside(shutdown));
        // What is left are logins that nobody waits for.
        runtime.shutdown_background();
        ended
    }

    async fn run_inside(self, shutdown: impl Future<Output = ()>) -> Result<(), RunError> {
        let Self { config, identity, tls, mesh, listener, http, redirect, stun, admin, worker_hook } = self;
        let (failed, mut failures) = mpsc::unbounded_channel();
        let rules = Rules {
            limits: Limits {
                bytes: config.outbox.bytes,
                packets: UPSTREAM_PACKETS,
                disco_bytes: config.outbox.disco_bytes,
                age: config.outbox.age,
            },
            write_timeout: config.outbox.write_timeout,
            keepalive: config.keepalive,
            waiting: config.waiting,
            own_key: identity.node_public(),
            watchable: mesh.gate.can_open(),
        };
        let on_failure = move || {
            // Nobody listens any more only when the process is about to end.
            let _ = failed.send(());
        };
        let (plane, workers) = DataPlane::start(config.workers.get(), rules, worker_hook, on_failure)?;
        let plane = Arc::new(plane);
        let stun = stun.map(towpath_stun::BoundServer::spawn).transpose()?;

        let registry = Registry::new();
        let metrics = ControlMetrics::register(&registry)?;
        let mesh_metrics = MeshMetrics::register(&registry)?;
        registry.register(Box::new(Scrape { workers: plane.counters(), peers: plane.registry().clone() }))?;
        if let Some(stun) = &stun {
            registry.register(Box::new(StunScrape::new(stun.counters())?))?;
        }
        towpath_service::metrics::register_process(&registry, "towpath-relay", env!("CARGO_PKG_VERSION"))?;
        let readiness = Readiness::new();
        let admin = admin.map(|listener| Admin::start(listener, registry, readiness.clone())).transpose()?;

        let mesh = mesh.run(&plane, identity.node_key(), &mesh_metrics);
        let bootstrap = Arc::new(Bootstrap::new(config.bootstrap_dns.clone()));
        let port = listener.local_addr()?.port();
        let door = Arc::new(Door {
            tls: Arc::new(tls),
            records: config.records.into(),
            node_public: identity.node_public(),
            node_key: identity.node_key().clone(),
            limits: config.login.clone(),
            keepalive: config.keepalive,
            site: Site::new(&config.hostname, port, config.http.home.clone(), bootstrap.clone()),
            proxies: Proxies::new(config.http.proxies.clone()),
            metrics,
            mesh,
            mesh_metrics,
            plane: plane.clone(),
        });
        let mut tasks = JoinSet::new();
        let listeners =
            [(Some(listener), Entrance::Tls), (http, Entrance::Plain), (redirect, Entrance::Redirect)];
        for (listener, entrance) in listeners {
            let Some(listener) = listener else { continue };
            listener.set_nonblocking(true)?;
            let listener = tokio::net::TcpListener::from_std(listener)?;
            tasks.spawn(accept(listener, door.clone(), entrance));
        }
        if !config.bootstrap_dns.is_empty() {
            tasks.spawn(async move { bootstrap.keep_fresh().await });
        }
        readiness.ready();
        let ended = tokio::select! {
            () = shutdown => Ok(()),
            _ = failures.recv() => Err(RunError::Worker),
            // It says why when it is stopped.
            () = stun_only::ended(stun.as_ref()) => Ok(()),
        };
        readiness.draining();
        tasks.shutdown().await;
        info!(connections = plane.registry().gauges().connections.load(Ordering::Relaxed), "closing");
        let stopping = tokio::task::spawn_blocking(move || workers.stop());
        if tokio::time::timeout(config.shutdown_timeout, stopping).await.is_err() {
            warn!("the data plane has not ended within shutdown_timeout; ending without it");
        }
        if let Some(stun) = stun {
            stun.stop().map_err(RunError::Stun)?;
        }
        drop(admin);
        ended
    }
}

/// Accepts for ever.
async fn accept(listener: tokio::net::TcpListener, door: Arc<Door>, entrance: Entrance) {
    let pending = Arc::new(Semaphore::new(door.limits.max_pending));
    // All clients of a proxy come from its address.
    let per_host = if entrance == Entrance::Plain { usize::MAX } else { door.limits.max_pending_per_host };
    let hosts = Arc::new(Hosts::new(per_host));
    loop {
        // More than that many logins at a time would only be slower, each of them: the rest wait in the backlog.
        let Ok(permit) = pending.clone().acquire_owned().await else { return };
        match listener.accept().await {
            Ok((socket, address)) => {
                // Closed and not kept waiting: what waits would hold a place.
                let Some(place) = hosts.place(address.ip()) else {
                    door.refuse(address, &Refusal::HostLimit);
                    continue;
                };
                if let Err(error) = set_options(&socket) {
                    warn!(%address, "cannot set socket options: {error}");
                }
                let door = door.clone();
                door.metrics.pending.inc();
                tokio::spawn(async move {
                    door.serve(socket, address, entrance).await;
                    door.metrics.pending.dec();
                    drop((place, permit));
                });
            }
            Err(error) => {
                door.metrics.accept_errors.inc();
                warn!("cannot accept: {error}");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// Sets what every connection has.
pub(crate) fn set_options<S: AsFd>(socket: &S) -> io::Result<()> {
    let socket = SockRef::from(socket);
    socket.set_tcp_nodelay(true)?;
    socket.set_tcp_notsent_lowat(UNSENT_IN_KERNEL)?;
    socket.set_tcp_user_timeout(Some(TCP_USER_TIMEOUT))?;
    socket.set_tcp_keepalive(&TcpKeepalive::new().with_time(TCP_KEEPALIVE))
}

/// Binds a TCP listener. `[::]` takes IPv4 as well.
pub(crate) fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    if address.is_ipv6() {
        socket.set_only_v6(false)?;
    }
    // A relay that is restarted must not wait for the old one's connections to be forgotten.
    socket.set_reuse_address(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}
