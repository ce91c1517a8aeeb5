//! The buffer that a thread seals into.

use crate::limits::MAX_PLAINTEXT;

/// A record is at most this much longer than its plaintext: header, explicit nonce, tag, content type, with room to spare.
const RECORD_OVERHEAD: usize = 64;

/// Sealed records on their way to a socket. Initialised once and reused, so that sealing neither allocates nor clears.
#[derive(Debug, Default)]
pub struct SealBuffer {
    bytes: Vec<u8>,
    len: usize,
}

impl SealBuffer {
    /// A buffer that takes `plaintext` bytes at once without growing.
    #[must_use]
    pub fn with_capacity(plaintext: usize) -> Self {
        Self { bytes: vec![0; sealed_len(plaintext)], len: 0 }
    }

    /// The records in the buffer.
    #[must_use]
    pub fn as_slice(&self) -> &[u8] {
        &self.bytes[..self.len]
    }

    /// Whether nothing is in the buffer.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Forgets what is in the buffer.
    pub const fn clear(&mut self) {
        self.len = 0;
    }

    /// Room for `plaintext` bytes sealed.
    pub(crate) fn room_for(&mut self, plaintext: usize) -> &mut [u8] {
        self.room(sealed_len(plaintext))
    }

    /// Room for `len` bytes, at least.
    pub(crate) fn room(&mut self, len: usize) -> &mut [u8] {
        if self.bytes.len() < self.len + len {
            self.bytes.resize(self.len + len, 0);
        }
        &mut self.bytes[self.len..]
    }

    /// Counts `len` bytes that were written to the room.
    pub(crate) const fn filled(&mut self, len: usize) {
        self.len += len;
    }

    /// Appends bytes as they are: sealed records, or bytes for a connection without TLS.
    pub fn append(&mut self, bytes: &[u8]) {
        self.room(bytes.len())[..bytes.len()].copy_from_slice(bytes);
        self.filled(bytes.len());
    }
}

const fn sealed_len(plaintext: usize) -> usize {
    plaintext + (plaintext / MAX_PLAINTEXT + 1) * RECORD_OVERHEAD
}
