//! Types and headers of frames, and what the frames of both directions share.

use crate::derp::HEADER_LEN;

/// Declares the types of frames by their first bytes, which stand nowhere else.
macro_rules! frame_types {
    ($($name:ident = $byte:literal,)+) => {
        /// The first byte of a frame.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[repr(u8)]
        #[allow(missing_docs, reason = "the table of the parent module has them")]
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
    /// The type as it came, which may be unknown.
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

/// How long the payload of a type may be, and whether the reader knows the type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PayloadBounds {
    /// The reader knows the type, and takes payloads of `least` to `most` bytes.
    Read {
        /// The fewest bytes.
        least: u32,
        /// The most bytes.
        most: u32,
    },
    /// The reader skips the type, up to so many bytes of payload.
    Skip(u32),
}

/// The eight bytes that a Ping carries and its Pong returns.
pub type PingData = [u8; 8];

/// A payload that does not have its frame's layout.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
#[error("malformed {0} frame")]
pub struct Malformed(pub &'static str);

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
