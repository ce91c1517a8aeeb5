//! The two sides of a transport that is a byte stream on a TCP socket.
//!
//! Such transports differ in how the bytes of the socket become bytes of DERP
//! ([`Decode`]) and the reverse ([`Encode`]). This module does what they share: it reads, keeps incomplete records,
//! writes, and keeps what a full socket does not take.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::Arc;

use towpath_relay_proto::egress::Sent;
use towpath_relay_proto::outbox::Batch;
use towpath_relay_proto::session::Close;
use towpath_tls::SealBuffer;
use towpath_websocket::Messages;
use towpath_wire::pool::BufferPool;
use towpath_wire::time::Instant;

/// How much is read at once. System calls are a fifth of what `perf` finds in a relay; larger reads save no more of
/// them.
pub(crate) const READ_SIZE: usize = 64 * 1024;

/// How much is encoded before it is written. Larger writes save no more, and when a socket is full they leave more
/// ciphertext behind, which cannot be dropped any more.
const MAX_WRITE: usize = 64 * 1024;

/// The least that is encoded for a write, however little memory is free.
const MIN_WRITE: usize = 4 * 1024;
/// The part of the memory that is free which one write may leave behind when its socket is full.
const ROOM_PART: usize = 64;

/// How much is encoded before it is written.
#[inline]
fn max_write(pool: &BufferPool) -> usize {
    (pool.room() / ROOM_PART).clamp(MIN_WRITE, MAX_WRITE)
}

/// The receiver of decoded bytes.
pub(crate) trait FrameSink {
    /// The caller's pool of buffers.
    fn pool(&mut self) -> &mut BufferPool;

    /// Acts on the frames in `frames`, a slice of the stream that may end anywhere.
    fn receive(&mut self, frames: &[u8]) -> Result<(), Close>;
}

/// How the bytes of a socket become bytes of DERP.
pub(crate) trait Decode {
    /// Hands the DERP bytes in `bytes` to `sink`. Returns how many bytes are used up; the rest is the start of a
    /// record.
    fn decode(&mut self, bytes: &mut [u8], sink: &mut impl FrameSink) -> Result<usize, Close>;
}

/// How the bytes of DERP become bytes of a socket.
pub(crate) trait Encode {
    /// Adds frames to what is written next.
    fn push(&mut self, frames: &[u8], scratch: &mut WriteScratch) -> Result<(), CannotEncode>;

    /// Completes what is written next.
    fn finish(&mut self, _: &mut WriteScratch) -> Result<(), CannotEncode> {
        Ok(())
    }

    /// Adds the closing messages of the protocol. If encoding fails, the buffer may still hold an alert to send.
    fn close(&mut self, reason: Close, scratch: &mut WriteScratch);
}

/// An encoder that has failed: the connection is no longer usable.
#[derive(Debug)]
pub(crate) struct CannotEncode;

/// Buffers of a thread that every write borrows.
#[derive(Debug)]
pub(crate) struct WriteScratch {
    /// What the next write takes.
    pub(super) seal: SealBuffer,
    /// Messages on their way to `seal`.
    pub(super) messages: Messages,
    /// Writes so far.
    pub(crate) writes: u64,
}

impl WriteScratch {
    pub(crate) fn new() -> Self {
        // A chunk may be one frame longer than a write.
        Self { seal: SealBuffer::with_capacity(2 * MAX_WRITE), messages: Messages::default(), writes: 0 }
    }
}

/// What a read found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ReadOutcome {
    /// Bytes read.
    pub(crate) bytes: usize,
    /// There may be more to read. If false, epoll reports it when there is.
    pub(crate) more: bool,
}

/// The inbound side: a socket, and the start of an incomplete record.
#[derive(Debug)]
pub(crate) struct StreamInbound<D> {
    decoder: D,
    socket: Arc<TcpStream>,
    tail: Vec<u8>,
    /// How many records were cut, so that one cut record can be told from the next.
    cut: u32,
    hung_up: bool,
}

impl<D> StreamInbound<D> {
    pub(super) const fn new(socket: Arc<TcpStream>, decoder: D, incoming: Vec<u8>) -> Self {
        Self { decoder, socket, tail: incoming, cut: 0, hung_up: false }
    }

