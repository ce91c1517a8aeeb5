//! What a node tells its driver of the paths to its peers.

use std::net::SocketAddr;

use towpath_wire::key::NodePublic;

/// What the application may want to know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// A peer is reached directly: this node's own probe was answered on the tuple.
    Direct {
        /// The peer.
        peer: NodePublic,
        /// Its address.
        address: SocketAddr,
    },
    /// The direct path has not answered in time. Data goes over the relay as well until a path is proven.
    Suspected {
        /// The peer.
        peer: NodePublic,
        /// The address that is silent.
        address: SocketAddr,
    },
    /// The direct path is given up.
    Relayed {
        /// The peer.
        peer: NodePublic,
    },
}
