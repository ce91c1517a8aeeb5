//! The relay as a whole: binds everything, then runs until it is told to stop.

use std::future::Future;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::{Arc, RwLock};
use std::time::Duration;

use prometheus::Registry;
use rustix::process::setpriority_process;
use tokio::sync::{Mutex, mpsc, watch};
use tokio::task::JoinSet;
use towpath_relay_forward::{DataPlane, DataPlaneConfig, Workers};
use towpath_relay_proto::admission::Admission;
use towpath_relay_proto::outbox::SharedLimits;
use towpath_service::admin::{Admin, AdminListeners, Readiness};
use towpath_wire::ports;
use tracing::{info, warn};

use crate::administration::{self, Administration};
use crate::admission::backend::BackendMetrics;
use crate::admission::{self, AdmissionMetrics, Engine, Policies};
use crate::bind_error::BindError;
use crate::bounds::{Bounded, account_bounds, outbox_limits, plane_limits};
use crate::certificate::{Renewal, register_expiry};
use crate::config::Config;
use crate::control::{
    Accounts, Bootstrap, ControlMetrics, Frontend, Http, ListenerKind, NeighbourLog, NodeKeys, Proxies,
    ProxyProtocol, Site, accept,
};
use crate::identity::Identity;
use crate::mesh::{LinkContext, Links, MeshMetrics, MeshSetup};
use crate::metrics::{PlaneScrape, StunScrape};
use crate::reconfiguration::{ConfigSources, Reconfiguration};
use crate::reload::{Reload, ReloadMetrics, Subject};
use crate::socket::listen;
use crate::start_error::StartError;
use crate::unix_time::unix_now;

/// The threads of the control plane. With more, a storm of logins would compete with the data plane on small machines.
const CONTROL_THREADS: usize = 2;
/// How much the control plane's threads give way to the data plane's.
const CONTROL_NICENESS: i32 = 10;

