//! A TLS record stream that owns no buffers while idle, over unbuffered rustls.
//!
//! rustls' buffered connections keep a read buffer each and read 4 KiB at a time; that is most of what an idle TLS
//! connection costs, and most of what a busy one wastes. Here the caller owns the buffers: a thread that serves
//! thousands of connections has one to read into and one to seal into.
//!
//! - [`Stream`] is the connection from its first byte: the handshake, then bytes in and out, on tokio. Its parameter says
//!   which [`Side`] it is.
//! - [`Stream::into_parts`] takes it apart for a thread that does its own reading and writing: the socket, a [`Reader`],
//!   a [`Writer`], and the bytes that were already read, sealed and open.

#![forbid(unsafe_code)]

mod own;
mod records;
mod seal;
mod side;
mod stream;

pub use own::RecordError;
pub use records::{Reader, Writer};
pub use seal::SealBuffer;
pub use side::{Client, Server, Side};
pub use stream::{HandshakeError, Parts, Stream};

/// Who opens and seals once a [`Stream`] is taken apart.
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

/// A record is at most this much longer than its plaintext: header, explicit nonce, tag, content type, with room to spare.
const RECORD_OVERHEAD: usize = 64;
/// Most plaintext in one record (RFC 8446 section 5.1).
const MAX_PLAINTEXT: usize = 16 * 1024;
/// Header of a record.
const RECORD_HEADER: usize = 5;

/// The most bytes that a record can have on the wire (RFC 5246 section 6.2.3). What a reader must be able to hold
/// besides what it reads, because a record opens only when it is whole.
pub const MAX_RECORD: usize = RECORD_HEADER + MAX_PLAINTEXT + 2048;

/// Why a connection can no longer be read or written.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// The peer broke TLS, or an alert of it ends the connection.
    #[error(transparent)]
    Rustls(#[from] rustls::Error),
    /// The peer broke the record layer of this crate.
    #[error(transparent)]
    Record(#[from] RecordError),
    /// The peer cut a handshake message in pieces after the handshake.
    ///
    /// rustls would keep its place in the caller's buffer for the rest and panic when a writer without that buffer
    /// comes next. No honest peer does it: the only such message has five bytes.
    #[error("a handshake message in pieces after the handshake")]
    HandshakeInPieces,
    /// Keys are used up (TLS 1.2), the connection is not open, or it has failed before.
    #[error("the connection is of no more use")]
    Unusable,
}
