//! A proxy for WireGuard: its packets, carried to its peers.

use std::path::PathBuf;
use std::sync::Arc;

use clap::Args;
use towpath::{Endpoint, PeerConfig};
use towpath_service::command::{Failure, print};
use towpath_service::signals::Shutdown;
use towpath_wireguard::quick::{QuickFile, QuickFileError};
use towpath_wireguard::{Basis, LocalSide, Proxy, ProxyConfig, restore};
use tracing::{info, warn};

use crate::metrics::Scrape;
use crate::running::{self, Running};
use crate::settings::{ProxyFlags, ProxySettings};

/// The command `proxy`.
#[derive(Args, Debug)]
pub(crate) struct RunProxy {
    /// The configuration file, TOML [env: TOWPATH_PEER_CONFIG]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(flatten)]
    flags: ProxyFlags,
    /// Put back what a proxy of this interface has found and changed, and end
    #[arg(long)]
    restore: bool,
}

impl RunProxy {
    pub(crate) fn run(&self) -> Result<(), Failure> {
        running::protect_keys()?;
        if self.restore {
            return self.put_back();
        }
        let (settings, resolved) = ProxySettings::read(&self.flags, self.config.as_deref())?;
        let file = QuickFile::load(&settings.wg).map_err(unusable)?;
        let shutdown = running::prepare(&settings.service, &resolved)?;
        Ok(running::block_on(serve(settings, file, shutdown))?)
    }

    fn put_back(&self) -> Result<(), Failure> {
        let (wg, directory) = ProxySettings::read_place(&self.flags, self.config.as_deref())?;
        // The file may be gone, or changed by now.
        let interface = QuickFile::interface_of(&wg).map_err(unusable)?;
        let was_changed = running::block_on(async { Ok(restore(&directory, &interface).await?) })?;
        let text = if was_changed {
            format!("{interface} is as it was found\n")
        } else {
            format!("nothing to put back: no proxy has changed {interface}\n")
        };
        Ok(print(&text)?)
    }
}

fn unusable(error: QuickFileError) -> Failure {
    Failure::Unreadable(error.into())
}

async fn serve(settings: ProxySettings, file: QuickFile, shutdown: Shutdown) -> anyhow::Result<()> {
    let proxy = Arc::new(Proxy::new(ProxyConfig {
        file,
        names: settings.names.0.clone(),
        state_directory: settings.state_dir.clone(),
        hosts: settings.hosts_file.clone(),
    })?);
    proxy.announce();
    let ended = serve_until(&settings, &proxy, &shutdown).await;
    // In either case, so that WireGuard is not left with addresses behind which nothing is.
    let restored = proxy.put_back().await;
    if restored.is_ok() {
        info!("stopped: {} is as it was found", proxy.interface());
    }
    ended?;
    Ok(restored?)
}

/// Carries packets until a signal says to stop.
async fn serve_until(
    settings: &ProxySettings,
    proxy: &Arc<Proxy>,
    shutdown: &Shutdown,
) -> anyhow::Result<()> {
    loop {
        let basis = tokio::select! {
            basis = proxy.wait_for_interface() => basis?,
            () = shutdown.clone().requested() => return Ok(()),
        };
        if serve_interface(settings, proxy, &basis, shutdown).await? == Ended::Stopped {
            return Ok(());
        }
    }
}

/// Why packets are not carried any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ended {
    /// The interface has another key or mark.
    Changed,
    /// A signal has said so.
    Stopped,
}

/// Carries packets until the interface has another key or mark, or a signal says to stop.
async fn serve_interface(
    settings: &ProxySettings,
    proxy: &Arc<Proxy>,
    basis: &Basis,
    shutdown: &Shutdown,
) -> anyhow::Result<Ended> {
    let local = proxy.bind(basis)?;
    let endpoint = bind(settings, proxy, basis, local.clone()).await?;
    let scrape = Scrape { endpoint: endpoint.clone(), proxy: Some(proxy.clone()) };
    let running = Running::start(&settings.service, scrape, &proxy.served())?;
    let ready = async {
        running.wait_until_ready().await;
        for peer in proxy.served() {
            endpoint.prepare(&peer)?;
        }
        std::future::pending::<anyhow::Result<Ended>>().await
    };
    let ended = tokio::select! {
        ended = proxy.serve(endpoint.clone(), local, basis) => ended.map(|()| Ended::Changed).map_err(Into::into),
        failed = ready => failed,
        () = shutdown.clone().requested() => Ok(Ended::Stopped),
    };
    running.close().await;
    ended
}

async fn bind(
    settings: &ProxySettings,
    proxy: &Proxy,
    basis: &Basis,
    local: Arc<LocalSide>,
) -> anyhow::Result<Endpoint> {
    let mut warnings = Vec::new();
    let mut builder = settings
        .endpoint
        .builder(&mut warnings)?
        .secret_key(basis.secret_key.clone())
        .ignore_interface(proxy.interface())
        .deliver_to(local);
    for warning in warnings {
        warn!("{warning}");
    }
    if let Some(mark) = basis.mark {
        builder = builder.mark(mark);
    }
    for key in proxy.served() {
        builder = builder.peer(PeerConfig::new(key));
    }
    Ok(builder.bind().await?)
}