    pub(super) const fn decoder_mut(&mut self) -> &mut D {
        &mut self.decoder
    }

    pub(super) fn socket(&self) -> &TcpStream {
        &self.socket
    }

    /// The number of the record that has begun and is not whole; `None` if there is none.
    pub(super) const fn unfinished(&self) -> Option<u32> {
        if self.tail.is_empty() { None } else { Some(self.cut) }
    }

    /// Bytes of a record that has begun and is not whole.
    pub(super) const fn held(&self) -> usize {
        self.tail.len()
    }

    /// Gives up a record that is not whole and returns its buffer.
    pub(super) fn clear(&mut self, pool: &mut BufferPool) {
        pool.give(std::mem::take(&mut self.tail));
    }

    pub(super) const fn note_hang_up(&mut self) {
        self.hung_up = true;
    }
}

impl<D: Decode> StreamInbound<D> {
    pub(super) fn resume(&mut self, sink: &mut impl FrameSink) -> Result<(), Close> {
        let mut incoming = std::mem::take(&mut self.tail);
        self.decode(&mut incoming, sink)
    }

    pub(super) fn read(
        &mut self,
        buffer: &mut [u8],
        sink: &mut impl FrameSink,
    ) -> Result<ReadOutcome, Close> {
        let kept = self.tail.len();
        let room = &mut buffer[kept..kept + READ_SIZE];
        let read = match (&*self.socket).read(room) {
            Ok(0) => return Err(Close::PeerClosed),
            Ok(read) => read,
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                return Ok(ReadOutcome { bytes: 0, more: false });
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => {
                return Ok(ReadOutcome { bytes: 0, more: true });
            }
            Err(error) if error.kind() == ErrorKind::ConnectionReset => return Err(Close::PeerClosed),
            Err(_) => return Err(Close::Socket),
        };
        if kept > 0 {
            buffer[..kept].copy_from_slice(&self.tail);
            sink.pool().give(std::mem::take(&mut self.tail));
        }
        self.decode(&mut buffer[..kept + read], sink)?;
        Ok(ReadOutcome { bytes: read, more: read == READ_SIZE || self.hung_up })
    }

    /// Decodes `bytes` and keeps an incomplete record at their end.
    fn decode(&mut self, bytes: &mut [u8], sink: &mut impl FrameSink) -> Result<(), Close> {
        let consumed = self.decoder.decode(bytes, sink)?;
        let rest = &bytes[consumed..];
        if !rest.is_empty() {
            self.cut = self.cut.wrapping_add(u32::from(consumed > 0));
            self.tail = sink.pool().take();
            sink.pool().reserve(&mut self.tail, rest.len());
            self.tail.extend_from_slice(rest);
        }
        Ok(())
    }
}

/// The outbound side: a socket, and what it did not take.
#[derive(Debug)]
pub(crate) struct StreamOutbound<E> {
    /// `None` once closed: senders may hold the peer for long after that, and what they hold has no keys.
    encoder: Option<E>,
    /// `None` once closed.
    socket: Option<Arc<TcpStream>>,
    /// Encoded bytes that the socket did not take, up to `written` of them written since.
    unsent: Vec<u8>,
    written: usize,
    progress: Instant,
}

/// What became of a write.
enum Wrote {
    All,
    Part(usize),
    Failed,
}

impl<E> StreamOutbound<E> {
    pub(super) const fn new(socket: Arc<TcpStream>, encoder: E) -> Self {
        Self {
            encoder: Some(encoder),
            socket: Some(socket),
            unsent: Vec::new(),
            written: 0,
            progress: Instant::ZERO,
        }
    }

    pub(super) const fn encoder_mut(&mut self) -> Option<&mut E> {
        self.encoder.as_mut()
    }

    pub(super) const fn progress(&self) -> Instant {
        self.progress
    }

