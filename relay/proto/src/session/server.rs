//! A session: what the bytes of a logged-in connection ask the relay for.
//!
//! The driver hands in slices of the stream as they come and performs the [`Action`]s that come out. An action borrows
//! the bytes of its frame; nothing is copied unless a frame was cut between two slices.

use towpath_wire::derp::buffer::{BadLength, Deframer};
use towpath_wire::derp::frame::{ClientFrame, Malformed, PayloadBounds, PingData};
use towpath_wire::disco::looks_like_disco;
use towpath_wire::key::NodePublic;
use towpath_wire::labels;
use towpath_wire::pool::BufferPool;

use crate::rights::Rights;

labels! {
    /// Whether a packet is disco: it has a lane of its own and a label of its own.
    pub enum PacketKind {
        /// The packet looks like disco.
        Disco = "disco",
        /// Anything else, as a rule WireGuard.
        Other = "other",
    }
}

impl PacketKind {
    /// The kind of `packet`.
    #[must_use]
    #[inline]
    pub fn of(packet: &[u8]) -> Self {
        if looks_like_disco(packet) { Self::Disco } else { Self::Other }
    }
}

/// A request of a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action<'a> {
    /// Send `packet` to the peer `to`.
    Forward {
        /// The destination.
        to: NodePublic,
        /// At most 65,536 bytes.
        packet: &'a [u8],
    },
    /// Forward a packet of a client of another relay to a client of this relay, and no further.
    Relay(Relayed<'a>),
    /// Tell the client of every key that is here, comes or goes.
    Watch,
    /// Close all connections of this key.
    ClosePeer(NodePublic),
    /// Answer a Ping with these bytes.
    Pong(PingData),
    /// This relay is, or is no longer, the client's home.
    Preferred(bool),
}

/// The payload of a ForwardPacket. Taken apart only when it is used: an action is moved around for each packet of every
/// client, and three fields more would be paid for by all of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Relayed<'a>(&'a [u8]);

impl<'a> Relayed<'a> {
    /// Splits the payload: the sender, as the other relay states it; the destination; at most 65,536 bytes of packet.
    #[must_use]
    pub fn parts(self) -> (NodePublic, NodePublic, &'a [u8]) {
        let split = |bytes| NodePublic::split_from(bytes).expect("the frame was decoded before");
        let (from, rest) = split(self.0);
        let (to, packet) = split(rest);
        (from, to, packet)
    }
}

labels! {
    /// Why the relay closes a connection that has logged in.
    pub enum Close {
        /// The client closed, or the network did; a write that fails is taken for that.
        PeerClosed = "peer_closed",
        /// A frame breaks the layout of its type.
        BadFrame = "bad_frame",
        /// A frame of an unknown type announced more than 65,568 bytes of payload. Shorter ones are skipped.
        UnknownFrame = "unknown_frame",
        /// A frame of the mesh came from a client without the right to it.
        NotPermitted = "not_permitted",
        /// The client broke TLS.
        Tls = "tls",
        /// The client changed its TLS keys too often: more than 32 times, and one more for each 65,536 records.
        KeyUpdates = "key_updates",
        /// The client broke WebSocket: text, a reserved bit, no mask, or a message of more than 1 MiB.
        WebSocket = "websocket",
        /// A read failed, such as after 15 s without an acknowledgement.
        Socket = "socket",
        /// The client took no byte for `outbox.write_timeout`.
        WriteTimeout = "write_timeout",
        /// Another relay of the region asked for it.
        ClosePeer = "close_peer",
        /// An operator asked for it by `towpath-relay kick`. The client was told so, and may come back.
        Kicked = "kicked",
        /// A watcher read so slowly that 65,536 keys waited to be announced. It reconnects and receives a new snapshot.
        WatchOverflow = "watch_overflow",
        /// The key of the client had more connections than `login.max_connections_per_key`, and this one had been silent
        /// the longest.
        KeyLimit = "key_limit",
        /// A frame or a TLS record that the client had begun was not whole 30 s later.
        FrameTimeout = "frame_timeout",
        /// The memory for frames was used up (`memory.max`), and this connection held an unfinished frame.
        Memory = "memory",
        /// The key of the client is no longer admitted: its policy refuses it, or could not tell for `confirm.grace`.
        Revoked = "revoked",
        /// A relay that this one had linked to was not heard for 30 s.
        Silent = "silent",
        /// A relay that this one had linked to announced more keys than `mesh.max_keys`. The link is dialled again after a minute.
        MeshKeys = "mesh_keys",
        /// A relay that this one had linked to was taken out of `mesh.peers`.
        Unlinked = "unlinked",
        /// The relay shuts down.
        Shutdown = "shutdown",
    }
}

impl Close {
    /// The text of the Health frame that goes before the close, for reasons that a person at the client can act on.
    #[must_use]
    pub const fn health(self) -> Option<&'static str> {
        match self {
            Self::Revoked => Some("this relay no longer admits the node key of this device"),
            Self::Kicked => Some("the operator of the relay has closed this connection"),
            _ => None,
        }
    }
}

