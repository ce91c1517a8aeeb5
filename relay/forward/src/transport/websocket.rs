//! DERP in binary WebSocket messages, in TLS or not.
//!
//! Messages are a byte pipe: the sender may cut DERP frames anywhere. The inbound side unmasks payload in place. It
//! cannot write, because another thread may be flushing. So it leaves its answers in a [`Reply`], which the owner of
//! the connection hands to the outbound side. The outbound side gathers what one flush sends into messages.

use towpath_relay_proto::session::Close;
use towpath_tls::{Reader, SealBuffer, Server, TlsError, Writer};
use towpath_websocket::{CloseCode, Decoder, Messages, Piece, PingPayload, Violation};

use super::stream::{CannotEncode, Decode, Encode, FrameSink, WriteScratch};
use super::tls;

/// The answers that the peer must be sent because of what the inbound side read.
#[derive(Debug, Default)]
pub struct Reply {
    /// The latest ping that has no pong yet. A peer that pings faster than it reads gets an answer to the last ping, as
    /// RFC 6455 section 5.5.3 has it.
    pub pong: Option<PingPayload>,
    /// The code to close with.
    pub close: Option<CloseCode>,
}

/// The end of a stream of messages.
#[derive(Debug, thiserror::Error)]
pub enum WebSocketEnd {
    /// The client closes.
    #[error("the client closed the WebSocket")]
    Closed,
    /// The client broke the protocol.
    #[error(transparent)]
    Violation(#[from] Violation),
    /// The content of the messages ends the connection.
    #[error("{}", .0.label())]
    Content(Close),
}

impl WebSocketEnd {
    /// The code to close with.
    #[must_use]
    pub const fn close_code(&self) -> CloseCode {
        match self {
            Self::Closed => CloseCode::Normal,
            Self::Violation(violation) => violation.close_code(),
            Self::Content(_) => CloseCode::Policy,
        }
    }
}

impl From<WebSocketEnd> for Close {
    fn from(end: WebSocketEnd) -> Self {
        match end {
            WebSocketEnd::Closed => Self::PeerClosed,
            WebSocketEnd::Violation(_) => Self::WebSocket,
            WebSocketEnd::Content(close) => close,
        }
    }
}

/// The place in a stream of messages from a client: bytes out of messages.
#[derive(Debug, Default)]
pub struct Unwrapper {
    decoder: Decoder,
    reply: Reply,
}

impl Unwrapper {
    /// Takes `bytes` apart where they lie and hands the content of messages to `receive`.
    fn unwrap(
        &mut self,
        mut bytes: &mut [u8],
        mut receive: impl FnMut(&[u8]) -> Result<(), Close>,
    ) -> Result<(), WebSocketEnd> {
        let end = loop {
            match self.decoder.next(&mut bytes) {
                Ok(None) => return Ok(()),
                Ok(Some(Piece::Data(data))) => match receive(data) {
                    Ok(()) => {}
                    Err(close) => break WebSocketEnd::Content(close),
                },
                Ok(Some(Piece::Ping(payload))) => self.reply.pong = Some(payload),
                Ok(Some(Piece::Close)) => break WebSocketEnd::Closed,
                Err(violation) => break WebSocketEnd::Violation(violation),
            }
        };
        self.reply.close = Some(end.close_code());
        Err(end)
    }

    /// Takes a few `bytes` apart where they lie and returns the content of messages.
    ///
    /// # Errors
    ///
    /// See [`WebSocketEnd`]. The stream is then at its end.
    pub fn unwrap_all(&mut self, bytes: &mut [u8]) -> Result<Vec<u8>, WebSocketEnd> {
        let mut content = Vec::with_capacity(bytes.len());
        self.unwrap(bytes, |data| {
            content.extend_from_slice(data);
            Ok(())
        })?;
        Ok(content)
    }

    /// Takes the answers that the unwrapped messages made due.
    pub fn take_reply(&mut self) -> Reply {
        std::mem::take(&mut self.reply)
    }
}

/// The decoder: bytes out of messages, and messages out of records if there is TLS.
#[derive(Debug)]
pub(crate) struct WebSocketReader {
    reader: Option<Reader<Server>>,
    unwrapper: Unwrapper,
}

impl WebSocketReader {
    pub(super) const fn new(reader: Option<Reader<Server>>, unwrapper: Unwrapper) -> Self {
        Self { reader, unwrapper }
    }

    pub(super) fn take_reply(&mut self) -> Option<Reply> {
        let reply = self.unwrapper.take_reply();
        (reply.pong.is_some() || reply.close.is_some()).then_some(reply)
    }
}

impl Decode for WebSocketReader {
    #[inline(never)]
    fn decode(&mut self, bytes: &mut [u8], sink: &mut impl FrameSink) -> Result<usize, Close> {
        let unwrapper = &mut self.unwrapper;
        let Some(reader) = &mut self.reader else {
            unwrapper.unwrap(bytes, |data| sink.receive(data))?;
            return Ok(bytes.len());
        };
        tls::open(reader, bytes, |plaintext| {
            // rustls does not lend its plaintext for writing.
            let mut copy = sink.pool().take();
            sink.pool().reserve(&mut copy, plaintext.len());
            copy.extend_from_slice(plaintext);
            let unwrapped = unwrapper.unwrap(&mut copy, |data| sink.receive(data));
            sink.pool().give(copy);
            Ok(unwrapped?)
        })
    }
}

/// The encoder: bytes into messages, and messages into records if there is TLS.
#[derive(Debug)]
pub(crate) struct WebSocketWriter {
    writer: Option<Writer<Server>>,
    reply: Reply,
}

impl WebSocketWriter {
    pub(super) const fn new(writer: Option<Writer<Server>>, reply: Reply) -> Self {
        Self { writer, reply }
    }

    pub(super) fn owe(&mut self, reply: Reply) {
        self.reply.pong = reply.pong.or(self.reply.pong.take());
        self.reply.close = reply.close.or(self.reply.close.take());
    }

    fn seal(&mut self, messages: &mut Messages, out: &mut SealBuffer) -> Result<(), TlsError> {
        if messages.is_empty() {
            return Ok(());
        }
        let sealed = match &mut self.writer {
            Some(writer) => writer.seal(messages.as_slice(), out),
            None => {
                out.append(messages.as_slice());
                Ok(())
            }
        };
        messages.clear();
        sealed
    }
}

impl Encode for WebSocketWriter {
    fn push(&mut self, frames: &[u8], scratch: &mut WriteScratch) -> Result<(), CannotEncode> {
        scratch.messages.push(frames);
        Ok(())
    }

    #[inline(never)]
    fn finish(&mut self, scratch: &mut WriteScratch) -> Result<(), CannotEncode> {
        scratch.messages.finish();
        if let Some(payload) = self.reply.pong.take() {
            scratch.messages.pong(&payload);
        }
        self.seal(&mut scratch.messages, &mut scratch.seal).map_err(|_| CannotEncode)
    }

    fn close(&mut self, reason: Close, scratch: &mut WriteScratch) {
        let code = self.reply.close.unwrap_or(match reason {
            Close::PeerClosed => CloseCode::Normal,
            Close::Shutdown => CloseCode::GoingAway,
            _ => CloseCode::Policy,
        });
        scratch.messages.close(code, reason.label());
        let _ = self.seal(&mut scratch.messages, &mut scratch.seal);
        if let Some(writer) = &mut self.writer {
            let _ = writer.close(&mut scratch.seal);
        }
    }
}
