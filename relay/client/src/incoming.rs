//! The inbound side: ciphertext, plaintext, frames.

use std::io;
use std::ops::ControlFlow;
use std::time::Duration;

use tokio::io::AsyncReadExt;
use tokio::net::tcp::OwnedReadHalf;
use tokio::time::timeout;
use towpath_relay_proto::session::{ClientSession, StreamError};
use towpath_tls::TlsError;
use towpath_wire::pool::BufferPool;

use crate::event::Received;
use crate::outgoing::SendError;
use crate::tls::TlsReader;

/// The silence after which a relay is taken for gone, as in the Go client. It owes a keep-alive every 60 to 65 s.
pub const READ_TIMEOUT: Duration = Duration::from_secs(120);
/// How much is read at once.
const READ_SIZE: usize = 64 * 1024;

/// The reason why nothing more is received. The connection is no longer usable.
#[derive(Debug, thiserror::Error)]
pub enum RecvError {
    /// The relay closed.
    #[error("the relay closed the connection")]
    Closed,
    /// Nothing came for [`READ_TIMEOUT`].
    #[error("the relay was silent for {} s", READ_TIMEOUT.as_secs())]
    Silent,
    /// The socket failed.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// The relay broke TLS.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The relay does not speak DERP.
    #[error(transparent)]
    Stream(#[from] StreamError),
    /// A Ping of the relay could not be answered.
    #[error("cannot answer a ping")]
    Pong(#[from] SendError),
}

/// The reading side of a connection. Receiving may be broken off at any await; nothing is lost.
#[derive(Debug)]
pub(crate) struct Incoming {
    socket: OwnedReadHalf,
    reader: Option<TlsReader>,
    session: ClientSession,
    pool: BufferPool,
    /// Ciphertext that is not opened.
    sealed: Vec<u8>,
    /// Plaintext that is, from `taken` on, not cut into frames.
    plaintext: Vec<u8>,
    taken: usize,
    closed: bool,
}

impl Incoming {
    pub(crate) fn new(
        socket: OwnedReadHalf,
        reader: Option<TlsReader>,
        session: ClientSession,
        sealed: Vec<u8>,
        plaintext: Vec<u8>,
    ) -> Self {
        let pool = BufferPool::default();
        Self { socket, reader, session, pool, sealed, plaintext, taken: 0, closed: false }
    }

    /// Socket, reader, session, ciphertext, plaintext.
    pub(crate) fn into_parts(
        mut self,
    ) -> (OwnedReadHalf, Option<TlsReader>, ClientSession, Vec<u8>, Vec<u8>) {
        self.plaintext.drain(..self.taken);
        (self.socket, self.reader, self.session, self.sealed, self.plaintext)
    }

    pub(crate) async fn next(&mut self) -> Result<Received, RecvError> {
        loop {
            let mut input = &self.plaintext[self.taken..];
            let before = input.len();
            let frame = self.session.next(&mut input, &mut self.pool)?;
            self.taken += before - input.len();
            if let Some(frame) = frame {
                return Ok(frame.into());
            }
            self.plaintext.clear();
            self.taken = 0;
            if self.closed {
                return Err(RecvError::Closed);
            }
            timeout(READ_TIMEOUT, self.read()).await.map_err(|_elapsed| RecvError::Silent)??;
        }
    }

    /// Reads once, and opens what is whole.
    async fn read(&mut self) -> Result<(), RecvError> {
        let Some(reader) = &mut self.reader else {
            self.plaintext.reserve(READ_SIZE);
            self.closed = self.socket.read_buf(&mut self.plaintext).await? == 0;
            return Ok(());
        };
        // Leftovers of the login may hold whole records, so the first round reads nothing.
        let plaintext = &mut self.plaintext;
        let opened = reader.open(&mut self.sealed, |bytes| {
            plaintext.extend_from_slice(bytes);
            ControlFlow::Continue(())
        })?;
        self.sealed.drain(..opened.consumed);
        self.closed = opened.closed;
        if self.plaintext.is_empty() && !self.closed {
            self.sealed.reserve(READ_SIZE);
            self.closed = self.socket.read_buf(&mut self.sealed).await? == 0;
        }
        Ok(())
    }
}
