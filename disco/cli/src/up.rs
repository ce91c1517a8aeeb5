//! A running peer: an endpoint, a control socket, metrics and logs.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Context;
use clap::Args;
use prometheus::Registry;
use towpath::{Endpoint, NodePublic, Packets, PeerConfig, Region, RelayMap, Token};
use towpath_relay::{identity, secret_file};
use towpath_service::admin::{Admin, AdminListeners, AdminSocket, Readiness};
use towpath_service::command::Failure;
use towpath_service::signals::Shutdown;
use towpath_service::{limits, logs, metrics};
use tracing::{info, warn};

use crate::control::Control;
use crate::journal::Journal;
use crate::metrics::EndpointScrape;
use crate::settings::{PeerKey, Settings};

/// The command `up`.
#[derive(Args, Debug)]
pub(crate) struct Up {
    /// The configuration file, TOML [env: TOWPATH_PEER_CONFIG]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

impl Up {
    pub(crate) fn run(&self) -> Result<(), Failure> {
        // Before the key is read.
        limits::forbid_dumps().context("cannot keep keys out of core dumps")?;
        let (settings, resolved) = Settings::read(self.config.as_deref())?;
        logs::init(settings.log_format, settings.log_level).context("cannot set up logs")?;
        for warning in resolved.warnings() {
            warn!("{warning}");
        }
        let shutdown = Shutdown::install().context("cannot catch signals")?;
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .enable_all()
            .build()
            .context("cannot start threads")?;
        runtime.block_on(serve(&settings, shutdown))?;
        Ok(())
    }
}

async fn serve(settings: &Settings, shutdown: Shutdown) -> anyhow::Result<()> {
    let endpoint = bind(settings).await?;
    info!(version = env!("CARGO_PKG_VERSION"), key = %endpoint.key(), addresses = ?endpoint.local_addresses(), "the peer runs");
    let journal = Arc::new(Journal::default());
    let peers: Vec<NodePublic> = settings.peers.iter().map(|PeerKey(key)| *key).collect();
    for peer in &peers {
        let mut watch = endpoint.watch_path(peer)?;
        let (journal, peer) = (journal.clone(), peer.to_string());
        tokio::spawn(async move {
            while let Ok(path) = watch.changed().await {
                journal.write(peer.clone(), path);
            }
        });
    }
    let readiness = Readiness::new();
    let _admin = start_admin(settings, &endpoint, journal, readiness.clone())?;
    let running = async {
        if let Ok(Region(region)) = endpoint.online().await {
            info!(region, "ready: peers reach this one over the relay of its home region");
            readiness.ready();
        }
        for peer in &peers {
            endpoint.prepare(peer)?;
        }
        // No application takes the packets: they are counted.
        let mut packets = Packets::new();
        while endpoint.recv(&mut packets).await.is_ok() {}
        Ok::<_, anyhow::Error>(())
    };
    tokio::select! {
        ended = running => ended?,
        () = shutdown.requested() => {}
    }
    readiness.draining();
    endpoint.close().await;
    info!("stopped");
    Ok(())
}

async fn bind(settings: &Settings) -> anyhow::Result<Endpoint> {
    let mut warnings = Vec::new();
    let key = identity::key_of_file(&settings.key_file, &mut warnings)?;
    let mut builder = Endpoint::builder()
        .secret_key(key)
        .relay_map(RelayMap::from_file(&settings.relay_map)?)
        .port(settings.port)
        .port_mapping(settings.port_mapping);
    if let Some(path) = &settings.token_file {
        let text = secret_file::read_text(path, &mut warnings)?;
        builder =
            builder.relay_token(text.trim().parse::<Token>().with_context(|| format!("{}", path.display()))?);
    }
    for warning in warnings {
        warn!("{warning}");
    }
    if let Some(home) = settings.home {
        builder = builder.home(Region(home));
    }
    if settings.one_probe {
        builder = builder.one_probe();
    }
    if settings.websocket {
        builder = builder.websocket();
    }
    for PeerKey(key) in &settings.peers {
        builder = builder.peer(PeerConfig::new(*key));
    }
    for address in &settings.addresses {
        builder = builder.address(*address);
    }
    for name in &settings.ignored_interfaces {
        builder = builder.ignore_interface(name);
    }
    Ok(builder.bind().await?)
}

fn start_admin(
    settings: &Settings,
    endpoint: &Endpoint,
    journal: Arc<Journal>,
    readiness: Readiness,
) -> anyhow::Result<Admin> {
    let registry = Registry::new();
    metrics::register_process(&registry, "towpath", env!("CARGO_PKG_VERSION"))?;
    registry.register(Box::new(EndpointScrape(endpoint.clone())))?;
    let tcp = settings.admin_listen.map(std::net::TcpListener::bind).transpose();
    let tcp = tcp.context("cannot bind admin.listen")?;
    if let Some(listener) = &tcp {
        listener.set_nonblocking(true)?;
        info!(address = %listener.local_addr()?, "metrics and health");
    }
    let socket = Some(AdminSocket::bind(&settings.admin_socket)?);
    let listeners = AdminListeners { tcp, socket, ..AdminListeners::default() };
    let control = Arc::new(Control { endpoint: endpoint.clone(), journal });
    Ok(Admin::start(listeners, registry, readiness, Some(control))?)
}
