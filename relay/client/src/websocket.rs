//! DERP in WebSocket messages, from the client's side: what comes is unwrapped, what goes is masked.
//!
//! Messages are a byte pipe: either side cuts the stream of frames where it likes. Until the login is done, the pipe is a
//! [`WebSocketStream`]; then each direction has its half of it, an [`Unwrapper`] and [`append`].

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use towpath_websocket::{Client, Decoder, MAX_MASKED_PAYLOAD, MaskedFrame, Piece, PingPayload, Violation};

/// How much is read at once during the login.
const READ_SIZE: usize = 4 * 1024;

/// Appends a frame with a fresh mask.
pub(crate) fn append(frame: MaskedFrame<'_>, out: &mut Vec<u8>) -> io::Result<()> {
    let mut mask = [0; 4];
    getrandom::fill(&mut mask)?;
    frame.append(mask, out);
    Ok(())
}

/// What the relay is to be answered in WebSocket itself.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Owed {
    /// To the last ping, which is enough by RFC 6455 section 5.5.3.
    Pong(PingPayload),
    Close,
}

/// The place in the relay's stream of messages: bytes out of messages.
#[derive(Debug, Default)]
pub(crate) struct Unwrapper {
    decoder: Decoder<Client>,
    owed: Option<Owed>,
    closed: bool,
}

impl Unwrapper {
    /// Takes messages apart and appends what is in them to `content`.
    pub(crate) fn unwrap(&mut self, mut messages: &mut [u8], content: &mut Vec<u8>) -> Result<(), Violation> {
        while let Some(piece) = self.decoder.next(&mut messages)? {
            match piece {
                Piece::Data(bytes) => content.extend_from_slice(bytes),
                Piece::Ping(payload) => self.owed = Some(Owed::Pong(payload)),
                Piece::Close => {
                    self.owed = Some(Owed::Close);
                    self.closed = true;
                }
            }
        }
        Ok(())
    }

    /// What the messages so far made due.
    pub(crate) const fn take_owed(&mut self) -> Option<Owed> {
        self.owed.take()
    }

    /// Whether the relay has closed the WebSocket.
    pub(crate) const fn is_closed(&self) -> bool {
        self.closed
    }
}

/// A stream of bytes in messages on another stream.
#[derive(Debug)]
pub(crate) struct WebSocketStream<'s, S> {
    stream: &'s mut S,
    unwrapper: Unwrapper,
    /// What was unwrapped and, from `taken` on, not read.
    content: Vec<u8>,
    taken: usize,
    /// Frames of which those from `sent` on are not written.
    out: Vec<u8>,
    sent: usize,
}

impl<'s, S: AsyncRead + AsyncWrite + Unpin> WebSocketStream<'s, S> {
    /// The stream behind the upgrade. `early` was read with its response.
    pub(crate) fn new(stream: &'s mut S, mut early: Vec<u8>) -> Result<Self, Violation> {
        let (mut unwrapper, mut content) = (Unwrapper::default(), Vec::new());
        unwrapper.unwrap(&mut early, &mut content)?;
        Ok(Self { stream, unwrapper, content, taken: 0, out: Vec::new(), sent: 0 })
    }

    /// The place in the stream, and what was unwrapped and not read. Call it after a flush.
    pub(crate) fn into_parts(mut self) -> (Unwrapper, Vec<u8>) {
        self.content.drain(..self.taken);
        (self.unwrapper, self.content)
    }

    /// Writes the frames that wait, and flushes.
    fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.sent < self.out.len() {
            match ready!(Pin::new(&mut *self.stream).poll_write(cx, &self.out[self.sent..]))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                written => self.sent += written,
            }
        }
        self.out.clear();
        self.sent = 0;
        Pin::new(&mut *self.stream).poll_flush(cx)
    }

    /// Answers a ping, once nothing else waits: no relay can make answers pile up.
    fn poll_owed(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_send(cx))?;
        if let Some(Owed::Pong(payload)) = &self.unwrapper.owed {
            append(MaskedFrame::Pong(payload), &mut self.out)?;
            self.unwrapper.owed = None;
            ready!(self.poll_send(cx))?;
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for WebSocketStream<'_, S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        loop {
            let waiting = &this.content[this.taken..];
            if !waiting.is_empty() {
                let taken = waiting.len().min(buf.remaining());
                buf.put_slice(&waiting[..taken]);
                this.taken += taken;
                return Poll::Ready(Ok(()));
            }
            this.content.clear();
            this.taken = 0;
            if this.unwrapper.is_closed() {
                return Poll::Ready(Ok(()));
            }
            // Reading goes on while an answer waits.
            if let Poll::Ready(answered) = this.poll_owed(cx) {
                answered?;
            }
            let mut chunk = [0; READ_SIZE];
            let mut read = ReadBuf::new(&mut chunk);
            ready!(Pin::new(&mut *this.stream).poll_read(cx, &mut read))?;
            if read.filled().is_empty() {
                return Poll::Ready(Ok(()));
            }
            let unwrapped = this.unwrapper.unwrap(read.filled_mut(), &mut this.content);
            unwrapped.map_err(|violation| io::Error::new(io::ErrorKind::InvalidData, violation))?;
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for WebSocketStream<'_, S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        ready!(this.poll_send(cx))?;
        let taken = bytes.len().min(MAX_MASKED_PAYLOAD);
        append(MaskedFrame::Binary(&bytes[..taken]), &mut this.out)?;
        Poll::Ready(Ok(taken))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.get_mut().poll_owed(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(this.poll_send(cx))?;
        Pin::new(&mut *this.stream).poll_shutdown(cx)
    }
}
