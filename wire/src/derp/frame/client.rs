//! Frames from a client to a relay, and from one relay to another.

use super::kind::{FrameType, Malformed, PayloadBounds, PingData, frame};
use crate::derp::{HEADER_LEN, MAX_PACKET};
use crate::key::{KEY_LEN, NodePublic};

/// A frame from a client that has logged in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the table of the parent module has them")]
pub enum ClientFrame<'a> {
    SendPacket { to: NodePublic, packet: &'a [u8] },
    NotePreferred(bool),
    ForwardPacket { from: NodePublic, to: NodePublic, packet: &'a [u8] },
    WatchConns,
    ClosePeer(NodePublic),
    Ping(PingData),
    Pong(PingData),
}

/// Most bytes that the payload of a Ping may have; upstream closes above.
pub const MAX_PING: u32 = 1000;

/// Most bytes of payload that a relay skips of a frame whose type it does not know, as upstream. It is the longest payload
/// that a client without rights may send in a frame of a known type, so later types have as much room.
pub const MAX_UNKNOWN: u32 = (KEY_LEN + MAX_PACKET) as u32;

impl<'a> ClientFrame<'a> {
    /// The bounds of the payload of a frame from a client.
    ///
    /// They are checked before the payload is here, so that a relay never holds what it would refuse. A Pong is skipped, as
    /// are all types that the relay does not know.
    #[must_use]
    pub fn payload_bounds(kind: u8) -> PayloadBounds {
        const KEY: u32 = KEY_LEN as u32;
        const PACKET: u32 = MAX_PACKET as u32;
        // Patterns of bytes: a relay asks for each frame, and a detour by `FrameType` would cost it a second comparison.
        const SEND_PACKET: u8 = FrameType::SendPacket as u8;
        const NOTE_PREFERRED: u8 = FrameType::NotePreferred as u8;
        const FORWARD_PACKET: u8 = FrameType::ForwardPacket as u8;
        const WATCH_CONNS: u8 = FrameType::WatchConns as u8;
        const CLOSE_PEER: u8 = FrameType::ClosePeer as u8;
        const PING: u8 = FrameType::Ping as u8;
        let (least, most) = match kind {
            SEND_PACKET => (KEY, KEY + PACKET),
            NOTE_PREFERRED => (1, 1),
            FORWARD_PACKET => (2 * KEY, 2 * KEY + PACKET),
            WATCH_CONNS => (0, 0),
            CLOSE_PEER => (KEY, KEY),
            PING => (8, MAX_PING),
            _ => return PayloadBounds::Skip(MAX_UNKNOWN),
        };
        PayloadBounds::Read { least, most }
    }

    /// Decodes the payload of a frame of `kind`; `Ok(None)` for a type that a relay skips.
    ///
    /// # Errors
    ///
    /// [`Malformed`] with the frame's name when the payload is too short or too long.
    #[inline]
    pub fn decode(kind: u8, payload: &'a [u8]) -> Result<Option<Self>, Malformed> {
        // Nearly every frame is one, and is then known to be no other where this is inlined.
        if kind == FrameType::SendPacket as u8 {
            let (to, packet) = NodePublic::split_from(payload).ok_or(Malformed("SendPacket"))?;
            return Ok(Some(Self::SendPacket { to, packet: packet_of(packet, "SendPacket")? }));
        }
        Self::decode_other(kind, payload)
    }

    /// Decodes the payload of any frame but a SendPacket.
    fn decode_other(kind: u8, payload: &'a [u8]) -> Result<Option<Self>, Malformed> {
        let Some(kind) = FrameType::from_byte(kind) else { return Ok(None) };
        Ok(Some(match kind {
            FrameType::NotePreferred => match payload {
                &[byte] => Self::NotePreferred(byte != 0),
                _ => return Err(Malformed("NotePreferred")),
            },
            FrameType::ForwardPacket => {
                let (from, rest) = NodePublic::split_from(payload).ok_or(Malformed("ForwardPacket"))?;
                let (to, packet) = NodePublic::split_from(rest).ok_or(Malformed("ForwardPacket"))?;
                Self::ForwardPacket { from, to, packet: packet_of(packet, "ForwardPacket")? }
            }
            FrameType::WatchConns if payload.is_empty() => Self::WatchConns,
            FrameType::WatchConns => return Err(Malformed("WatchConns")),
            FrameType::ClosePeer => match NodePublic::split_from(payload) {
                Some((key, [])) => Self::ClosePeer(key),
                _ => return Err(Malformed("ClosePeer")),
            },
            FrameType::Ping => match payload.first_chunk() {
                Some(data) if payload.len() <= MAX_PING as usize => Self::Ping(*data),
                _ => return Err(Malformed("Ping")),
            },
            FrameType::Pong => match payload.first_chunk() {
                Some(data) => Self::Pong(*data),
                None => return Ok(None),
            },
            // The caller has decoded a SendPacket. A ClientInfo is for the login; the others are a relay's own.
            FrameType::SendPacket
            | FrameType::ClientInfo
            | FrameType::ServerKey
            | FrameType::ServerInfo
            | FrameType::RecvPacket
            | FrameType::KeepAlive
            | FrameType::PeerGone
            | FrameType::PeerPresent
            | FrameType::Health
            | FrameType::Restarting => return Ok(None),
        }))
    }

    /// Bytes of the whole frame that [`encode`](Self::encode) appends for a ForwardPacket with `packet` bytes.
    #[must_use]
    pub const fn forward_packet_len(packet: usize) -> usize {
        HEADER_LEN + 2 * KEY_LEN + packet
    }

    /// Appends the whole frame, header included.
    pub fn encode(&self, out: &mut Vec<u8>) {
        match *self {
            Self::SendPacket { to, packet } => frame(out, FrameType::SendPacket, &[to.as_bytes(), packet]),
            Self::NotePreferred(on) => frame(out, FrameType::NotePreferred, &[&[u8::from(on)]]),
            Self::ForwardPacket { from, to, packet } => {
                frame(out, FrameType::ForwardPacket, &[from.as_bytes(), to.as_bytes(), packet]);
            }
            Self::WatchConns => frame(out, FrameType::WatchConns, &[]),
            Self::ClosePeer(key) => frame(out, FrameType::ClosePeer, &[key.as_bytes()]),
            Self::Ping(data) => frame(out, FrameType::Ping, &[&data]),
            Self::Pong(data) => frame(out, FrameType::Pong, &[&data]),
        }
    }
}

fn packet_of<'a>(packet: &'a [u8], name: &'static str) -> Result<&'a [u8], Malformed> {
    if packet.len() <= MAX_PACKET { Ok(packet) } else { Err(Malformed(name)) }
}
