//! WebSocket between a socket and DERP.
//!
//! Messages are a byte pipe: DERP frames are cut and put together as the sender likes. Both directions are the data
//! plane's as for any other connection; what is here is the layer between records and frames, one box on each side of
//! a connection that speaks WebSocket and nothing on one that does not. The reading side cannot write, because whoever
//! flushes may be another thread: it leaves what it owes in [`Replies`] and nudges the outbox.

use std::sync::{Arc, Mutex, MutexGuard};

use towpath_relay_proto::session::Close;
use towpath_tls::{Reader, SealBuffer, TlsError, Writer};
use towpath_websocket::{CloseCode, Decoder, Messages, Piece, PingPayload, Violation};

use super::connection::Client;
use super::desk::Desk;
use super::inlet::open_records;

/// What the reading side of a connection owes the client.
#[derive(Debug, Default)]
struct Owed {
    /// The latest ping that has no pong yet; who pings faster than it reads gets an answer to the last one, as RFC 6455
    /// section 5.5.3 has it.
    pong: Option<PingPayload>,
    close: Option<CloseCode>,
}

/// What the reading side of a connection leaves for the writing side.
#[derive(Clone, Debug, Default)]
struct Replies(Arc<Mutex<Owed>>);

impl Replies {
    fn lock(&self) -> MutexGuard<'_, Owed> {
        self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

/// What a client's messages came to.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Stop {
    /// The client closes.
    #[error("the client closed")]
    Closed,
    /// The client broke the protocol.
    #[error(transparent)]
    Violation(#[from] Violation),
    /// What was in the messages is of no use.
    #[error("{}", .0.label())]
    Content(Close),
}

impl Stop {
    const fn close_code(&self) -> CloseCode {
        match self {
            Self::Closed => CloseCode::Normal,
            Self::Violation(violation) => violation.close_code(),
            Self::Content(_) => CloseCode::Policy,
        }
    }
}

impl From<Stop> for Close {
    fn from(stop: Stop) -> Self {
        match stop {
            Stop::Closed => Self::PeerClosed,
            Stop::Violation(_) => Self::WebSocket,
            Stop::Content(close) => close,
        }
    }
}

/// The reading side: bytes out of messages.
#[derive(Debug, Default)]
pub(crate) struct Unwrapper {
    decoder: Decoder,
    replies: Replies,
}

/// What of a slice of the stream concerns others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub(crate) enum Replying {
    /// Nothing.
    Nothing,
    /// A ping waits for its pong.
    Pong,
}

impl Unwrapper {
    /// Takes `bytes` apart where they lie and hands on what was in messages.
    pub(crate) fn unwrap(
        &mut self,
        mut bytes: &mut [u8],
        mut handle: impl FnMut(&[u8]) -> Result<(), Close>,
    ) -> Result<Replying, Stop> {
        let mut replying = Replying::Nothing;
        let stop = loop {
            match self.decoder.next(&mut bytes) {
                Ok(None) => return Ok(replying),
                Ok(Some(Piece::Data(data))) => match handle(data) {
                    Ok(()) => {}
                    Err(close) => break Stop::Content(close),
                },
                Ok(Some(Piece::Ping(payload))) => {
                    self.replies.lock().pong = Some(payload);
                    replying = Replying::Pong;
                }
                Ok(Some(Piece::Close)) => break Stop::Closed,
                Err(violation) => break Stop::Violation(violation),
            }
        };
        self.replies.lock().close = Some(stop.close_code());
        Err(stop)
    }

    /// The same for a few bytes, whose content is returned.
    pub(crate) fn unwrap_all(&mut self, bytes: &mut [u8]) -> Result<(Vec<u8>, Replying), Stop> {
        let mut content = Vec::with_capacity(bytes.len());
        let replying = self.unwrap(bytes, |data| {
            content.extend_from_slice(data);
            Ok(())
        })?;
        Ok((content, replying))
    }

    /// The writing side of the same connection.
    pub(crate) fn wrapper(&self) -> Wrapper {
        Wrapper { replies: self.replies.clone() }
    }
}

/// The writing side: what was left by the reading side.
#[derive(Debug)]
pub(crate) struct Wrapper {
    replies: Replies,
}

impl Wrapper {
    /// Ends what was pushed to `messages` and adds the pong that is owed.
    pub(crate) fn finish(&self, messages: &mut Messages) {
        messages.finish();
        if let Some(payload) = self.replies.lock().pong.take() {
            messages.pong(&payload);
        }
    }

    /// The last words: with the code that the reading side left, else with that of `reason`.
    pub(crate) fn close(&self, reason: Close, messages: &mut Messages) {
        let code = self.replies.lock().close.unwrap_or(match reason {
            Close::PeerClosed => CloseCode::Normal,
            Close::Shutdown => CloseCode::GoingAway,
            _ => CloseCode::Policy,
        });
        messages.close(code, reason.label());
    }
}

/// A connection's way in, where it speaks WebSocket.
#[derive(Debug)]
pub(crate) struct MessageInlet {
    /// `None` on a plain connection.
    pub(crate) reader: Option<Reader<towpath_tls::Server>>,
    pub(crate) unwrapper: Unwrapper,
}

impl MessageInlet {
    /// Acts on what is in `bytes`, as they came from the socket. Returns how many are used up.
    #[inline(never)]
    pub(super) fn open(
        &mut self,
        bytes: &mut [u8],
        client: &mut Client,
        desk: &mut Desk<'_>,
    ) -> Result<usize, Close> {
        let unwrapper = &mut self.unwrapper;
        let Some(reader) = &mut self.reader else {
            let read = bytes.len();
            receive(unwrapper, bytes, client, desk)?;
            return Ok(read);
        };
        open_records(reader, bytes, |plaintext| {
            // rustls does not lend its plaintext for writing.
            let mut copy = desk.pool.take();
            copy.extend_from_slice(plaintext);
            let received = receive(unwrapper, &mut copy, client, desk);
            desk.pool.give(copy);
            received
        })
    }
}

fn receive(
    unwrapper: &mut Unwrapper,
    bytes: &mut [u8],
    client: &mut Client,
    desk: &mut Desk<'_>,
) -> Result<(), Close> {
    let replying = unwrapper.unwrap(bytes, |data| client.handle(data, desk))?;
    if replying == Replying::Pong {
        client.nudge(desk);
    }
    Ok(())
}

/// A connection's way out, where it speaks WebSocket.
#[derive(Debug)]
pub(crate) struct MessageSink {
    /// `None` on a plain connection.
    pub(crate) writer: Option<Writer<towpath_tls::Server>>,
    pub(crate) wrapper: Wrapper,
}

impl MessageSink {
    /// Appends what was pushed to `messages`, and the pong that is owed, to what is written.
    #[inline(never)]
    pub(super) fn finish(&mut self, messages: &mut Messages, out: &mut SealBuffer) -> Result<(), TlsError> {
        self.wrapper.finish(messages);
        self.seal(messages, out)
    }

    /// Appends the last words.
    pub(super) fn close(&mut self, reason: Close, messages: &mut Messages, out: &mut SealBuffer) {
        self.wrapper.close(reason, messages);
        // Where sealing fails an alert may still be owed, and is then in the buffer.
        let _ = self.seal(messages, out);
        if let Some(writer) = &mut self.writer {
            let _ = writer.close(out);
        }
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
