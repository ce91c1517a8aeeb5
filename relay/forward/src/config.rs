//! The settings that the workers share. The limits among them may change while the workers run.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use towpath_wire::key::NodePublic;

use crate::peer::Peer;
use crate::transport::TCP_USER_TIMEOUT;

/// The settings of the data plane.
#[derive(Clone, Copy, Debug)]
pub struct DataPlaneConfig {
    /// The limits at the start.
    pub limits: PlaneLimits,
    /// The interval of keep-alive frames to a client.
    pub keepalive: Duration,
    /// What a worker does while it has nothing to do.
    pub poll: PollPolicy,
    /// This relay's own key.
    pub own_key: NodePublic,
    /// Whether a login can give the right to watch. If none can, no list of keys is kept for watchers.
    pub watchable: bool,
    /// The most bytes that frames may take which wait or are unfinished, over all connections.
    pub max_frame_memory: usize,
}

/// Limits that may change while the workers run, see [`DataPlane::set_limits`](crate::DataPlane::set_limits).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PlaneLimits {
    /// How long the socket of a client may take no byte before the client is closed.
    pub write_timeout: Duration,
    /// The most connections of one key; more close the one that has been silent the longest.
    pub max_connections_per_key: usize,
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

/// [`PlaneLimits`] as the workers read them. Each holds by itself, so that a worker may see one of them changed before another.
#[derive(Debug)]
pub(crate) struct CurrentLimits {
    write_timeout_nanos: AtomicU64,
    max_connections_per_key: AtomicUsize,
    max_link_keys: AtomicUsize,
}

impl CurrentLimits {
    pub(crate) fn new(limits: PlaneLimits) -> Self {
        let current = Self {
            write_timeout_nanos: AtomicU64::default(),
            max_connections_per_key: AtomicUsize::default(),
            max_link_keys: AtomicUsize::default(),
        };
        current.set(limits);
        current
    }

    pub(crate) fn set(&self, limits: PlaneLimits) {
        let nanos = u64::try_from(limits.write_timeout.as_nanos()).unwrap_or(u64::MAX);
        self.write_timeout_nanos.store(nanos, Ordering::Relaxed);
        self.max_connections_per_key.store(limits.max_connections_per_key, Ordering::Relaxed);
        self.max_link_keys.store(limits.max_link_keys, Ordering::Relaxed);
    }

    /// How long the socket of `peer` may take no byte. A relay has as long as the kernel gives it: it carries many
    /// clients, and a new link has to learn all their keys again.
    pub(crate) fn write_timeout(&self, peer: &Peer) -> Duration {
        let timeout = Duration::from_nanos(self.write_timeout_nanos.load(Ordering::Relaxed));
        if peer.is_mesh() { timeout.max(TCP_USER_TIMEOUT) } else { timeout }
    }

    pub(crate) fn max_connections_per_key(&self) -> usize {
        self.max_connections_per_key.load(Ordering::Relaxed)
    }

    pub(crate) fn max_link_keys(&self) -> usize {
        self.max_link_keys.load(Ordering::Relaxed)
    }
}