/// The reason why a running relay stopped by itself.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The system refuses threads or their resources.
    #[error("cannot start the threads of the relay")]
    Start(#[from] io::Error),
    /// Two metrics have one name.
    #[error("cannot register the metrics")]
    Metrics(#[from] prometheus::Error),
    /// A thread that moves packets has panicked; the process must not go on without it.
    #[error("a worker of the data plane panicked; the relay cannot go on without it")]
    Worker,
    /// The thread of the STUN server has ended.
    #[error("the STUN server failed")]
    Stun(#[source] io::Error),
}

/// A relay with its sockets bound and nothing running.
#[derive(Debug)]
pub struct Server {
    config: Config,
    identity: Identity,
    tls: Option<rustls::ServerConfig>,
    mesh: MeshSetup,
    policies: Policies,
    listener: Option<TcpListener>,
    http: Option<TcpListener>,
    redirect: Option<TcpListener>,
    stun: Option<towpath_stun::BoundServer>,
    admin: AdminListeners,
    worker_hook: fn(),
    sources: Option<ConfigSources>,
    hangups: Option<watch::Receiver<u64>>,
}

/// The addresses on which a relay listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Addresses {
    /// DERP and HTTP over TLS; `None` when it is off.
    pub tls: Option<SocketAddr>,
    /// DERP and HTTP without TLS; `None` when it is off.
    pub http: Option<SocketAddr>,
    /// The redirect to HTTPS; `None` when it is off.
    pub redirect: Option<SocketAddr>,
    /// STUN; empty when it is off.
    pub stun: Vec<SocketAddr>,
    /// Metrics and health; `None` when they are off.
    pub admin: Option<SocketAddr>,
}

impl Server {
    /// Binds every socket that the configuration names.
    ///
    /// # Errors
    ///
    /// See [`StartError`]. Each error names the listener and the address.
    pub fn bind(config: &Config, mut identity: Identity) -> Result<Self, StartError> {
        let tls = identity.server_config(config.records)?;
        let (mesh, policies) = (identity.take_mesh(), identity.take_policies());
        let tcp = |what, address| listen(address).map_err(|error| BindError::tcp(what, address, error));
        let listener = config.listen.map(|address| tcp("TLS", address)).transpose()?;
        let http = config.http.listen.map(|address| tcp("plain HTTP", address)).transpose()?;
        let redirect = config.http.redirect_listen.map(|address| tcp("HTTP", address)).transpose()?;
        let stun = if config.stun.listen.is_empty() {
            None
        } else {
            Some(towpath_stun::BoundServer::bind(&config.stun)?)
        };
        let admin = administration::bind(&config.admin)?;
        let config = config.clone();
        let (worker_hook, sources, hangups): (fn(), _, _) = (|| {}, None, None);
        Ok(Self {
            config,
            identity,
            tls,
            mesh,
            policies,
            listener,
            http,
            redirect,
            stun,
            admin,
            worker_hook,
            sources,
            hangups,
        })
    }

    /// Reads the configuration again when its file changes, and takes up the settings that reload.
    #[must_use]
    pub fn with_sources(mut self, sources: ConfigSources) -> Self {
        self.sources = Some(sources);
        self
    }

    /// Reads the configuration, if it has [sources](Self::with_sources), and the certificate again whenever `hangups` changes,
    /// besides when their files change.
    #[must_use]
    pub fn with_hangups(mut self, hangups: watch::Receiver<u64>) -> Self {
        self.hangups = Some(hangups);
        self
    }

    /// Sets a function that each thread of the data plane calls when it starts, for tests that watch such threads.
    #[must_use]
    pub fn with_worker_hook(mut self, hook: fn()) -> Self {
        self.worker_hook = hook;
        self
    }

    /// Returns the addresses on which the relay listens.
    ///
    /// # Panics
    ///
    /// Never for a socket that is bound.
    #[must_use]
    pub fn addresses(&self) -> Addresses {
        let bound = |listener: &TcpListener| listener.local_addr().expect("a bound socket has an address");
        Addresses {
            tls: self.listener.as_ref().map(bound),
            http: self.http.as_ref().map(bound),
            redirect: self.redirect.as_ref().map(bound),
            stun: self.stun.as_ref().map(towpath_stun::BoundServer::local_addrs).unwrap_or_default(),
            admin: self.admin.tcp.as_ref().map(bound),
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
                // If the system refuses, logins only compete more with the data plane.
                let _ = setpriority_process(None, CONTROL_NICENESS);
            })
            .build()?;
        let ended = runtime.block_on(self.run_inside(shutdown));
        // Only logins are left, and they are not waited for.
        runtime.shutdown_background();
        ended
    }

    async fn run_inside(self, shutdown: impl Future<Output = ()>) -> Result<(), RunError> {
        let (failed, mut failures) = mpsc::unbounded_channel();
        let running = Running::start(self, &failed)?;
        let ended = tokio::select! {
            () = shutdown => Ok(()),
            part = failures.recv() => match part {
                Some(Part::Worker) => Err(RunError::Worker),
                // Stopping the STUN server returns why it failed.
                Some(Part::Stun) | None => Ok(()),
            },
        };
        running.stop().await?;
        ended
    }

    /// The settings of the data plane.
    fn plane_config(&self) -> DataPlaneConfig {
        DataPlaneConfig {
            limits: plane_limits(&self.config),
            keepalive: self.config.keepalive,
            poll: self.config.poll,
            own_key: self.identity.node_public(),
            watchable: self.mesh.secrets.give_watching(),
            max_frame_memory: self.config.max_memory,
        }
    }
}

/// A part of the relay whose end stops the relay.
#[derive(Clone, Copy, Debug)]
enum Part {
    Worker,
    Stun,
}

/// The parts of a running relay.
struct Running {
    plane: Arc<DataPlane>,
    workers: Workers,
    stun: Option<towpath_stun::RunningServer>,
    admin: Admin,
    readiness: Readiness,
    /// The acceptors, and the tasks that refresh `/bootstrap-dns` and admissions and read files again.
    tasks: JoinSet<()>,
    engine: Arc<Engine>,
    shutdown_timeout: Duration,
}

