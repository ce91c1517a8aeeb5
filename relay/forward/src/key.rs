//! What a connection is registered under.

use towpath_wire::key::NodePublic;

/// The key under which connections are registered and found: the node key of the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RouteKey(NodePublic);

impl RouteKey {
    /// The key of the client with this node key.
    #[must_use]
    pub const fn new(node: NodePublic) -> Self {
        Self(node)
    }

    /// The node key, as frames carry it.
    #[must_use]
    pub const fn node(&self) -> &NodePublic {
        &self.0
    }

    /// The bytes by which caches choose a slot. Clients choose their keys, so a client can choose its slot.
    pub(crate) const fn as_bytes(&self) -> &[u8; 32] {
        self.0.as_bytes()
    }
}

impl From<NodePublic> for RouteKey {
    fn from(node: NodePublic) -> Self {
        Self(node)
    }
}
