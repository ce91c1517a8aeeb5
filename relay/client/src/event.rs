//! The events that a relay sends to a client.

use std::net::SocketAddr;
use std::time::Duration;

use towpath_websocket::PingPayload;
use towpath_wire::derp::app_name::AppName;
use towpath_wire::derp::frame::{GoneReason, PingData, ServerFrame};
use towpath_wire::derp::mesh::PresentFlags;
use towpath_wire::key::NodePublic;

/// An event from the relay.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A packet of a peer.
    Packet {
        /// The sender, as the relay states it.
        from: NodePublic,
        /// At most 65,536 bytes from an honest relay.
        packet: Vec<u8>,
    },
    /// A peer that was sent to cannot be reached here, or can no more.
    PeerGone {
        /// The peer.
        peer: NodePublic,
        /// Why.
        reason: GoneReason,
    },
    /// A peer has connected, or is connected. Only clients that [watch](crate::Client::watch) are told.
    PeerPresent {
        /// The peer.
        peer: NodePublic,
        /// Where it connects from, if the relay says.
        address: Option<SocketAddr>,
        /// The flags of the peer's connection.
        flags: PresentFlags,
        /// The program that the peer says it is part of.
        app_name: AppName,
    },
    /// The relay is there; it says so once a minute.
    KeepAlive,
    /// The answer to a ping with these bytes.
    Pong(PingData),
    /// What is wrong with this connection; empty when nothing is any more.
    Health(String),
    /// The relay is about to restart.
    Restarting {
        /// How long to wait before connecting again.
        reconnect_in: Duration,
        /// How long to go on trying.
        try_for: Duration,
    },
}

/// A frame, seen by the receiving side.
pub(crate) enum Received {
    Event(Event),
    /// To be answered.
    Ping(PingData),
    /// A ping of WebSocket itself, to be answered.
    WebSocketPing(PingPayload),
    /// The relay closes the WebSocket, which is to be answered. Nothing comes behind it.
    WebSocketClose,
    /// Part of a login: in fast start, a ServerKey may come when everything is known.
    Ignored,
}

impl From<ServerFrame<'_>> for Received {
    fn from(frame: ServerFrame<'_>) -> Self {
        Self::Event(match frame {
            ServerFrame::RecvPacket { from, packet } => Event::Packet { from, packet: packet.to_vec() },
            ServerFrame::PeerGone { peer, reason } => Event::PeerGone { peer, reason },
            ServerFrame::PeerPresent { peer, address, flags, app_name } => {
                Event::PeerPresent { peer, address, flags, app_name }
            }
            ServerFrame::KeepAlive => Event::KeepAlive,
            ServerFrame::Pong(data) => Event::Pong(data),
            ServerFrame::Health(text) => Event::Health(text.to_owned()),
            ServerFrame::Restarting { reconnect_in_ms, try_for_ms } => Event::Restarting {
                reconnect_in: Duration::from_millis(reconnect_in_ms.into()),
                try_for: Duration::from_millis(try_for_ms.into()),
            },
            ServerFrame::Ping(data) => return Self::Ping(data),
            ServerFrame::ServerKey(_) | ServerFrame::ServerInfo { .. } => return Self::Ignored,
        })
    }
}
