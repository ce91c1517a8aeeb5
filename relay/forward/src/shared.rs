//! What all workers and the control plane share.

use std::sync::Arc;

use towpath_relay_proto::session::Close;

use crate::config::{CurrentLimits, DataPlaneConfig};
use crate::inbox::{OwnerRequest, WorkerInbox, WorkerMessage};
use crate::key::RouteKey;
use crate::peer::Peer;
use crate::registry::Registry;

/// The registry, the settings, and the inbox of each worker.
#[derive(Debug)]
pub(crate) struct PlaneShared {
    pub(crate) registry: Registry,
    pub(crate) config: DataPlaneConfig,
    pub(crate) limits: Arc<CurrentLimits>,
    pub(crate) inboxes: Box<[WorkerInbox]>,
}

impl PlaneShared {
    pub(crate) fn new(config: DataPlaneConfig, inboxes: Box<[WorkerInbox]>) -> Self {
        let limits = Arc::new(CurrentLimits::new(config.limits));
        Self { registry: Registry::new(config.watchable, limits.clone()), config, limits, inboxes }
    }

    /// Asks the owner of `peer` to do something to it. A connection that has no owner yet is not reached.
    pub(crate) fn ask_owner(&self, peer: &Peer, request: OwnerRequest) {
        let (owner, connection) = peer.place();
        if let Some(inbox) = self.inboxes.get(owner) {
            inbox.send(WorkerMessage::Owned(connection, request));
        }
    }

    /// Closes all connections of `key` that this relay has, each in the next turn of its owner. Returns how many there are.
    pub(crate) fn close(&self, key: &RouteKey, reason: Close) -> usize {
        let connections: Vec<Arc<Peer>> = self.registry.connections(key);
        connections.iter().for_each(|peer| self.ask_owner(peer, OwnerRequest::Close(reason)));
        connections.len()
    }
}
