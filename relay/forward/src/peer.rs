//! A peer: one connection of a key as the rest of the data plane sees it, with its flags, its outbox and its outbound
//! side. The key belongs to a client, or to another relay if the connection is a link that this relay has dialled.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use towpath_relay_proto::egress::Egress;
use towpath_relay_proto::outbox::Limits;
use towpath_relay_proto::presence::Member;
use towpath_relay_proto::watch_backlog::PresenceChange;
use towpath_wire::derp::app_name::AppName;
use towpath_wire::derp::mesh::PresentFlags;

use crate::key::RouteKey;
use crate::transport::Outbound;

/// A logged-in connection.
#[derive(Debug)]
pub(crate) struct Peer {
    pub(crate) key: RouteKey,
    /// A number that no other connection of this process has had.
    pub(crate) id: u64,
    pub(crate) address: SocketAddr,
    /// What watchers are told of the connection.
    pub(crate) flags: PresentFlags,
    /// The program that the client says it is part of. Few clients say, so the others have no room for it.
    app_name: Option<Box<AppName>>,
    /// Whether packets for the key go to this connection.
    active: AtomicBool,
    /// Whether the key has other connections.
    shared: AtomicBool,
    /// The worker that owns the connection, and the connection's token there.
    owner: AtomicUsize,
    token: AtomicUsize,
    pub(crate) egress: Egress<Outbound>,
}

/// A connection in the slab of its owner, by token and number: a token is used again, a number is not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct ConnectionRef {
    pub(crate) token: usize,
    pub(crate) id: u64,
}

impl Peer {
    pub(crate) fn new(
        key: RouteKey,
        id: u64,
        address: SocketAddr,
        flags: PresentFlags,
        outbound: Outbound,
        limits: Arc<Limits>,
    ) -> Self {
        Self {
            key,
            id,
            address,
            flags,
            app_name: None,
            active: AtomicBool::new(false),
            shared: AtomicBool::new(false),
            owner: AtomicUsize::new(usize::MAX),
            token: AtomicUsize::new(usize::MAX),
            egress: Egress::new(outbound, limits),
        }
    }

    /// Notes the program that the client says it is part of.
    pub(crate) fn with_app_name(self, name: AppName) -> Self {
        Self { app_name: (!name.is_empty()).then(|| Box::new(name)), ..self }
    }

    /// Assigns the connection to the worker `owner`, where it has this token.
    pub(crate) fn assign(&self, owner: usize, token: usize) {
        self.token.store(token, Ordering::Relaxed);
        self.owner.store(owner, Ordering::Release);
    }

    /// The worker that owns the connection, and the connection's place there.
    pub(crate) fn place(&self) -> (usize, ConnectionRef) {
        let owner = self.owner.load(Ordering::Acquire);
        (owner, ConnectionRef { token: self.token.load(Ordering::Relaxed), id: self.id })
    }

    /// Whether packets for the key go to this connection. If not, the registry knows the connection that receives them.
    #[inline]
    pub(crate) fn is_active(&self) -> bool {
        self.active.load(Ordering::Acquire)
    }

    /// Whether the key has other connections. If it has, frames that this connection sends must be noted.
    #[inline]
    pub(crate) fn is_shared(&self) -> bool {
        self.shared.load(Ordering::Relaxed)
    }

    /// Whether the other end is a relay, or a client with a relay's rights.
    pub(crate) const fn is_mesh(&self) -> bool {
        self.flags.has(PresentFlags::MESH_PEER)
    }

    /// What watchers are told when the connection comes.
    pub(crate) fn arrival(&self) -> PresenceChange {
        PresenceChange::Present { address: self.address, flags: self.flags, app_name: self.app_name() }
    }

    /// The program that the client says it is part of.
    pub(crate) fn app_name(&self) -> AppName {
        self.app_name.as_deref().copied().unwrap_or_default()
    }
}

impl Member for Peer {
    fn id(&self) -> u64 {
        self.id
    }

    fn set_active(&self, active: bool) {
        self.active.store(active, Ordering::Release);
    }

    fn set_shared(&self, shared: bool) {
        self.shared.store(shared, Ordering::Relaxed);
    }
}
