//! What a node is told of itself and of its peers.

use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};

use towpath_wire::disco::key::DiscoPublic;
use towpath_wire::key::{NodePrivate, NodePublic};

use crate::datagram::Region;

/// A node.
#[derive(Clone)]
pub struct NodeConfig {
    /// The node key. Hellos are sealed with it.
    pub key: NodePrivate,
    /// 32 random bytes, from which the disco key, nonces and transaction ids are drawn. Another at each start.
    pub seed: [u8; 32],
    /// The regions that this node can reach. The nearest becomes its home, and the second nearest is kept ready.
    pub relays: Vec<RelayConfig>,
    /// The region that is the home however far away it is; `None` for the nearest.
    pub home: Option<Region>,
    /// The regions in which a peer is looked for whose region is not known, after the home. Four are asked in all; the nearest ones
    /// if none are named.
    pub regions: Vec<Region>,
    /// Addresses under which this node is reached besides those that it finds, as of a forwarded port.
    pub addresses: Vec<SocketAddr>,
    /// Whether a candidate gets one probe and no burst, for networks that take many packets for an attack.
    pub one_probe: bool,
}

/// A region.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RelayConfig {
    /// Its number.
    pub region: Region,
    /// The STUN servers beside its relay. The first one of an address family tells how near the region is.
    pub stun: Vec<SocketAddr>,
}

/// The gateway of this host's network, which may forward a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GatewayConfig {
    /// Its address, that of the default route for IPv4.
    pub address: Ipv4Addr,
    /// The address from which this host reaches it, with the port of the UDP socket.
    pub local: SocketAddrV4,
}

/// A peer.
#[derive(Clone, Debug)]
pub struct PeerConfig {
    /// Its node key.
    pub key: NodePublic,
    /// The region in which it can be reached, if that is known.
    pub region: Option<Region>,
    /// Its disco key, where a control plane knows it. Such a peer gets the messages of stock clients and no hello.
    pub disco: Option<DiscoPublic>,
    /// Its addresses, where a control plane knows them.
    pub addresses: Vec<SocketAddr>,
    /// Whether it is to be reached over relays alone. It learns no address of this node then, and is sent nothing on UDP.
    pub is_relay_only: bool,
}

impl PeerConfig {
    /// A peer of which no more than its key is known.
    #[must_use]
    pub const fn new(key: NodePublic) -> Self {
        Self { key, region: None, disco: None, addresses: Vec::new(), is_relay_only: false }
    }

    /// The addresses that may be probed.
    pub(crate) fn probed(&self) -> &[SocketAddr] {
        if self.is_relay_only { &[] } else { &self.addresses }
    }
}
