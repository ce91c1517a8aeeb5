//! Frames: type, length, payload.
//!
//! | type | name | direction | payload |
//! |---|---|---|---|
//! | 0x01 | ServerKey | to client | magic\[8\], key\[32\], bytes to ignore |
//! | 0x02 | ClientInfo | to server | key\[32\], nonce\[24\], box |
//! | 0x03 | ServerInfo | to client | nonce\[24\], box |
//! | 0x04 | SendPacket | to server | destination\[32\], packet |
//! | 0x05 | RecvPacket | to client | source\[32\], packet |
//! | 0x06 | KeepAlive | to client | empty |
//! | 0x07 | NotePreferred | to server | one byte, zero or not |
//! | 0x08 | PeerGone | to client | key\[32\], reason u8 |
//! | 0x09 | PeerPresent | to watcher | key\[32\], IP\[16\], port u16, flags u8 |
//! | 0x0a | ForwardPacket | to server, mesh | source\[32\], destination\[32\], packet |
//! | 0x10 | WatchConns | to server, mesh | empty |
//! | 0x11 | ClosePeer | to server, mesh | key\[32\] |
//! | 0x12 | Ping | either | 8 bytes |
//! | 0x13 | Pong | either | the 8 bytes of the ping |
//! | 0x14 | Health | to client | UTF-8 text, empty = healthy |
//! | 0x15 | Restarting | to client | reconnect in ms u32, try for ms u32 |
//!
//! Integers are big endian. Any other type is skipped by both sides.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use super::mesh::PresentFlags;
use super::{HEADER_LEN, MAGIC, MAX_CLIENT_FRAME, MAX_PACKET};
use crate::key::{KEY_LEN, NodePublic};

/// Declares the types of frames by their first bytes, which stand nowhere else.
macro_rules! frame_types {
    ($($name:ident = $byte:literal,)+) => {
        /// The first byte of a frame.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[repr(u8)]
        #[allow(missing_docs, reason = "the table above has them")]
        pub enum FrameType { $($name = $byte,)+ }

        impl FrameType {
            /// The type of a frame that starts with `byte`; `None` for a type that this version does not know.
            #[must_use]
            pub const fn from_byte(byte: u8) -> Option<Self> {
                match byte {
                    $($byte => Some(Self::$name),)+
                    _ => None,
                }
            }
        }
    };
}

frame_types! {
    ServerKey = 0x01,
    ClientInfo = 0x02,
    ServerInfo = 0x03,
    SendPacket = 0x04,
    RecvPacket = 0x05,
    KeepAlive = 0x06,
    NotePreferred = 0x07,
    PeerGone = 0x08,
    PeerPresent = 0x09,
    ForwardPacket = 0x0a,
    WatchConns = 0x10,
    ClosePeer = 0x11,
    Ping = 0x12,
    Pong = 0x13,
    Health = 0x14,
    Restarting = 0x15,
}

/// A frame's header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// The type as it came; it may be one that nobody knows.
    pub kind: u8,
    /// Bytes of payload that follow.
    pub len: u32,
}

impl Header {
    /// The header of a frame of `kind` with `len` bytes of payload.
    ///
    /// # Panics
    ///
    /// When `len` does not fit in 32 bits, which no frame of this protocol comes near.
    #[must_use]
    pub fn new(kind: FrameType, len: usize) -> Self {
        Self { kind: kind as u8, len: u32::try_from(len).expect("a frame is shorter than 4 GiB") }
    }

    /// Reads the header at the front of `bytes`; `None` when fewer than five bytes are there.
    #[must_use]
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let &[kind, a, b, c, d] = bytes.first_chunk::<HEADER_LEN>()?;
        Some(Self { kind, len: u32::from_be_bytes([a, b, c, d]) })
    }

    /// The five bytes.
    #[must_use]
    pub const fn encode(self) -> [u8; HEADER_LEN] {
        let [a, b, c, d] = self.len.to_be_bytes();
        [self.kind, a, b, c, d]
    }
}

/// Why a relay says that a peer is gone.
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

/// The eight bytes that a Ping carries and its Pong returns.
pub type PingData = [u8; 8];

