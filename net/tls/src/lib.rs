//! A TLS record stream that owns no buffers while idle, over unbuffered rustls.
//!
//! rustls' buffered connections keep a read buffer each and read 4 KiB at a time; that is most of what an idle TLS
//! connection costs, and most of what a busy one wastes. Here the caller owns the buffers: a thread that serves
//! thousands of connections has one to read into and one to seal into.
//!
//! - [`Stream`] is the connection from its first byte: the handshake, then bytes in and out, on tokio. It is the same
//!   for servers and clients.
//! - [`Stream::into_parts`] takes it apart for a thread that does its own reading and writing: the socket, a [`Reader`],
//!   a [`Writer`], and the bytes that were already read, sealed and open.

#![forbid(unsafe_code)]

mod own;
mod records;
mod seal;
mod stream;

pub use own::RecordError;
pub use records::{Opened, Reader, Writer};
pub use seal::SealBuffer;
pub use stream::{HandshakeError, Parts, Stream};

use rustls::ExtractedSecrets;
use rustls::client::{ClientConnectionData, UnbufferedClientConnection};
use rustls::kernel::KernelConnection;
use rustls::server::{ServerConnectionData, UnbufferedServerConnection};
use rustls::unbuffered::UnbufferedStatus;

/// Either side of a TLS connection.
pub trait Connection: sealed::Sealed + Send + 'static {
    /// rustls' marker for the side.
    #[doc(hidden)]
    type Data;

    /// rustls' method of the same name, which its two connection types have each for themselves.
    #[doc(hidden)]
    fn process_tls_records<'c, 'i>(
        &'c mut self,
        incoming: &'i mut [u8],
    ) -> UnbufferedStatus<'c, 'i, Self::Data>;

    /// What was negotiated.
    fn state(&self) -> &rustls::CommonState;

    /// Whether this is the side that dialled.
    #[doc(hidden)]
    const CLIENT: bool;

    /// The secrets of a finished handshake, and what derives further ones.
    #[doc(hidden)]
    fn into_kernel(self) -> Result<(ExtractedSecrets, KernelConnection<Self::Data>), rustls::Error>;
}

/// Who opens and seals once a [`Stream`] is taken apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RecordLayer {
    /// TLS 1.3: this crate. TLS 1.2: rustls.
    Own,
    /// rustls.
    Rustls,
}

mod sealed {
    pub trait Sealed {}
    impl Sealed for rustls::client::UnbufferedClientConnection {}
    impl Sealed for rustls::server::UnbufferedServerConnection {}
}

impl Connection for UnbufferedServerConnection {
    type Data = ServerConnectionData;

    fn process_tls_records<'c, 'i>(
        &'c mut self,
        incoming: &'i mut [u8],
    ) -> UnbufferedStatus<'c, 'i, Self::Data> {
        (**self).process_tls_records(incoming)
    }

    fn state(&self) -> &rustls::CommonState {
        self
    }

    const CLIENT: bool = false;

    fn into_kernel(self) -> Result<(ExtractedSecrets, KernelConnection<Self::Data>), rustls::Error> {
        self.dangerous_into_kernel_connection()
    }
}

impl Connection for UnbufferedClientConnection {
    type Data = ClientConnectionData;

    fn process_tls_records<'c, 'i>(
        &'c mut self,
        incoming: &'i mut [u8],
    ) -> UnbufferedStatus<'c, 'i, Self::Data> {
        (**self).process_tls_records(incoming)
    }

    fn state(&self) -> &rustls::CommonState {
        self
    }

    const CLIENT: bool = true;

    fn into_kernel(self) -> Result<(ExtractedSecrets, KernelConnection<Self::Data>), rustls::Error> {
        self.dangerous_into_kernel_connection()
    }
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