impl From<BadLength> for Close {
    #[cold]
    fn from(BadLength { kind, .. }: BadLength) -> Self {
        match ClientFrame::payload_bounds(kind) {
            PayloadBounds::Read { .. } => Self::BadFrame,
            PayloadBounds::Skip(_) => Self::UnknownFrame,
        }
    }
}

impl From<Malformed> for Close {
    fn from(_: Malformed) -> Self {
        Self::BadFrame
    }
}

/// The relay's side of one logged-in connection.
#[derive(Debug, Default)]
pub struct Session {
    deframer: Deframer,
    rights: Rights,
}

impl Session {
    /// Creates the session of a client with these rights. By default a session has the rights of any client.
    #[must_use]
    pub fn new(rights: Rights) -> Self {
        Self { deframer: Deframer::default(), rights }
    }

    /// What the client may ask for.
    #[must_use]
    pub const fn rights(&self) -> Rights {
        self.rights
    }

    /// Returns the next request of the client; `None` when `input` is used up.
    ///
    /// # Errors
    ///
    /// The reason why the connection must be closed.
    #[inline]
    pub fn next<'s, 'i: 's>(
        &'s mut self,
        input: &mut &'i [u8],
        pool: &mut BufferPool,
    ) -> Result<Option<Action<'s>>, Close> {
        // This relay sends no Ping, so a Pong answers nothing. It is skipped like frames of unknown types.
        let Some(frame) = self.deframer.next(input, ClientFrame::payload_bounds, pool)? else {
            return Ok(None);
        };
        match ClientFrame::decode(frame.kind, frame.payload)? {
            Some(ClientFrame::SendPacket { to, packet }) => Ok(Some(Action::Forward { to, packet })),
            Some(ClientFrame::Ping(data)) => Ok(Some(Action::Pong(data))),
            Some(ClientFrame::NotePreferred(on)) => Ok(Some(Action::Preferred(on))),
            Some(ClientFrame::ForwardPacket { .. }) if self.rights.is_mesh() => {
                Ok(Some(Action::Relay(Relayed(frame.payload))))
            }
            Some(ClientFrame::WatchConns) if self.rights.may_watch() => Ok(Some(Action::Watch)),
            Some(ClientFrame::ClosePeer(key)) if self.rights.is_mesh() => Ok(Some(Action::ClosePeer(key))),
            Some(ClientFrame::ForwardPacket { .. } | ClientFrame::WatchConns | ClientFrame::ClosePeer(_)) => {
                Err(Close::NotPermitted)
            }
            Some(ClientFrame::Pong(_)) | None => {
                unreachable!("a type without bounds is skipped by the deframer")
            }
        }
    }

    /// The number of the frame that has begun and is not whole; `None` if there is none.
    #[must_use]
    pub const fn unfinished(&self) -> Option<u32> {
        self.deframer.unfinished()
    }

    /// Bytes of a frame that has begun and is not whole.
    #[must_use]
    pub const fn held(&self) -> usize {
        self.deframer.held()
    }

    /// Gives up a frame that is not whole and returns its buffer. The session is then at its end.
    pub fn clear(&mut self, pool: &mut BufferPool) {
        self.deframer.clear(pool);
    }

    /// Frames of unknown types that were skipped.
    #[must_use]
    pub const fn skipped(&self) -> u64 {
        self.deframer.skipped()
    }
}

#[cfg(test)]
mod tests {
    use towpath_wire::derp::frame::Header;

    use super::*;

    #[test]
    fn a_frame_of_an_unknown_type_is_skipped_unless_it_is_longer_than_any_packet() {
        for (kind, len, expected) in [
            (0x7f, 65_568, Ok(())),
            (0x7f, 65_569, Err(Close::UnknownFrame)),
            (0x13, u32::MAX, Err(Close::UnknownFrame)),
            (0x04, 65_568, Ok(())),
            (0x04, 65_569, Err(Close::BadFrame)),
        ] {
            let (mut session, mut pool) = (Session::default(), BufferPool::default());
            let header = Header { kind, len }.encode();
            let asked = session.next(&mut &header[..], &mut pool);
            assert_eq!(asked.map(|action| assert_eq!(action, None)), expected, "type {kind:#x}, {len} bytes");
        }
    }

    #[test]
    fn each_frame_of_the_mesh_needs_its_right() {
        let (from, to) = (NodePublic::from_bytes([1; 32]), NodePublic::from_bytes([2; 32]));
        let frames = [
            ClientFrame::WatchConns,
            ClientFrame::ForwardPacket { from, to, packet: b"packet" },
            ClientFrame::ClosePeer(to),
            ClientFrame::SendPacket { to, packet: b"packet" },
        ];
        for (rights, allowed) in [
            (Rights::Client, [false, false, false, true]),
            (Rights::Watch, [true, false, false, true]),
            (Rights::Mesh, [true, true, true, true]),
        ] {
            for (frame, allowed) in frames.iter().zip(allowed) {
                let mut bytes = Vec::new();
                frame.encode(&mut bytes);
                let (mut session, mut pool) = (Session::new(rights), BufferPool::default());
                let asked = session.next(&mut &bytes[..], &mut pool);
                let expected = if allowed { Ok(true) } else { Err(Close::NotPermitted) };
                assert_eq!(asked.map(|action| action.is_some()), expected, "{rights:?}: {frame:?}");
            }
        }
    }
}
