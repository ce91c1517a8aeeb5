//! What a node tells its driver of the paths to its peers.

use std::net::SocketAddr;
use std::time::Duration;

use towpath_wire::key::NodePublic;

use crate::datagram::{Received, Region};

/// What the driver or the application may want to know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// A peer has introduced itself by a hello over a relay: for the first time, or after it has started anew.
    Introduced {
        /// The peer.
        peer: NodePublic,
        /// The region of the relay.
        region: Region,
    },
    /// A peer is reached directly: this node's own probe was answered on the tuple, or again after the path was suspected.
    Direct {
        /// The peer.
        peer: NodePublic,
        /// Its address.
        address: SocketAddr,
    },
    /// The direct path has not answered in time. Data goes over the relay as well until a path is proven, which [`Self::Direct`] or
    /// [`Self::Lossy`] tell, or this one is given up.
    Suspected {
        /// The peer.
        peer: NodePublic,
        /// The address that is silent.
        address: SocketAddr,
    },
    /// The direct path loses so much that data goes over the relay, until it loses less. Then [`Self::Direct`] follows.
    Lossy {
        /// The peer.
        peer: NodePublic,
        /// The address at which packets are lost.
        address: SocketAddr,
    },
    /// This node is reached over other relays than before. The driver keeps links to both up.
    Home {
        /// The region by which peers reach this node.
        home: Option<Region>,
        /// The region that takes its place if its relay is lost.
        standby: Option<Region>,
    },
    /// A peer has answered a ping of [`Node::ping`](crate::Node::ping).
    Pong {
        /// The peer.
        peer: NodePublic,
        /// The way by which the ping went and the answer came.
        way: Received,
        /// The time since the ping.
        took: Duration,
    },
    /// The direct path is given up.
    Relayed {
        /// The peer.
        peer: NodePublic,
    },
}
