//! WebSocket (RFC 6455) as the server of a byte stream speaks it: binary messages whose boundaries mean nothing.
//!
//! Neither direction ever holds a message. [`Decoder`] takes slices of the stream as they come, unmasks payload where it
//! lies, and hands it on piece by piece; all that it keeps is a header, or a ping, that was cut. [`Messages`] wraps what
//! is written to it in as few messages as possible, in one buffer that a thread reuses for all its connections.
//!
//! Pure: no sockets, no clock, no runtime. Extensions are never negotiated, so a reserved bit is an error.

#![forbid(unsafe_code)]

mod decode;
mod encode;
mod handshake;

pub use decode::{Decoder, Piece, Violation};
pub use encode::Messages;
pub use handshake::accept_key;

/// Most bytes of a message that [`Messages`] writes, header included. Go's library, which the stock client reads with,
/// takes no more in one message; and it is two full TLS records.
pub const MAX_SENT: usize = 32 * 1024;

/// Most bytes of a message that a [`Decoder`] takes. A stock client writes up to 61 KiB at once; since nothing is held,
/// the bound is only there to refuse nonsense.
pub const MAX_RECEIVED: u64 = 1024 * 1024;

/// Most bytes of payload in a control frame (RFC 6455 section 5.5).
const MAX_CONTROL: usize = 125;

/// The payload of a ping, which its pong has to repeat.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct PingPayload {
    len: u8,
    bytes: [u8; MAX_CONTROL],
}

impl PingPayload {
    const EMPTY: Self = Self { len: 0, bytes: [0; MAX_CONTROL] };

    /// The bytes, at most 125.
    #[must_use]
    pub fn as_slice(&self) -> &[u8] {
        &self.bytes[..usize::from(self.len)]
    }

    fn push(&mut self, bytes: &[u8]) {
        let start = usize::from(self.len);
        self.bytes[start..start + bytes.len()].copy_from_slice(bytes);
        self.len += bytes.len() as u8;
    }
}

impl std::fmt::Debug for PingPayload {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("PingPayload").field(&self.len).finish()
    }
}

/// Why a side closes (RFC 6455 section 7.4.1), as far as a relay has reasons.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u16)]
pub enum CloseCode {
    /// Done.
    Normal = 1000,
    /// The server stops, or the page was left.
    GoingAway = 1001,
    /// The peer broke the framing.
    Protocol = 1002,
    /// Text, where only binary messages mean anything.
    Unsupported = 1003,
    /// Text that is not UTF-8.
    InvalidText = 1007,
    /// The peer broke a rule of what is carried.
    Policy = 1008,
    /// A message above the bound.
    TooBig = 1009,
}

mod opcode {
    pub(crate) const CONTINUATION: u8 = 0;
    pub(crate) const TEXT: u8 = 1;
    pub(crate) const BINARY: u8 = 2;
    pub(crate) const CLOSE: u8 = 8;
    pub(crate) const PING: u8 = 9;
    pub(crate) const PONG: u8 = 10;
}
