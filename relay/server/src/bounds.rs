//! The bounds that the configuration sets, as the parts of the relay take them, at the start and when they are read again.

use std::sync::Arc;

use towpath_relay_forward::{DataPlane, PlaneLimits, hold_above};
use towpath_relay_proto::account::connections::ConnectionBounds;
use towpath_relay_proto::account::places::PlaceBounds;
use towpath_relay_proto::outbox::{Limits, SharedLimits, UPSTREAM_PACKETS};
use towpath_service::limits;
use towpath_wire::sync::write;
use tracing::warn;

use crate::config::{Config, LoginLimits, room_for_connections};
use crate::control::Frontend;

/// The limits of the data plane that may change while it runs.
pub(crate) fn plane_limits(config: &Config) -> PlaneLimits {
    PlaneLimits {
        write_timeout: config.outbox.write_timeout,
        max_connections_per_key: config.login.max_connections_per_key,
        max_link_keys: config.mesh.max_keys,
    }
}

/// The bounds of what waits for a client or another relay.
pub(crate) fn outbox_limits(config: &Config) -> Limits {
    let outbox = &config.outbox;
    Limits {
        bytes: outbox.bytes,
        packets: UPSTREAM_PACKETS,
        disco_bytes: outbox.disco_bytes,
        age: outbox.age,
        hold_above: hold_above(outbox.bytes),
    }
}

/// The bounds on connections, within what the process may open.
pub(crate) fn account_bounds(login: &LoginLimits, workers: usize) -> (PlaceBounds, ConnectionBounds) {
    let files = limits::open_files();
    let room = room_for_connections(files, workers);
    let bounds = login.connection_bounds(files, workers);
    if bounds.all > room {
        warn!(
            max_connections = bounds.all,
            ?files,
            "login.max_connections is more than the limit on open files leaves room for, {room}: raise the limit, or else \
             health checks and links of the mesh fail when clients use it up"
        );
    }
    (login.place_bounds(), bounds)
}

/// The parts of a running relay that have bounds.
#[derive(Debug)]
pub(crate) struct Bounded {
    pub(crate) frontend: Arc<Frontend>,
    pub(crate) plane: Arc<DataPlane>,
    pub(crate) outbox: SharedLimits,
    pub(crate) workers: usize,
}

impl Bounded {
    /// Puts the bounds of a configuration in force. Connections that are there stay, and keep the bounds of their outboxes.
    pub(crate) fn set(&self, config: &Config) {
        let (places, connections) = account_bounds(&config.login, self.workers);
        self.frontend.accounts.set_bounds(places, connections);
        *write(&self.frontend.limits) = Arc::new(config.login.clone());
        self.outbox.replace(outbox_limits(config));
        self.plane.set_limits(plane_limits(config));
    }
}
