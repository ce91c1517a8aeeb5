//! A real relay in this process, on loopback, and how far away it seems.

use std::net::SocketAddr;
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::Context;
use tokio::sync::oneshot;
use towpath::{Region, RelayMap, RelayMapError};
use towpath_relay::config::Config;
use towpath_relay::{Identity, Server};
use towpath_service::config::Sources;
use towpath_wire::map::{DerpMap, DerpNode, DerpRegion, NO_ADDRESS, NO_STUN};
use towpath_wire::pin::CertificatePin;

use crate::slow_stream::SlowStream;

/// A relay in this process. It ends when dropped.
#[derive(Debug)]
pub struct LocalRelay {
    region: Region,
    pin: CertificatePin,
    way: SlowStream,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl LocalRelay {
    /// Starts a relay, to which each direction takes `delay`.
    ///
    /// # Errors
    ///
    /// If the relay cannot be started.
    pub async fn start(region: Region, delay: Duration) -> anyhow::Result<Self> {
        let text = "listen = \"127.0.0.1:0\"\nstun.listen = []\nadmin.listen = \"\"\nworkers = 1\n";
        let sources = Sources::new("TOWPATH_LOCAL_RELAY").text("local relay", text);
        let (config, _) = Config::read(&sources, true).map_err(|problems| anyhow::anyhow!("{problems}"))?;
        let identity = Identity::load(&config)?;
        let pin = identity.certificate_pin().context("a relay on loopback has a certificate of its own")?;
        let server = Server::bind(&config, identity)?;
        let address = server.addresses().tls.context("a relay on loopback speaks TLS")?;
        let (stop, stopped) = oneshot::channel::<()>();
        let thread = std::thread::Builder::new().name("local-relay".into()).spawn(move || {
            let shutdown = async {
                let _ = stopped.await;
            };
            // Its end is seen by its clients.
            let _ = server.run(shutdown);
        })?;
        let way = SlowStream::start(address, delay).await?;
        Ok(Self { region, pin, way, stop: Some(stop), thread: Some(thread) })
    }

    /// The region of the relay on a DERP map. Its STUN server is at `stun`, if that is given.
    #[must_use]
    pub fn region(&self, code: &str, stun: Option<SocketAddr>) -> DerpRegion {
        let Region(number) = self.region;
        let node = DerpNode {
            name: format!("{number}a"),
            region_id: number.into(),
            host_name: "localhost".into(),
            cert_name: self.pin.to_string(),
            ipv4: self.way.address().ip().to_string(),
            ipv6: NO_ADDRESS.into(),
            derp_port: self.way.address().port(),
            stun_port: stun.map_or(NO_STUN, |stun| stun.port().into()),
            stun_test_ip: stun.map(|stun| stun.ip().to_string()).unwrap_or_default(),
            ..DerpNode::default()
        };
        DerpRegion {
            region_id: number.into(),
            region_code: code.into(),
            region_name: code.into(),
            nodes: vec![node],
            ..DerpRegion::default()
        }
    }

    /// Lets the connections to the relay carry nothing more, which neither end notices, as when the NATs in front of its clients have
    /// forgotten them. Later ones work.
    pub fn forget_connections(&self) {
        self.way.forget();
    }

    /// Breaks all connections to the relay, and lets no more in, as when its machine dies.
    pub async fn kill(&mut self) {
        self.way.kill().await;
    }
}

impl Drop for LocalRelay {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // What went wrong in it was printed there.
            let _ = thread.join();
        }
    }
}

/// The map of these regions.
///
/// # Errors
///
/// See [`RelayMapError`].
pub fn map_of(regions: impl IntoIterator<Item = DerpRegion>) -> Result<RelayMap, RelayMapError> {
    let regions = regions.into_iter().map(|region| (region.region_id, Some(region))).collect();
    RelayMap::try_from(DerpMap { regions, ..DerpMap::default() })
}