/// A payload that does not have its frame's layout.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
#[error("malformed {0} frame")]
pub struct Malformed(pub &'static str);

/// A frame from a client that has logged in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the table above has them")]
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

impl<'a> ClientFrame<'a> {
    /// The bounds of the payload of a frame that a relay understands, or `None` when it skips the frame.
    ///
    /// They are checked before the payload is here, so that a relay never holds what it would refuse. A Pong may be
    /// anything: it is skipped, as are all unknown types.
    #[must_use]
    pub fn payload_bounds(kind: u8) -> Option<(u32, u32)> {
        const KEY: u32 = KEY_LEN as u32;
        const PACKET: u32 = MAX_PACKET as u32;
        // Patterns of bytes: a relay asks for each frame, and a detour by `FrameType` would cost it a second comparison.
        const SEND_PACKET: u8 = FrameType::SendPacket as u8;
        const NOTE_PREFERRED: u8 = FrameType::NotePreferred as u8;
        const FORWARD_PACKET: u8 = FrameType::ForwardPacket as u8;
        const WATCH_CONNS: u8 = FrameType::WatchConns as u8;
        const CLOSE_PEER: u8 = FrameType::ClosePeer as u8;
        const PING: u8 = FrameType::Ping as u8;
        match kind {
            SEND_PACKET => Some((KEY, KEY + PACKET)),
            NOTE_PREFERRED => Some((1, 1)),
            FORWARD_PACKET => Some((2 * KEY, 2 * KEY + PACKET)),
            WATCH_CONNS => Some((0, 0)),
            CLOSE_PEER => Some((KEY, KEY)),
            PING => Some((8, MAX_PING)),
            _ => None,
        }
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

/// A frame from a relay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the table above has them")]
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
    /// The bounds of the payload of a frame that a client understands, or `None` when it skips the frame.
    #[must_use]
    pub const fn payload_bounds(kind: u8) -> Option<(u32, u32)> {
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
            ) => Some((0, MAX_CLIENT_FRAME as u32)),
            Some(
                FrameType::ClientInfo
                | FrameType::SendPacket
                | FrameType::NotePreferred
                | FrameType::ForwardPacket
                | FrameType::WatchConns
                | FrameType::ClosePeer,
            )
            | None => None,
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
            Self::PeerPresent { peer, address, flags } => {
                let address = address.unwrap_or((Ipv6Addr::UNSPECIFIED, 0).into());
                let ip = match address.ip() {
                    IpAddr::V4(ip) => ip.to_ipv6_mapped(),
                    IpAddr::V6(ip) => ip,
                };
                frame(
                    out,
                    FrameType::PeerPresent,
                    &[peer.as_bytes(), &ip.octets(), &address.port().to_be_bytes(), &[flags.as_byte()]],
                );
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

    /// What [`encode`](Self::encode) does for a RecvPacket, inlined: a relay does it for every packet.
    #[inline]
    pub fn encode_recv_packet(out: &mut Vec<u8>, from: &NodePublic, packet: &[u8]) {
        frame(out, FrameType::RecvPacket, &[from.as_bytes(), packet]);
    }

    /// Bytes of the whole frame that [`encode`](Self::encode) appends for a PeerPresent.
    pub const PEER_PRESENT_LEN: usize = HEADER_LEN + KEY_LEN + 16 + 2 + 1;

    /// Bytes of the whole frame that [`encode`](Self::encode) appends for a RecvPacket with `packet` bytes.
    #[must_use]
    pub const fn recv_packet_len(packet: usize) -> usize {
        HEADER_LEN + KEY_LEN + packet
    }
}

/// What follows the key of a PeerPresent. Relays of old sent no flags, or nothing at all.
fn peer_present<'a>(peer: NodePublic, rest: &[u8]) -> ServerFrame<'a> {
    let mut address = None;
    let mut flags = PresentFlags::default();
    if let Some((ip, rest)) = rest.split_first_chunk::<16>()
        && let Some((port, rest)) = rest.split_first_chunk::<2>()
    {
        let ip = Ipv6Addr::from(*ip);
        if !ip.is_unspecified() {
            address = Some(SocketAddr::new(ip.to_canonical(), u16::from_be_bytes(*port)));
        }
        flags = PresentFlags::from_byte(rest.first().copied().unwrap_or_default());
    }
    ServerFrame::PeerPresent { peer, address, flags }
}

/// Appends a frame whose payload is the concatenation of `parts`.
#[inline(always)]
pub fn frame(out: &mut Vec<u8>, kind: FrameType, parts: &[&[u8]]) {
    let len = parts.iter().map(|part| part.len()).sum();
    out.reserve(HEADER_LEN + len);
    out.extend_from_slice(&Header::new(kind, len).encode());
    for part in parts {
        out.extend_from_slice(part);
    }
}
