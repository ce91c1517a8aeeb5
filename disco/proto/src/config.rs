//! What a node is told of itself and of its peers.

use std::net::SocketAddr;

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
    /// STUN servers, the nearest first. Two of different addresses are asked.
    pub stun: Vec<SocketAddr>,
    /// The region in which this node can be reached.
    pub home: Option<Region>,
    /// The regions in which a peer is looked for whose region is not known, the nearest first. The first four are asked.
    pub regions: Vec<Region>,
    /// Addresses under which this node is reached besides those that it finds, as of a forwarded port.
    pub addresses: Vec<SocketAddr>,
    /// Whether a candidate gets one probe and no burst, for networks that take many packets for an attack.
    pub one_probe: bool,
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
}
