//! What belongs to every running peer: a control socket, metrics, and a journal of its paths.

use std::fs::DirBuilder;
use std::io::ErrorKind;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;
use std::sync::Arc;

use anyhow::Context;
use prometheus::Registry;
use towpath::{Endpoint, NodePublic, Region};
use towpath_service::admin::{Admin, AdminListeners, AdminSocket, Readiness};
use towpath_service::config::Resolved;
use towpath_service::signals::Shutdown;
use towpath_service::{limits, logs, metrics};
use tracing::{info, warn};

use crate::control::Control;
use crate::journal::Journal;
use crate::metrics::Scrape;
use crate::settings::ServiceSettings;

/// Sets the process up for a peer that runs until a signal ends it.
pub(crate) fn prepare(settings: &ServiceSettings, resolved: &Resolved) -> anyhow::Result<Shutdown> {
    logs::init(settings.log_format, settings.log_level).context("cannot set up logs")?;
    for warning in resolved.warnings() {
        warn!("{warning}");
    }
    Shutdown::install().context("cannot catch signals")
}

/// Keeps keys out of core dumps. To be called before one is read.
pub(crate) fn protect_keys() -> anyhow::Result<()> {
    limits::forbid_dumps().context("cannot keep keys out of core dumps")
}

/// Runs a task on threads of its own.
pub(crate) fn block_on<T>(task: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    runtime.context("cannot start threads")?.block_on(task)
}

/// What runs beside an endpoint. It ends with this value.
#[derive(Debug)]
pub(crate) struct Running {
    endpoint: Endpoint,
    readiness: Readiness,
    _admin: Admin,
}

impl Running {
    /// Starts it for the endpoint of a scrape.
    pub(crate) fn start(
        settings: &ServiceSettings,
        scrape: Scrape,
        peers: &[NodePublic],
    ) -> anyhow::Result<Self> {
        let endpoint = scrape.endpoint.clone();
        info!(version = env!("CARGO_PKG_VERSION"), key = %endpoint.key(), addresses = ?endpoint.local_addresses(), "the peer runs");
        let journal = Arc::new(Journal::default());
        for peer in peers {
            follow(&endpoint, peer, journal.clone())?;
        }
        let readiness = Readiness::new();
        let registry = Registry::new();
        metrics::register_process(&registry, "towpath", env!("CARGO_PKG_VERSION"))?;
        registry.register(Box::new(scrape))?;
        let tcp = settings.admin_listen.map(std::net::TcpListener::bind).transpose();
        let tcp = tcp.context("cannot bind admin.listen")?;
        if let Some(listener) = &tcp {
            listener.set_nonblocking(true)?;
            info!(address = %listener.local_addr()?, "metrics and health");
        }
        make_folder_of(&settings.admin_socket)?;
        let socket = Some(AdminSocket::bind(&settings.admin_socket)?);
        let listeners = AdminListeners { tcp, socket, ..AdminListeners::default() };
        let control = Arc::new(Control { endpoint: endpoint.clone(), journal });
        let admin = Admin::start(listeners, registry, readiness.clone(), Some(control))?;
        Ok(Self { endpoint, readiness, _admin: admin })
    }

    /// Waits until peers can reach this one, and says so.
    pub(crate) async fn wait_until_ready(&self) {
        if let Ok(Region(region)) = self.endpoint.online().await {
            info!(region, "ready: peers reach this one over the relay of its home region");
            self.readiness.ready();
        }
    }

    /// Says that no more is taken on, and closes the endpoint.
    pub(crate) async fn close(&self) {
        self.readiness.draining();
        self.endpoint.close().await;
    }
}

/// Makes the folder of the control socket where it is missing, as it is in `/run` for a program that no service manager has started.
fn make_folder_of(socket: &Path) -> anyhow::Result<()> {
    let Some(folder) = socket.parent().filter(|folder| !folder.as_os_str().is_empty()) else { return Ok(()) };
    match DirBuilder::new().mode(0o750).create(folder) {
        Err(error) if error.kind() != ErrorKind::AlreadyExists => Err(error),
        _ => Ok(()),
    }
    .with_context(|| format!("cannot create the folder of admin.socket, {}", folder.display()))
}

/// Writes each change of the path to a peer into the journal.
fn follow(endpoint: &Endpoint, peer: &NodePublic, journal: Arc<Journal>) -> anyhow::Result<()> {
    let mut watch = endpoint.watch_path(peer)?;
    let peer = peer.to_string();
    tokio::spawn(async move {
        while let Ok(path) = watch.changed().await {
            journal.write(peer.clone(), path);
        }
    });
    Ok(())
}
