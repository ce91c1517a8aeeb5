//! The outbound side: frames are gathered, sealed together and written together.

use std::io;
use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::net::tcp::OwnedWriteHalf;
use tokio::time::timeout;
use towpath_tls::{SealBuffer, TlsError};
use towpath_websocket::{CloseCode, MAX_MASKED_PAYLOAD, MaskedFrame, PingPayload};
use towpath_wire::derp::MAX_PACKET;
use towpath_wire::derp::frame::ClientFrame;
use towpath_wire::key::NodePublic;

use crate::tls::TlsWriter;
use crate::websocket::append;

/// A batch is sealed and written whenever so many bytes of it are gathered: four full records.
const FLUSH_AT: usize = 64 * 1024;

/// Why something was not sent.
#[derive(Debug, thiserror::Error)]
pub enum SendError {
    /// The packet has more than 65,536 bytes, for which the relay would close. The connection stays good.
    #[error("a packet of {0} bytes is too long: the limit is 65,536")]
    TooLong(usize),
    /// The socket failed. The connection is no longer usable.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// TLS has ended. The connection is no longer usable.
    #[error(transparent)]
    Tls(#[from] TlsError),
}

/// The writing side of a connection. Sending may be broken off at any await: what was begun goes out before what comes
/// next.
#[derive(Debug)]
pub(crate) struct Outgoing {
    socket: OwnedWriteHalf,
    tls: Option<(TlsWriter, SealBuffer)>,
    /// Frames that are not sealed; without TLS, not written.
    frames: Vec<u8>,
    /// In WebSocket, the messages that frames are wrapped in before they are sealed or, without TLS, written.
    messages: Option<Vec<u8>>,
    /// How much of what is to be written was written.
    sent: usize,
}

impl Outgoing {
    pub(crate) fn new(socket: OwnedWriteHalf, writer: Option<TlsWriter>, websocket: bool) -> Self {
        let tls = writer.map(|writer| (writer, SealBuffer::default()));
        Self { socket, tls, frames: Vec::new(), messages: websocket.then(Vec::new), sent: 0 }
    }

    pub(crate) const fn is_websocket(&self) -> bool {
        self.messages.is_some()
    }

    pub(crate) fn into_parts(self) -> (OwnedWriteHalf, Option<TlsWriter>) {
        (self.socket, self.tls.map(|(writer, _)| writer))
    }

    pub(crate) async fn send(&mut self, frame: &ClientFrame<'_>) -> Result<(), SendError> {
        self.write_pending().await?;
        frame.encode(&mut self.frames);
        self.seal_and_write().await
    }

    pub(crate) async fn send_batch<'a>(
        &mut self,
        packets: impl IntoIterator<Item = (NodePublic, &'a [u8])>,
    ) -> Result<(), SendError> {
        self.write_pending().await?;
        for (to, packet) in packets {
            if let Err(too_long) = check_len(packet) {
                self.seal_and_write().await?;
                return Err(too_long);
            }
            ClientFrame::SendPacket { to, packet }.encode(&mut self.frames);
            if self.frames.len() >= FLUSH_AT {
                self.seal_and_write().await?;
            }
        }
        self.seal_and_write().await
    }

    /// Answers a ping of WebSocket.
    pub(crate) async fn pong(&mut self, payload: &PingPayload) -> Result<(), SendError> {
        self.write_pending().await?;
        self.push(MaskedFrame::Pong(payload))?;
        self.seal_and_write().await
    }

    /// Answers the relay's close of the WebSocket, as far as the socket takes it at once: the relay may read no more.
    pub(crate) async fn answer_close(&mut self) {
        let _ = timeout(Duration::ZERO, self.close()).await;
    }

    /// Tells the relay that this is the end, and closes this direction.
    pub(crate) async fn close(&mut self) -> Result<(), SendError> {
        self.write_pending().await?;
        if self.is_websocket() {
            self.push(MaskedFrame::Close(CloseCode::Normal))?;
            self.seal_and_write().await?;
        }
        if let Some((writer, sealed)) = &mut self.tls {
            writer.close(sealed)?;
        }
        self.write_pending().await?;
        Ok(self.socket.shutdown().await?)
    }

    /// Appends a frame of WebSocket, where that is spoken.
    fn push(&mut self, frame: MaskedFrame<'_>) -> io::Result<()> {
        self.messages.as_mut().map_or(Ok(()), |messages| append(frame, messages))
    }

    /// Wraps the frames that were gathered into messages, where WebSocket is spoken.
    fn wrap(&mut self) -> io::Result<()> {
        let Some(messages) = &mut self.messages else { return Ok(()) };
        for payload in self.frames.chunks(MAX_MASKED_PAYLOAD) {
            append(MaskedFrame::Binary(payload), messages)?;
        }
        self.frames.clear();
        Ok(())
    }

    async fn seal_and_write(&mut self) -> Result<(), SendError> {
        self.wrap()?;
        if let Some((writer, sealed)) = &mut self.tls {
            let unsealed = self.messages.as_mut().unwrap_or(&mut self.frames);
            let result = writer.seal(unsealed, sealed);
            unsealed.clear();
            result?;
        }
        self.write_pending().await
    }

    async fn write_pending(&mut self) -> Result<(), SendError> {
        let unsealed = self.messages.as_mut().unwrap_or(&mut self.frames);
        let pending = match &self.tls {
            Some((_, sealed)) => sealed.as_slice(),
            None => unsealed.as_slice(),
        };
        while self.sent < pending.len() {
            match self.socket.write(&pending[self.sent..]).await? {
                0 => return Err(io::Error::from(io::ErrorKind::WriteZero).into()),
                written => self.sent += written,
            }
        }
        self.sent = 0;
        match &mut self.tls {
            Some((_, sealed)) => sealed.clear(),
            None => unsealed.clear(),
        }
        Ok(())
    }
}

pub(crate) const fn check_len(packet: &[u8]) -> Result<(), SendError> {
    if packet.len() <= MAX_PACKET { Ok(()) } else { Err(SendError::TooLong(packet.len())) }
}
