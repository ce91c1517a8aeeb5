//! What the workers share and never change.

use std::time::Duration;

use towpath_wire::key::NodePublic;

use crate::peer::Peer;
use crate::transport::TCP_USER_TIMEOUT;

/// The settings of the data plane.
#[derive(Clone, Copy, Debug)]
pub struct DataPlaneConfig {
    /// How long the socket of a client may take no byte before the client is closed.
    pub write_timeout: Duration,
    /// The interval of keep-alive frames to a client.
    pub keepalive: Duration,
    /// What a worker does while it has nothing to do.
    pub poll: PollPolicy,
    /// This relay's own key.
    pub own_key: NodePublic,
    /// Whether a login can give the right to watch. If none can, no list of keys is kept for watchers.
    pub watchable: bool,
    /// The most connections of one key; more close the one that has been silent the longest.
    pub max_connections_per_key: usize,
    /// The most bytes that frames may take which wait or are unfinished, over all connections.
    pub max_frame_memory: usize,
    /// The keys that one other relay may announce on a link. A link with more is closed.
    pub max_link_keys: usize,
}

/// What a worker does while it has nothing to do. At most one of the two is on; with none it sleeps until an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PollPolicy {
    /// How long it polls before it sleeps, up to 10 ms; zero for not at all.
    pub busy_poll: Duration,
    /// How long it lets packets gather while it is busy, up to 1 ms; zero for not at all.
    pub gather: Duration,
}

impl DataPlaneConfig {
    /// How long the socket of `peer` may take no byte. A relay has as long as the kernel gives it: it carries many
    /// clients, and a new link has to learn all their keys again.
    pub(crate) fn write_timeout(&self, peer: &Peer) -> Duration {
        if peer.is_mesh() { self.write_timeout.max(TCP_USER_TIMEOUT) } else { self.write_timeout }
    }
}
