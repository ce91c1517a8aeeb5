//! Setting an endpoint up.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use rustls::RootCertStore;
use towpath_disco::datagram::Region;
use towpath_disco::{Node, NodeConfig, PeerConfig};
use towpath_wire::derp::token::Token;
use towpath_wire::key::NodePrivate;
use tracing::{debug, warn};

use crate::clock::Clock;
use crate::datagrams::{Datagrams, UdpDatagrams};
use crate::endpoint::Endpoint;
use crate::interfaces::Network;
use crate::links::{LinkContext, Links};
use crate::packets::PacketSink;
use crate::relay_map::{RelayMap, RelayTrust};
use crate::shared::Shared;
use crate::upnp::{Orders, Upnp, serve};

/// What an endpoint is to be.
#[derive(Debug, Default)]
#[must_use = "nothing is set up before `bind`"]
pub struct Builder {
    key: Option<NodePrivate>,
    map: RelayMap,
    peers: Vec<PeerConfig>,
    port: u16,
    bound: Vec<SocketAddr>,
    sockets: Vec<Arc<dyn Datagrams>>,
    home: Option<Region>,
    addresses: Vec<SocketAddr>,
    token: Option<Token>,
    roots: Option<Arc<RootCertStore>>,
    ignored_interfaces: Vec<String>,
    /// Whether the gateway is left alone.
    without_port_mapping: bool,
    one_probe: bool,
    websocket: bool,
    sink: Option<Arc<dyn PacketSink>>,
    mark: Option<u32>,
}

/// Why an endpoint could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// No relay map was given.
    #[error("an endpoint needs a relay map: without a relay no peer can be found")]
    NoRelays,
    /// The pinned home is not on the map.
    #[error("region {0} is to be the home, and is not on the relay map")]
    UnknownHome(u16),
    /// The system refuses a socket.
    #[error("cannot bind the UDP socket {address}")]
    Socket {
        /// The address.
        address: SocketAddr,
        /// What the system says.
        source: io::Error,
    },
    /// The system refuses to mark packets.
    #[error("cannot mark packets with {mark:#x}, which needs CAP_NET_ADMIN")]
    Mark {
        /// The mark.
        mark: u32,
        /// What the system says.
        source: io::Error,
    },
    /// The system gives no randomness.
    #[error("the system gives no random bytes")]
    Random(#[source] getrandom::Error),
}

impl Builder {
    /// The key by which peers know this endpoint. Without one, a new key is made, which lasts as long as the endpoint.
    pub fn secret_key(mut self, key: NodePrivate) -> Self {
        self.key = Some(key);
        self
    }

    /// The relays.
    pub fn relay_map(mut self, map: RelayMap) -> Self {
        self.map = map;
        self
    }

    /// A peer that is known from the start. See [`Endpoint::add_peer`].
    pub fn peer(mut self, peer: PeerConfig) -> Self {
        self.peers.push(peer);
        self
    }

    /// The UDP port for both address families; 0, the default, for one that the system chooses.
    pub const fn port(mut self, port: u16) -> Self {
        self.port = port;
        self
    }

    /// Binds UDP to this address alone instead of to all of this host's. To be called once for each address family.
    pub fn bind_address(mut self, address: SocketAddr) -> Self {
        self.bound.push(address);
        self
    }

    /// Uses these datagrams instead of UDP sockets of the system, one for each address family.
    pub fn datagrams(mut self, socket: Arc<dyn Datagrams>) -> Self {
        self.sockets.push(socket);
        self
    }

    /// Makes this region the home however far away it is.
    pub const fn home(mut self, region: Region) -> Self {
        self.home = Some(region);
        self
    }

    /// An address under which this endpoint is reached besides those that it finds, as of a port that was forwarded by hand.
    pub fn address(mut self, address: SocketAddr) -> Self {
        self.addresses.push(address);
        self
    }

    /// The token by which relays admit this endpoint.
    pub fn relay_token(mut self, token: Token) -> Self {
        self.token = Some(token);
        self
    }

    /// Trusts these roots for the certificates of relays that are not pinned, instead of those of the system.
    pub fn roots(mut self, roots: Arc<RootCertStore>) -> Self {
        self.roots = Some(roots);
        self
    }

    /// Does not offer the addresses of the interface with this name, as of the tunnel that carries the application's own packets.
    pub fn ignore_interface(mut self, name: impl Into<String>) -> Self {
        self.ignored_interfaces.push(name.into());
        self
    }

    /// Whether the gateway is asked to forward a port (PCP, NAT-PMP, UPnP-IGD). It is unless this says otherwise.
    pub const fn port_mapping(mut self, port_mapping: bool) -> Self {
        self.without_port_mapping = !port_mapping;
        self
    }

    /// Sends one probe to each candidate instead of a burst, for networks that take many packets for an attack.
    pub const fn one_probe(mut self) -> Self {
        self.one_probe = true;
        self
    }

    /// Speaks DERP to relays in WebSocket messages, for proxies on the way that let no other upgrade of HTTP through. An HTTP proxy that
    /// the environment names (`HTTPS_PROXY`, `NO_PROXY`) is used in either case.
    pub const fn websocket(mut self) -> Self {
        self.websocket = true;
        self
    }

