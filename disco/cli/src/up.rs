//! A running peer: an endpoint, a control socket, metrics and logs.

use std::path::PathBuf;

use clap::Args;
use towpath::{Endpoint, NodePublic, Packets, PeerConfig};
use towpath_relay::identity;
use towpath_service::command::Failure;
use towpath_service::signals::Shutdown;
use tracing::{info, warn};

use crate::metrics::Scrape;
use crate::running::{self, Running};
use crate::settings::{PeerKey, PeerSettings};

/// The command `up`.
#[derive(Args, Debug)]
pub(crate) struct Up {
    /// The configuration file, TOML [env: TOWPATH_PEER_CONFIG]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

impl Up {
    pub(crate) fn run(&self) -> Result<(), Failure> {
        running::protect_keys()?;
        let (settings, resolved) = PeerSettings::read(self.config.as_deref())?;
        let shutdown = running::prepare(&settings.service, &resolved)?;
        Ok(running::block_on(serve(&settings, shutdown))?)
    }
}

async fn serve(settings: &PeerSettings, shutdown: Shutdown) -> anyhow::Result<()> {
    let endpoint = bind(settings).await?;
    let peers: Vec<NodePublic> = settings.peers.iter().map(|PeerKey(key)| *key).collect();
    let running =
        Running::start(&settings.service, Scrape { endpoint: endpoint.clone(), proxy: None }, &peers)?;
    let receiving = async {
        running.wait_until_ready().await;
        for peer in &peers {
            endpoint.prepare(peer)?;
        }
        // No application takes the packets: they are counted.
        let mut packets = Packets::new();
        while endpoint.recv(&mut packets).await.is_ok() {}
        Ok::<_, anyhow::Error>(())
    };
    tokio::select! {
        ended = receiving => ended?,
        () = shutdown.requested() => {}
    }
    running.close().await;
    info!("stopped");
    Ok(())
}

async fn bind(settings: &PeerSettings) -> anyhow::Result<Endpoint> {
    let mut warnings = Vec::new();
    let key = identity::key_of_file(&settings.key_file, &mut warnings)?;
    let mut builder = settings.endpoint.builder(&mut warnings)?.secret_key(key);
    for warning in warnings {
        warn!("{warning}");
    }
    for PeerKey(key) in &settings.peers {
        builder = builder.peer(PeerConfig::new(*key));
    }
    Ok(builder.bind().await?)
}
