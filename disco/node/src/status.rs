//! How an endpoint, its relays and its peers are, for people and programs.

use std::fmt::Display;
use std::net::SocketAddr;

use serde::{Serialize, Serializer};
use towpath_disco::PortMapping;
use towpath_disco::datagram::Region;
use towpath_wire::key::NodePublic;

use crate::links::RelayHealth;
use crate::path::{Path, PathClass};
use crate::stats::Traffic;

/// How an endpoint is.
#[derive(Clone, Debug, Serialize)]
pub struct Status {
    /// The key by which peers know it, as text.
    #[serde(serialize_with = "as_text")]
    pub key: NodePublic,
    /// Its disco key, as text.
    pub disco_key: String,
    /// The region by which peers reach it; `None` while none is chosen.
    pub home: Option<u16>,
    /// The region that takes the place of the home if its relay is lost.
    pub standby: Option<u16>,
    /// The addresses of its sockets.
    pub local_addresses: Vec<SocketAddr>,
    /// The addresses under which it may be reached directly, the most useful first.
    pub direct_addresses: Vec<SocketAddr>,
    /// What the gateway has said to a request for a port. Serialised as text.
    #[serde(serialize_with = "as_text")]
    pub port_mapping: PortMapping,
    /// The relays to which there are links.
    pub relays: Vec<RelayStatus>,
    /// The peers, by key.
    pub peers: Vec<PeerStatus>,
}

/// How the link to a relay is.
#[derive(Clone, Debug, Serialize)]
pub struct RelayStatus {
    /// The region.
    pub region: u16,
    /// Whether the link is up.
    pub up: bool,
    /// The round trip to the relay in microseconds, as it was measured last.
    pub rtt_us: Option<u64>,
    /// Why the relay could not be reached the last time, or what it says of the connection.
    pub trouble: Option<String>,
}

impl RelayStatus {
    pub(crate) fn new(region: Region, health: &RelayHealth) -> Self {
        let micros = |rtt: std::time::Duration| u64::try_from(rtt.as_micros()).unwrap_or(u64::MAX);
        Self {
            region: region.0,
            up: health.is_up,
            rtt_us: health.rtt.map(micros),
            trouble: health.trouble.clone(),
        }
    }
}

/// How a peer is.
#[derive(Clone, Debug, Serialize)]
pub struct PeerStatus {
    /// Its key, as text.
    #[serde(serialize_with = "as_text")]
    pub key: NodePublic,
    /// The path to it.
    #[serde(flatten)]
    pub path: Path,
    /// The class of that path.
    pub class: PathClass,
    /// What was sent to it; a packet that goes by two ways counts once.
    pub sent: Traffic,
    /// What was received from it.
    pub received: Traffic,
}

fn as_text<S: Serializer>(value: &impl Display, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(value)
}