    /// Marks all packets of this endpoint for the routing rules of this host (`SO_MARK`), those to relays included, so that a tunnel
    /// that takes all other packets does not take these. Needs CAP_NET_ADMIN. Names of relays are looked up without it: a map for such
    /// a host gives addresses.
    pub const fn mark(mut self, mark: u32) -> Self {
        self.mark = Some(mark);
        self
    }

    /// Gives the packets of peers to `sink` as they come: nothing is copied, and [`Endpoint::recv`] gets none.
    pub fn deliver_to(mut self, sink: Arc<dyn PacketSink>) -> Self {
        self.sink = Some(sink);
        self
    }

    /// Sets the endpoint up. To be called on a runtime of tokio, in which its tasks run.
    ///
    /// # Errors
    ///
    /// See [`BindError`].
    pub async fn bind(self) -> Result<Endpoint, BindError> {
        if let Some(home) = self.home.filter(|home| self.map.region(*home).is_none()) {
            return Err(BindError::UnknownHome(home.0));
        }
        let relays = self.map.resolve().await;
        if relays.is_empty() {
            return Err(BindError::NoRelays);
        }
        let key = match self.key {
            Some(key) => key,
            None => NodePrivate::from_random(random_bytes()?),
        };
        let sockets = if self.sockets.is_empty() {
            bind_sockets(&self.bound, self.port, self.mark)?
        } else {
            self.sockets
        };
        let clock = Clock::start();
        let node = Node::new(NodeConfig {
            key: key.clone(),
            seed: random_bytes()?,
            relays,
            home: self.home,
            regions: Vec::new(),
            addresses: self.addresses,
            one_probe: self.one_probe,
        });
        let public = key.public();
        let trust = RelayTrust {
            roots: self.roots.unwrap_or_else(system_roots),
            token: self.token,
            websocket: self.websocket,
            mark: self.mark,
        };
        let map = self.map;
        let (upnp, orders) = Upnp::new();
        let shared = Arc::new_cyclic(|shared| {
            let links = Links::new(LinkContext { key, map, trust, shared: shared.clone() });
            Shared::new(node, clock, sockets, links, self.sink, upnp)
        });
        for socket in &shared.sockets {
            // To the runtime, a new socket is full until it has looked, and the first requests to STUN servers and to the gateway would be
            // lost. An error comes again when something is sent.
            _ = socket.writable().await;
        }
        let endpoint = Endpoint::new(public, shared.clone());
        for peer in &self.peers {
            endpoint.add_peer(peer);
        }
        start(&shared, self.ignored_interfaces, (!self.without_port_mapping).then_some(orders));
        Ok(endpoint)
    }
}

/// Starts the tasks of an endpoint. `orders`: to the gateway, if it is asked for a port.
fn start(shared: &Arc<Shared>, ignored: Vec<String>, orders: Option<Orders>) {
    let maps_ports = orders.is_some();
    if let Some(orders) = orders {
        shared.spawn(serve(shared.clone(), orders));
    }
    let [home, standby] = *shared.homes.borrow();
    shared.links.keep(home, standby);
    let own: Vec<_> = shared.sockets.iter().filter_map(|socket| socket.interfaces()).flatten().collect();
    if own.is_empty() {
        shared.spawn(shared.clone().follow_network(ignored, maps_ports));
    } else {
        shared.set_network(&Network { addresses: own, gateway: None }, maps_ports);
    }
    for socket in &shared.sockets {
        shared.spawn(shared.clone().receive(socket.clone()));
    }
    shared.spawn(shared.clone().keep_time());
}

/// Binds the sockets of both families, or those to the addresses of `bound`.
fn bind_sockets(
    bound: &[SocketAddr],
    port: u16,
    mark: Option<u32>,
) -> Result<Vec<Arc<dyn Datagrams>>, BindError> {
    let bind = |address: SocketAddr| {
        let socket = UdpDatagrams::bind(address).map_err(|source| BindError::Socket { address, source })?;
        if let Some(mark) = mark {
            socket.set_mark(mark).map_err(|source| BindError::Mark { mark, source })?;
        }
        Ok(socket)
    };
    let shared = |socket: UdpDatagrams| Arc::new(socket) as Arc<dyn Datagrams>;
    if !bound.is_empty() {
        return bound.iter().map(|address| bind(*address).map(shared)).collect();
    }
    let first = bind(SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), port));
    // The same port for both families, where it is free, is easier to let through a firewall.
    let wanted = first.as_ref().map_or(port, |socket| socket.local_addr().port());
    let any = |port| SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), port);
    let second = bind(any(wanted)).or_else(|error| if port == 0 { bind(any(0)) } else { Err(error) });
    match (first, second) {
        (Err(error), Err(_)) => Err(error),
        (first, second) => {
            for error in [first.as_ref().err(), second.as_ref().err()].into_iter().flatten() {
                debug!(%error, "an address family is not used");
            }
            Ok(first.into_iter().chain(second).map(shared).collect())
        }
    }
}

fn random_bytes() -> Result<[u8; 32], BindError> {
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes).map_err(BindError::Random)?;
    Ok(bytes)
}

/// The roots that this system trusts.
fn system_roots() -> Arc<RootCertStore> {
    let found = rustls_native_certs::load_native_certs();
    for error in &found.errors {
        warn!(%error, "cannot read a root certificate of this system");
    }
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(found.certs);
    Arc::new(roots)
}