    /// Writes once. A failure wakes the owner, which closes the connection.
    fn write(&self, bytes: &[u8], writes: &mut u64) -> Wrote {
        let Some(socket) = &self.socket else { return Wrote::Failed };
        loop {
            *writes += 1;
            match (&**socket).write(bytes) {
                Ok(written) if written == bytes.len() => return Wrote::All,
                Ok(written) => return Wrote::Part(written),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Wrote::Part(0),
                Err(_) => {
                    let _ = socket.shutdown(Shutdown::Both);
                    return Wrote::Failed;
                }
            }
        }
    }

    /// Writes what an earlier write left.
    fn write_unsent(&mut self, now: Instant, pool: &mut BufferPool, writes: &mut u64) -> Sent {
        match self.write(&self.unsent[self.written..], writes) {
            Wrote::All => {
                pool.release(std::mem::take(&mut self.unsent));
                self.written = 0;
                self.progress = now;
                Sent::All
            }
            Wrote::Part(0) => Sent::Blocked,
            Wrote::Part(written) => {
                self.written += written;
                self.progress = now;
                Sent::Blocked
            }
            Wrote::Failed => Sent::Failed,
        }
    }

    /// Writes what was encoded and keeps what the socket does not take.
    fn write_encoded(&mut self, now: Instant, pool: &mut BufferPool, scratch: &mut WriteScratch) -> Sent {
        let encoded = scratch.seal.as_slice();
        match self.write(encoded, &mut scratch.writes) {
            Wrote::All => {
                self.progress = now;
                Sent::All
            }
            Wrote::Part(written) => {
                if written > 0 {
                    self.progress = now;
                }
                let unsent = &encoded[written..];
                self.unsent = pool.allocate(unsent.len());
                self.unsent.extend_from_slice(unsent);
                Sent::Blocked
            }
            Wrote::Failed => Sent::Failed,
        }
    }
}

impl<E: Encode> StreamOutbound<E> {
    /// See [`towpath_relay_proto::egress::Transmit::send`].
    pub(super) fn send(
        &mut self,
        mut batch: Option<&mut Batch>,
        now: Instant,
        pool: &mut BufferPool,
        scratch: &mut WriteScratch,
    ) -> Sent {
        if !self.unsent.is_empty() {
            let resumed = self.write_unsent(now, pool, &mut scratch.writes);
            if resumed != Sent::All {
                return resumed;
            }
        }
        loop {
            scratch.seal.clear();
            if self.fill(batch.as_deref_mut(), max_write(pool), scratch).is_err() {
                scratch.messages.clear();
                if let Some(socket) = &self.socket {
                    let _ = socket.shutdown(Shutdown::Both);
                }
                return Sent::Failed;
            }
            if scratch.seal.is_empty() {
                return Sent::All;
            }
            match self.write_encoded(now, pool, scratch) {
                Sent::All => {}
                other => return other,
            }
        }
    }

    /// Encodes for one write as much of `batch` as goes into it, at most `most` bytes unless one frame alone is longer.
    #[inline]
    fn fill(
        &mut self,
        batch: Option<&mut Batch>,
        most: usize,
        scratch: &mut WriteScratch,
    ) -> Result<(), CannotEncode> {
        let Some(encoder) = &mut self.encoder else { return Err(CannotEncode) };
        if let Some(batch) = batch {
            let mut room = most;
            while let Some(chunk) = batch.chunk(room)
                && (chunk.len() <= room || room == most)
            {
                let len = chunk.len();
                encoder.push(chunk, scratch)?;
                batch.advance(len);
                room = room.saturating_sub(len);
            }
        }
        encoder.finish(scratch)
    }

    /// Closes the socket, after its closing messages as far as it takes them without waiting. The encoder is dropped, and
    /// with it its keys are wiped.
    pub(super) fn end(&mut self, reason: Close, pool: &mut BufferPool, scratch: &mut WriteScratch) {
        let (Some(socket), Some(mut encoder)) = (self.socket.take(), self.encoder.take()) else { return };
        if self.unsent.is_empty() {
            scratch.seal.clear();
            encoder.close(reason, scratch);
            if !scratch.seal.is_empty() {
                let _ = (&*socket).write(scratch.seal.as_slice());
            }
        }
        pool.release(std::mem::take(&mut self.unsent));
        let _ = socket.shutdown(Shutdown::Write);
    }
}
