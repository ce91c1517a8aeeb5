//! Frames from a relay to a client, or to a watcher.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use super::kind::{FrameType, Malformed, PayloadBounds, PingData, frame};
use crate::derp::app_name::{AppName, MAX_APP_NAME};
use crate::derp::mesh::PresentFlags;
use crate::derp::{HEADER_LEN, MAGIC, MAX_CLIENT_FRAME};
use crate::key::{KEY_LEN, NodePublic};

/// The reason for which a relay says that a peer is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GoneReason {
    /// The peer was here, and left.
    Disconnected,
    /// The peer is not known here.
    NotHere,
    /// A reason that this version does not know.
    Other(u8),
}

impl From<u8> for GoneReason {
    fn from(byte: u8) -> Self {
        match byte {
            0 => Self::Disconnected,
            1 => Self::NotHere,
            other => Self::Other(other),
        }
    }
}

impl From<GoneReason> for u8 {
    fn from(reason: GoneReason) -> Self {
        match reason {
            GoneReason::Disconnected => 0,
            GoneReason::NotHere => 1,
            GoneReason::Other(byte) => byte,
        }
    }
}

/// A frame from a relay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the table of the parent module has them")]
pub enum ServerFrame<'a> {
    ServerKey(NodePublic),
    ServerInfo {
        nonce: &'a [u8; 24],
        sealed: &'a [u8],
    },
    RecvPacket {
        from: NodePublic,
        packet: &'a [u8],
    },
    KeepAlive,
    PeerGone {
        peer: NodePublic,
        reason: GoneReason,
    },
    /// Where the address is not known it is all zero on the wire.
    PeerPresent {
        peer: NodePublic,
        address: Option<SocketAddr>,
        flags: PresentFlags,
        app_name: AppName,
    },
    Ping(PingData),
    Pong(PingData),
    Health(&'a str),
    Restarting {
        reconnect_in_ms: u32,
        try_for_ms: u32,
    },
}

impl<'a> ServerFrame<'a> {
    /// The bounds of the payload of a frame from a relay.
    #[must_use]
    pub const fn payload_bounds(kind: u8) -> PayloadBounds {
        const MOST: u32 = MAX_CLIENT_FRAME as u32;
        match FrameType::from_byte(kind) {
            Some(
                FrameType::ServerKey
                | FrameType::ServerInfo
                | FrameType::RecvPacket
                | FrameType::KeepAlive
                | FrameType::PeerGone
                | FrameType::PeerPresent
                | FrameType::Ping
                | FrameType::Pong
                | FrameType::Health
                | FrameType::Restarting,
            ) => PayloadBounds::Read { least: 0, most: MOST },
            Some(
                FrameType::ClientInfo
                | FrameType::SendPacket
                | FrameType::NotePreferred
                | FrameType::ForwardPacket
                | FrameType::WatchConns
                | FrameType::ClosePeer,
            )
            | None => PayloadBounds::Skip(MOST),
        }
    }

    /// Decodes the payload of a frame of `kind`; `Ok(None)` for a type that a client skips.
    ///
    /// # Errors
    ///
    /// [`Malformed`] with the frame's name when the payload does not have its layout.
    pub fn decode(kind: u8, payload: &'a [u8]) -> Result<Option<Self>, Malformed> {
        let Some(kind) = FrameType::from_byte(kind) else { return Ok(None) };
        Ok(Some(match kind {
            FrameType::ServerKey => match payload.strip_prefix(&MAGIC).and_then(NodePublic::split_from) {
                Some((key, _ignored)) => Self::ServerKey(key),
                None => return Err(Malformed("ServerKey")),
            },
            FrameType::ServerInfo => match payload.split_first_chunk() {
                Some((nonce, sealed)) => Self::ServerInfo { nonce, sealed },
                None => return Err(Malformed("ServerInfo")),
            },
            FrameType::RecvPacket => match NodePublic::split_from(payload) {
                Some((from, packet)) => Self::RecvPacket { from, packet },
                None => return Err(Malformed("RecvPacket")),
            },
            FrameType::KeepAlive => Self::KeepAlive,
            FrameType::PeerGone => match NodePublic::split_from(payload) {
                // Relays of old sent no reason; then the peer was here and left.
                Some((peer, rest)) => {
                    Self::PeerGone { peer, reason: rest.first().copied().unwrap_or_default().into() }
                }
                None => return Err(Malformed("PeerGone")),
            },
            FrameType::PeerPresent => match NodePublic::split_from(payload) {
                Some((peer, rest)) => peer_present(peer, rest),
                None => return Err(Malformed("PeerPresent")),
            },
            FrameType::Ping => Self::Ping(*payload.first_chunk().ok_or(Malformed("Ping"))?),
            FrameType::Pong => Self::Pong(*payload.first_chunk().ok_or(Malformed("Pong"))?),
            FrameType::Health => Self::Health(std::str::from_utf8(payload).map_err(|_| Malformed("Health"))?),
            FrameType::Restarting => match payload.first_chunk::<8>() {
                Some(&[a, b, c, d, e, f, g, h]) => Self::Restarting {
                    reconnect_in_ms: u32::from_be_bytes([a, b, c, d]),
                    try_for_ms: u32::from_be_bytes([e, f, g, h]),
                },
                None => return Err(Malformed("Restarting")),
            },
            FrameType::ClientInfo
            | FrameType::SendPacket
            | FrameType::NotePreferred
            | FrameType::ForwardPacket
            | FrameType::WatchConns
            | FrameType::ClosePeer => return Ok(None),
        }))
    }