impl Running {
    /// Starts each part, in an order in which no part needs a later one. Sends a part that ends by itself to `failed`.
    fn start(server: Server, failed: &mpsc::UnboundedSender<Part>) -> Result<Self, RunError> {
        let report = |part| report_end(failed.clone(), part);
        let (plane_config, outbox) =
            (server.plane_config(), SharedLimits::new(outbox_limits(&server.config)));
        let Server {
            config,
            identity,
            tls,
            mesh,
            mut policies,
            listener,
            http,
            redirect,
            stun,
            admin,
            worker_hook,
            sources,
            hangups,
        } = server;
        let workers_wanted = config.workers.get();
        let (plane, workers) =
            DataPlane::start(workers_wanted, plane_config, worker_hook, report(Part::Worker))?;
        let plane = Arc::new(plane);
        let stun = stun.map(|stun| stun.spawn_with(report(Part::Stun))).transpose()?;

        let registry = Registry::new();
        let (metrics, mesh_metrics) = register_metrics(&registry, &plane, stun.as_ref())?;
        let renewal = renewal_of(&identity, &registry)?;
        let reload_metrics = ReloadMetrics::register(&registry)?;
        let admission_metrics = AdmissionMetrics::register(&registry)?;
        policies.add_backends(config.tailscaled.as_ref(), &BackendMetrics::register(&registry)?);
        let engine = Arc::new(Engine::new(&config.admission, policies, admission_metrics));
        let readiness = Readiness::new();
        let (places, connections) = account_bounds(&config.login, workers_wanted);
        let accounts = Arc::new(Accounts::new(places, connections));
        let administration = Administration {
            plane: plane.clone(),
            accounts: accounts.clone(),
            engine: engine.clone(),
            listing: Arc::new(Mutex::new(())),
        };
        let admin = Admin::start(admin, registry, readiness.clone(), Some(Arc::new(administration)))?;

        let keys = NodeKeys { private: identity.node_key().clone(), public: identity.node_public() };
        let (secrets, mesh_sources) = (mesh.secrets.clone(), config.mesh.sources.clone());
        let links = Arc::new(Links::new(LinkContext {
            plane: plane.clone(),
            key: keys.private.clone(),
            limits: outbox.clone(),
            metrics: mesh_metrics.clone(),
        }));
        links.keep(mesh.dialers);
        let bootstrap = Arc::new(Bootstrap::new(config.bootstrap_dns.clone()));
        let port = tls_port(listener.as_ref())?;
        let own = keys.public;
        let frontend = Arc::new(Frontend {
            tls: tls.map(Arc::new),
            records: config.records,
            keys,
            keepalive: config.keepalive,
            http: http_of(&config, port, bootstrap.clone()),
            accounts,
            limits: RwLock::new(Arc::new(config.login)),
            admission: Admission { secrets: secrets.clone(), mesh_sources, limits: outbox.clone() },
            engine: engine.clone(),
            metrics,
            neighbours: NeighbourLog::default(),
            proxy_protocol: ProxyProtocol::new(config.proxy_protocol_sources.clone()),
            mesh_metrics,
            plane: plane.clone(),
        });
        let mut tasks = accept_on(listener, http, redirect, &frontend)?;
        if !config.bootstrap_dns.is_empty() {
            tasks.spawn(async move { bootstrap.keep_fresh().await });
        }
        let mut subjects: Vec<Arc<dyn Subject>> = Vec::new();
        if let Some(sources) = sources {
            let bounded = Bounded { frontend, plane: plane.clone(), outbox, workers: workers_wanted };
            subjects.push(Arc::new(Reconfiguration::new(sources, own, secrets, bounded, links)));
        }
        subjects.extend(admission::subjects(&config.admission, &engine));
        if let Some(renewal) = renewal {
            tasks.spawn(renewal.clone().warn_daily());
            subjects.push(Arc::new(renewal));
        }
        if !subjects.is_empty() {
            tasks.spawn(Reload { subjects, metrics: reload_metrics, hangups }.run());
        }
        tasks.spawn(engine.clone().keep_confirming(plane.clone()));
        tasks.spawn(engine.clone().keep_saving());
        readiness.ready();
        let shutdown_timeout = config.shutdown_timeout;
        Ok(Self { plane, workers, stun, admin, readiness, tasks, engine, shutdown_timeout })
    }

