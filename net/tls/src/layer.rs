//! The record layer that a caller chooses, and the outcome of an open, which is the same for each.

/// What opens and seals records once a [`Stream`](crate::Stream) is taken apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RecordLayer {
    /// TLS 1.3: this crate. TLS 1.2: rustls.
    Own,
    /// rustls.
    Rustls,
}

/// What an open came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Opened {
    /// Bytes of ciphertext that are used up.
    pub consumed: usize,
    /// The peer has said that it sends no more.
    pub closed: bool,
}
