//! The relays that an endpoint uses: a DERP map, as its regions are dialled and measured.

use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::sync::Arc;

use rustls::RootCertStore;
use tokio::net::lookup_host;
use towpath_derpmap::{Loaded, ReadError, Unwritable};
use towpath_disco::RelayConfig;
use towpath_disco::datagram::Region;
use towpath_relay_client::{Dialer, Proxy, ProxyVariableError, SetupError, TlsVersions, Trust};
use towpath_wire::derp::token::Token;
use towpath_wire::map::{DerpMap, DerpNode, DerpRegion};
use towpath_wire::pin::CertificatePin;
use towpath_wire::ports;

/// The STUN servers of a region that are asked: for each address family the first ones.
const MOST_STUN: usize = 4;

/// Relays by region.
///
/// It is made from a DERP map, in the forms in which control servers and operators have it: JSON of Tailscale and Headscale, YAML of
/// Headscale's `derp.paths`, or Tailscale's policy file.
#[derive(Clone, Debug, Default)]
pub struct RelayMap {
    regions: Vec<RelayRegion>,
}

/// A region of relays.
#[derive(Clone, Debug)]
pub struct RelayRegion {
    /// Its number.
    pub region: Region,
    /// Its short name, such as `fra`.
    pub code: String,
    /// Its name for people.
    pub name: String,
    /// Whether it is neither measured nor made the home, unless it is pinned.
    pub(crate) is_avoided: bool,
    pub(crate) nodes: Vec<DerpNode>,
}

/// Why a DERP map cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum RelayMapError {
    /// The file cannot be read.
    #[error("cannot read the relay map {path}")]
    File {
        /// The path.
        path: String,
        /// What the system says.
        source: std::io::Error,
    },
    /// It is neither JSON nor YAML.
    #[error("cannot read the relay map")]
    Read(#[from] ReadError),
    /// Its readers refuse it.
    #[error("the relay map is refused: {0}")]
    Refused(String),
    /// A number in it is out of its range.
    #[error("cannot use the relay map")]
    Unwritable(#[from] Unwritable),
    /// The number of a region is too large.
    #[error(
        "region {0} of the relay map has a number above 65535, which disco cannot name: give it another one"
    )]
    Region(u64),
    /// There is no relay in it.
    #[error("the relay map has no relay: it needs a region with a node that is not for STUN alone")]
    Empty,
}

impl RelayMap {
    /// Reads a file.
    ///
    /// # Errors
    ///
    /// See [`RelayMapError`].
    pub fn from_file(path: &Path) -> Result<Self, RelayMapError> {
        let shown = path.display().to_string();
        let bytes =
            std::fs::read(path).map_err(|source| RelayMapError::File { path: shown.clone(), source })?;
        Self::read(&shown, &bytes)
    }

    /// Reads the bytes of a file called `name`.
    ///
    /// # Errors
    ///
    /// See [`RelayMapError`].
    pub fn read(name: &str, bytes: &[u8]) -> Result<Self, RelayMapError> {
        let loaded = Loaded::read(name, bytes, None)?;
        if let Some(finding) = loaded.refusal() {
            return Err(RelayMapError::Refused(finding.message.clone()));
        }
        Self::try_from(loaded.map.to_wire()?)
    }

    /// The regions, by number.
    #[must_use]
    pub fn regions(&self) -> &[RelayRegion] {
        &self.regions
    }

    pub(crate) fn region(&self, region: Region) -> Option<&RelayRegion> {
        self.regions.iter().find(|one| one.region == region)
    }

    /// The regions with the addresses of their STUN servers, as far as their names can be resolved now.
    pub(crate) async fn resolve(&self) -> Vec<RelayConfig> {
        let mut relays = Vec::with_capacity(self.regions.len());
        for region in self.regions.iter().filter(|region| region.dialled().next().is_some()) {
            let mut stun = Vec::new();
            for node in region.nodes.iter().filter(|_| !region.is_avoided) {
                stun.extend(stun_addresses(node).await);
            }
            stun.truncate(MOST_STUN);
            relays.push(RelayConfig { region: region.region, stun });
        }
        relays
    }
}

impl TryFrom<DerpMap> for RelayMap {
    type Error = RelayMapError;