    /// Appends the whole frame, header included.
    pub fn encode(&self, out: &mut Vec<u8>) {
        match *self {
            Self::ServerKey(key) => frame(out, FrameType::ServerKey, &[&MAGIC, key.as_bytes()]),
            Self::ServerInfo { nonce, sealed } => frame(out, FrameType::ServerInfo, &[nonce, sealed]),
            Self::RecvPacket { from, packet } => Self::encode_recv_packet(out, &from, packet),
            Self::KeepAlive => frame(out, FrameType::KeepAlive, &[]),
            Self::PeerGone { peer, reason } => {
                frame(out, FrameType::PeerGone, &[peer.as_bytes(), &[reason.into()]]);
            }
            Self::PeerPresent { peer, address, flags, app_name } => {
                let address = address.unwrap_or((Ipv6Addr::UNSPECIFIED, 0).into());
                let ip = match address.ip() {
                    IpAddr::V4(ip) => ip.to_ipv6_mapped(),
                    IpAddr::V6(ip) => ip,
                };
                let (port, numbers) = (address.port().to_be_bytes(), [flags.as_byte(), app_name.len()]);
                let parts: [&[u8]; 5] = [peer.as_bytes(), &ip.octets(), &port, &numbers, app_name.as_bytes()];
                frame(out, FrameType::PeerPresent, &parts);
            }
            Self::Ping(data) => frame(out, FrameType::Ping, &[&data]),
            Self::Pong(data) => frame(out, FrameType::Pong, &[&data]),
            Self::Health(text) => frame(out, FrameType::Health, &[text.as_bytes()]),
            Self::Restarting { reconnect_in_ms, try_for_ms } => frame(
                out,
                FrameType::Restarting,
                &[&reconnect_in_ms.to_be_bytes(), &try_for_ms.to_be_bytes()],
            ),
        }
    }

    /// Encodes a RecvPacket like [`encode`](Self::encode), inlined because a relay does it for every packet.
    #[inline]
    pub fn encode_recv_packet(out: &mut Vec<u8>, from: &NodePublic, packet: &[u8]) {
        frame(out, FrameType::RecvPacket, &[from.as_bytes(), packet]);
    }

    /// Most bytes of the whole frame that [`encode`](Self::encode) appends for a PeerPresent.
    pub const MAX_PEER_PRESENT: usize = HEADER_LEN + KEY_LEN + 16 + 2 + 1 + 1 + MAX_APP_NAME;

    /// Bytes of the whole frame that [`encode`](Self::encode) appends for a RecvPacket with `packet` bytes.
    #[must_use]
    pub const fn recv_packet_len(packet: usize) -> usize {
        HEADER_LEN + KEY_LEN + packet
    }
}

/// What follows the key of a PeerPresent. Older relays send no name, or no flags either, or nothing at all. A name that is
/// cut off or not one is taken for none, as upstream does.
fn peer_present<'a>(peer: NodePublic, rest: &[u8]) -> ServerFrame<'a> {
    let (mut address, mut flags, mut app_name) = Default::default();
    if let Some((ip, rest)) = rest.split_first_chunk::<16>()
        && let Some((port, rest)) = rest.split_first_chunk::<2>()
    {
        let ip = Ipv6Addr::from(*ip);
        if !ip.is_unspecified() {
            address = Some(SocketAddr::new(ip.to_canonical(), u16::from_be_bytes(*port)));
        }
        flags = PresentFlags::from_byte(rest.first().copied().unwrap_or_default());
        if let Some((&len, name)) = rest.get(1..).and_then(<[u8]>::split_first) {
            app_name = name.get(..len.into()).and_then(AppName::from_bytes).unwrap_or_default();
        }
    }
    ServerFrame::PeerPresent { peer, address, flags, app_name }
}
