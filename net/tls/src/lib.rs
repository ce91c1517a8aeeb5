//! A TLS record stream that owns no buffers while idle, over unbuffered rustls.
//!
//! rustls' buffered connections keep a read buffer each and read 4 KiB at a time; that is most of what an idle TLS
//! connection costs, and most of what a busy one wastes. Here the caller owns the buffers: a thread that serves
//! thousands of connections has one to read into and one to seal into.
//!
//! - [`Stream`] is the connection from its first byte: the handshake, then bytes in and out, on tokio. Its parameter
//!   says which [`Side`] it is.
//! - [`Stream::into_parts`] takes it apart for a thread that does its own reading and writing: the socket, a
//!   [`Reader`], a [`Writer`], and the bytes that were already read, sealed and open.
//! - [`Stream::exporter`] is keying material by which a protocol binds itself to the connection, where the configuration has an
//!   [`ExporterLog`].

#![forbid(unsafe_code)]

mod error;
mod exporter;
mod layer;
mod limits;
mod own;
mod records;
mod seal;
mod side;
mod stream;

pub use error::TlsError;
pub use exporter::ExporterLog;
pub use layer::{Opened, RecordLayer};
pub use limits::MAX_RECORD;
pub use own::RecordError;
pub use records::{Reader, Writer};
pub use seal::SealBuffer;
pub use side::{Client, Server, Side};
pub use stream::{HandshakeError, Parts, Stream};