    fn try_from(map: DerpMap) -> Result<Self, RelayMapError> {
        let mut regions = Vec::new();
        for (number, region) in map.regions {
            let Some(region) = region else { continue };
            let DerpRegion { region_code, region_name, avoid, no_measure_no_home, nodes, .. } = region;
            let region = Region(u16::try_from(number).map_err(|_| RelayMapError::Region(number))?);
            let is_avoided = avoid || no_measure_no_home;
            regions.push(RelayRegion { region, code: region_code, name: region_name, is_avoided, nodes });
        }
        if regions.iter().all(|region| region.dialled().next().is_none()) {
            return Err(RelayMapError::Empty);
        }
        Ok(Self { regions })
    }
}

impl RelayRegion {
    /// The relays, in the order in which they are tried.
    pub(crate) fn dialled(&self) -> impl Iterator<Item = &DerpNode> {
        self.nodes.iter().filter(|node| !node.stun_only)
    }
}

/// The addresses at which a node answers STUN.
async fn stun_addresses(node: &DerpNode) -> Vec<SocketAddr> {
    let Some(port) = stun_port(node) else { return Vec::new() };
    if let Ok(address) = node.stun_test_ip.parse::<IpAddr>() {
        return vec![SocketAddr::new(address, port)];
    }
    addresses(node, port).await.unwrap_or_else(|error| {
        tracing::warn!(host = node.host_name, %error, "cannot resolve the STUN server of a region: it is not asked");
        Vec::new()
    })
}

fn stun_port(node: &DerpNode) -> Option<u16> {
    match u16::try_from(node.stun_port) {
        Ok(0) => Some(ports::STUN),
        port => port.ok(),
    }
}

/// The addresses of a node: those that the map gives, or else those that its name has, of both families unless the map excludes one.
pub(crate) async fn addresses(node: &DerpNode, port: u16) -> std::io::Result<Vec<SocketAddr>> {
    let given: Vec<_> = given_addresses(node).collect();
    if !given.is_empty() {
        return Ok(given.into_iter().map(|ip| SocketAddr::new(ip, port)).collect());
    }
    let found = lookup_host((node.host_name.as_str(), port)).await?;
    // What is no address excludes its family.
    let is_wanted = |ip: &SocketAddr| if ip.is_ipv4() { node.ipv4.is_empty() } else { node.ipv6.is_empty() };
    Ok(found.filter(is_wanted).collect())
}

/// What the links to all relays share.
#[derive(Clone, Debug)]
pub(crate) struct RelayTrust {
    pub(crate) roots: Arc<RootCertStore>,
    pub(crate) token: Option<Token>,
    /// Whether DERP is spoken in WebSocket messages, for proxies on the way that let no other upgrade through.
    pub(crate) websocket: bool,
    /// The mark of the packets to relays (`SO_MARK`).
    pub(crate) mark: Option<u32>,
}

/// Why a relay cannot be dialled with what the map and the environment say.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RelaySetupError {
    #[error(transparent)]
    Setup(#[from] SetupError),
    #[error(transparent)]
    Proxy(#[from] ProxyVariableError),
}

impl RelayTrust {
    /// The dialler of a relay, through the proxy that the environment names for it.
    pub(crate) fn dialer(&self, node: &DerpNode) -> Result<Dialer, RelaySetupError> {
        let port = if node.derp_port == 0 { ports::HTTPS } else { node.derp_port };
        let pin = node.cert_name.strip_prefix(CertificatePin::PREFIX).and_then(CertificatePin::from_hex);
        let trust = match pin {
            Some(pin) => Trust::Pin(pin),
            None if node.insecure_for_tests => Trust::Anyone,
            None => Trust::Roots(self.roots.clone()),
        };
        let mut dialer = Dialer::tls(&node.host_name, port, &trust, TlsVersions::Both)?;
        if pin.is_none() && !node.cert_name.is_empty() {
            dialer = dialer.with_certificate_name(&node.cert_name)?;
        }
        let given: Vec<_> = given_addresses(node).map(|ip| SocketAddr::new(ip, port)).collect();
        if !given.is_empty() {
            dialer = dialer.at_any(given);
        }
        if let Some(proxy) = Proxy::from_environment(&node.host_name, port)? {
            dialer = dialer.through(proxy);
        }
        if let Some(mark) = self.mark {
            dialer = dialer.with_mark(mark);
        }
        if self.websocket {
            dialer = dialer.websocket();
        }
        if let Some(token) = &self.token {
            dialer = dialer.with_token(token.clone());
        }
        Ok(dialer)
    }
}

/// The addresses that the map gives a node.
fn given_addresses(node: &DerpNode) -> impl Iterator<Item = IpAddr> {
    [&node.ipv4, &node.ipv6].into_iter().filter_map(|text| text.parse().ok())
}
