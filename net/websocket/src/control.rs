//! Control frames: the payload of a ping, and the reasons of a close.

use std::fmt;

/// Most bytes of payload in a control frame (RFC 6455 section 5.5).
pub(crate) const MAX_CONTROL: usize = 125;

/// The payload of a ping, which its pong has to repeat.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct PingPayload {
    len: u8,
    bytes: [u8; MAX_CONTROL],
}

impl PingPayload {
    pub(crate) const EMPTY: Self = Self { len: 0, bytes: [0; MAX_CONTROL] };

    /// The bytes, at most 125.
    #[must_use]
    pub fn as_slice(&self) -> &[u8] {
        &self.bytes[..usize::from(self.len)]
    }

    pub(crate) fn push(&mut self, bytes: &[u8]) {
        let start = usize::from(self.len);
        self.bytes[start..start + bytes.len()].copy_from_slice(bytes);
        self.len += bytes.len() as u8;
    }
}

impl fmt::Debug for PingPayload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
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
