//! The inbound side: ciphertext, plaintext, frames.

use std::io;
use std::ops::ControlFlow;
use std::time::Duration;

use tokio::io::AsyncReadExt;
use tokio::net::tcp::OwnedReadHalf;
use tokio::time::timeout;
use towpath_relay_proto::session::{ClientSession, StreamError};
use towpath_tls::TlsError;
use towpath_websocket::Violation;
use towpath_wire::pool::BufferPool;

use crate::event::Received;
use crate::outgoing::SendError;
use crate::tls::TlsReader;
use crate::websocket::{Owed, Unwrapper};

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
    /// The relay breaks WebSocket.
    #[error("the relay breaks WebSocket by {0}")]
    WebSocket(#[from] Violation),
    /// The relay does not speak DERP.
    #[error(transparent)]
    Stream(#[from] StreamError),
    /// A Ping of the relay could not be answered.
    #[error("cannot answer a ping")]
    Pong(#[from] SendError),
}

/// The socket, and TLS on it.
#[derive(Debug)]
pub(crate) struct Source {
    pub(crate) socket: OwnedReadHalf,
    pub(crate) reader: Option<TlsReader>,
    /// Ciphertext that is not opened.
    pub(crate) sealed: Vec<u8>,
}

impl Source {
    /// Reads once into `opened`, which is empty, and opens what is whole. Whether the relay has closed.
    async fn read(&mut self, opened: &mut Vec<u8>) -> Result<bool, RecvError> {
        let Some(reader) = &mut self.reader else {
            opened.reserve(READ_SIZE);
            return Ok(self.socket.read_buf(opened).await? == 0);
        };
        // Leftovers of the login may hold whole records, so the first round reads nothing.
        let outcome = reader.open(&mut self.sealed, |bytes| {
            opened.extend_from_slice(bytes);
            ControlFlow::Continue(())
        })?;
        self.sealed.drain(..outcome.consumed);
        if !opened.is_empty() || outcome.closed {
            return Ok(outcome.closed);
        }
        self.sealed.reserve(READ_SIZE);
        Ok(self.socket.read_buf(&mut self.sealed).await? == 0)
    }
}

/// The reading side of a connection. Receiving may be broken off at any await; nothing is lost.
#[derive(Debug)]
pub(crate) struct Incoming {
    source: Source,
    websocket: Option<Unwrapper>,
    /// Messages of WebSocket that are not unwrapped.
    messages: Vec<u8>,
    session: ClientSession,
    pool: BufferPool,
    /// Plaintext that is, from `taken` on, not cut into frames.
    plaintext: Vec<u8>,
    taken: usize,
    closed: bool,
}

impl Incoming {
    /// `opened` was read and not used; `frames` come before it.
    pub(crate) fn new(
        source: Source,
        session: ClientSession,
        opened: Vec<u8>,
        mut frames: Vec<u8>,
        websocket: Option<Unwrapper>,
    ) -> Self {
        let messages = if websocket.is_some() {
            opened
        } else {
            frames.extend_from_slice(&opened);
            Vec::new()
        };
        let closed = websocket.as_ref().is_some_and(Unwrapper::is_closed);
        let pool = BufferPool::default();
        Self { source, websocket, messages, session, pool, plaintext: frames, taken: 0, closed }
    }

    /// The session, and the plaintext that was not cut into frames; without WebSocket.
    pub(crate) fn into_parts(mut self) -> (Source, ClientSession, Vec<u8>) {
        self.plaintext.drain(..self.taken);
        (self.source, self.session, self.plaintext)
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
            if let Some(owed) = self.websocket.as_mut().and_then(Unwrapper::take_owed) {
                return Ok(match owed {
                    Owed::Pong(payload) => Received::WebSocketPing(payload),
                    Owed::Close => Received::WebSocketClose,
                });
            }
            if self.closed {
                return Err(RecvError::Closed);
            }
            timeout(READ_TIMEOUT, self.read()).await.map_err(|_elapsed| RecvError::Silent)??;
        }
    }

    /// Reads once, and opens and unwraps what is whole.
    async fn read(&mut self) -> Result<(), RecvError> {
        let Some(unwrapper) = &mut self.websocket else {
            self.closed = self.source.read(&mut self.plaintext).await?;
            return Ok(());
        };
        if self.messages.is_empty() {
            self.closed = self.source.read(&mut self.messages).await?;
        }
        unwrapper.unwrap(&mut self.messages, &mut self.plaintext)?;
        self.messages.clear();
        self.closed |= unwrapper.is_closed();
        Ok(())
    }
}