    /// Stops each part: the acceptors first, then the clients, then the rest.
    async fn stop(mut self) -> Result<(), RunError> {
        self.readiness.draining();
        self.tasks.shutdown().await;
        self.engine.save_all();
        info!(connections = self.plane.stats().connections(), "closing all connections");
        let workers = self.workers;
        let stopping = tokio::task::spawn_blocking(move || workers.stop());
        if tokio::time::timeout(self.shutdown_timeout, stopping).await.is_err() {
            warn!("the data plane did not stop within shutdown_timeout; exiting without waiting for it");
        }
        if let Some(stun) = self.stun {
            stun.stop().map_err(RunError::Stun)?;
        }
        drop(self.admin);
        Ok(())
    }
}

/// What a part calls when it has ended by itself.
fn report_end(failed: mpsc::UnboundedSender<Part>, part: Part) -> impl Fn() + Clone {
    move || {
        // Nothing listens any more only when the process is about to end.
        let _ = failed.send(part);
    }
}

/// The port on which clients reach TLS. A proxy that ends it does so where clients expect it.
fn tls_port(listener: Option<&TcpListener>) -> io::Result<u16> {
    listener.map_or(Ok(ports::HTTPS), |listener| Ok(listener.local_addr()?.port()))
}

/// The certificate as it is read again, if the relay shows one.
fn renewal_of(identity: &Identity, registry: &Registry) -> prometheus::Result<Option<Renewal>> {
    let Some(shown) = identity.shown() else { return Ok(None) };
    register_expiry(registry, shown.clone())?;
    Ok(Some(Renewal { shown: shown.clone(), now: unix_now }))
}

/// What answers HTTP, on whichever listener. `port` is the one for TLS.
fn http_of(config: &Config, port: u16, bootstrap: Arc<Bootstrap>) -> Http {
    Http {
        site: Site::new(&config.hostname, port, config.http.home.clone(), bootstrap),
        proxies: Proxies::new(config.http.proxies.clone()),
    }
}

/// Registers everything that is counted, and returns what the control plane counts in.
fn register_metrics(
    registry: &Registry,
    plane: &Arc<DataPlane>,
    stun: Option<&towpath_stun::RunningServer>,
) -> prometheus::Result<(ControlMetrics, MeshMetrics)> {
    let (control, mesh) = (ControlMetrics::register(registry)?, MeshMetrics::register(registry)?);
    registry.register(Box::new(PlaneScrape(plane.clone())))?;
    if let Some(stun) = stun {
        registry.register(Box::new(StunScrape::new(stun.counters())?))?;
    }
    towpath_service::metrics::register_process(registry, "towpath-relay", env!("CARGO_PKG_VERSION"))?;
    Ok((control, mesh))
}

/// Spawns a task that accepts connections on each listener.
fn accept_on(
    tls: Option<TcpListener>,
    plain: Option<TcpListener>,
    redirect: Option<TcpListener>,
    frontend: &Arc<Frontend>,
) -> io::Result<JoinSet<()>> {
    let mut tasks = JoinSet::new();
    let listeners =
        [(tls, ListenerKind::Tls), (plain, ListenerKind::Plain), (redirect, ListenerKind::Redirect)];
    for (listener, kind) in listeners {
        let Some(listener) = listener else { continue };
        listener.set_nonblocking(true)?;
        let listener = tokio::net::TcpListener::from_std(listener)?;
        tasks.spawn(accept(listener, frontend.clone(), kind));
    }
    Ok(tasks)
}
