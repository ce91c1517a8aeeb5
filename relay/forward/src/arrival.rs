//! Connections on their way from the control plane to a worker.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use towpath_relay_proto::account::connections::Seat;
use towpath_relay_proto::admission::PolicyName;
use towpath_relay_proto::outbox::Limits;
use towpath_relay_proto::rights::Rights;
use towpath_relay_proto::session::{ClientSession, Close};
use towpath_wire::derp::app_name::AppName;
use towpath_wire::derp::frame::ServerFrame;
use towpath_wire::derp::mesh::PresentFlags;
use towpath_wire::key::NodePublic;

use crate::key::RouteKey;
use crate::peer::Peer;
use crate::transport::{Inbound, Transport};

/// A client that has logged in.
#[derive(Debug)]
pub struct ClientArrival<'a> {
    /// Its number, see [`crate::DataPlane::next_connection`].
    pub id: u64,
    /// The key that it has proved.
    pub key: RouteKey,
    /// Where it connects from.
    pub address: SocketAddr,
    /// What watchers are told of it.
    pub flags: PresentFlags,
    /// The program that it says it is part of, which watchers are told as well.
    pub app_name: AppName,
    /// The version of DERP that it states.
    pub version: i64,
    /// The policy that admitted it.
    pub policy: PolicyName,
    /// How its frames come and go.
    pub transport: Transport,
    /// Bytes of DERP that were read and not used. They come before what the transport holds.
    pub frames: Vec<u8>,
    /// The answer to its login, which is sent before anything else.
    pub server_info: ServerFrame<'a>,
    /// What it may ask for.
    pub rights: Rights,
    /// The bounds of what waits for it.
    pub limits: Arc<Limits>,
    /// The client said that another relay would be nearer.
    pub not_ideal: bool,
    /// When its first keep-alive is due, counted from now.
    pub first_keepalive: Duration,
    /// What it is charged to. It is given back when the connection is closed.
    pub seat: Seat,
}

/// A link to another relay that this relay has dialled, after its login.
pub struct LinkArrival {
    /// Its number, see [`crate::DataPlane::next_connection`].
    pub id: u64,
    /// The key of the other relay.
    pub relay: NodePublic,
    /// The address that was dialled.
    pub address: SocketAddr,
    /// How its frames come and go.
    pub transport: Transport,
    /// The place in the stream of frames.
    pub session: ClientSession,
    /// Bytes of DERP that were read and not used. They come before what the transport holds.
    pub frames: Vec<u8>,
    /// The bounds of what waits for the other relay.
    pub limits: Arc<Limits>,
    /// Called by a worker for each event of the link. It must not block.
    pub on_event: LinkObserver,
}

/// The observer of a link.
pub type LinkObserver = Box<dyn Fn(LinkEvent) + Send>;

/// What becomes of a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LinkEvent {
    /// The other relay announces its clients, so it accepts this relay as one of the mesh.
    Up,
    /// The link is closed, and everything that was learned on it is forgotten.
    Down(Close),
}

/// A client on its way to its owner.
#[derive(Debug)]
pub(crate) struct NewClient {
    pub(crate) peer: Arc<Peer>,
    pub(crate) inbound: Inbound,
    /// The answer to its login. Its owner pushes it, from whose pool the buffer must come.
    pub(crate) server_info: Vec<u8>,
    pub(crate) frames: Vec<u8>,
    pub(crate) traits: ClientTraits,
    pub(crate) first_keepalive: Duration,
    pub(crate) seat: Seat,
}

/// What is known of a client from its login on.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ClientTraits {
    pub(crate) rights: Rights,
    pub(crate) policy: PolicyName,
    pub(crate) version: i64,
    pub(crate) not_ideal: bool,
}

/// A link on its way to its owner.
pub(crate) struct NewLink {
    pub(crate) peer: Arc<Peer>,
    pub(crate) inbound: Inbound,
    pub(crate) session: ClientSession,
    pub(crate) frames: Vec<u8>,
    pub(crate) on_event: LinkObserver,
}

impl NewClient {
    pub(crate) fn new(arrival: ClientArrival<'_>) -> Self {
        let Transport { inbound, outbound } = arrival.transport;
        let peer =
            Peer::new(arrival.key, arrival.id, arrival.address, arrival.flags, outbound, arrival.limits)
                .with_app_name(arrival.app_name);
        let mut server_info = Vec::new();
        arrival.server_info.encode(&mut server_info);
        Self {
            peer: Arc::new(peer),
            inbound,
            server_info,
            frames: arrival.frames,
            traits: ClientTraits {
                rights: arrival.rights,
                policy: arrival.policy,
                version: arrival.version,
                not_ideal: arrival.not_ideal,
            },
            first_keepalive: arrival.first_keepalive,
            seat: arrival.seat,
        }
    }
}

impl NewLink {
    pub(crate) fn new(arrival: LinkArrival) -> Self {
        let Transport { inbound, outbound } = arrival.transport;
        let (key, flags) = (arrival.relay.into(), PresentFlags::MESH_PEER);
        let peer = Peer::new(key, arrival.id, arrival.address, flags, outbound, arrival.limits);
        let (session, frames, on_event) = (arrival.session, arrival.frames, arrival.on_event);
        Self { peer: Arc::new(peer), inbound, session, frames, on_event }
    }
}

impl fmt::Debug for LinkArrival {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LinkArrival").field("relay", &self.relay).finish_non_exhaustive()
    }
}

impl fmt::Debug for NewLink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NewLink").field("peer", &self.peer).finish_non_exhaustive()
    }
}
