//! A logged-in connection to the relay, non-blocking, for a thread that serves many and lends its buffers to each.

use std::io::{self, ErrorKind, Read, Write};
use std::net::TcpStream;
use std::ops::ControlFlow;

use anyhow::Result;
use mio::event::Source;
use mio::{Interest, Registry, Token};
use towpath_tls::{Client, MAX_RECORD, Reader, SealBuffer, Writer};
use towpath_wire::derp::frame::{ClientFrame, PingData, ServerFrame};
use towpath_wire::pool::BufferPool;

use crate::protocol::{RelayProtocol, RelaySession};

/// The bytes that one read takes at most.
const READ_SIZE: usize = 64 * 1024;

/// The buffers of a thread, which all its links use.
#[derive(Debug)]
pub(crate) struct LinkBuffers {
    incoming: Box<[u8]>,
    sealed: SealBuffer,
    /// The frames that the next [`RelayLink::send`] sends.
    pub(crate) frames: Vec<u8>,
    pool: BufferPool,
}

impl LinkBuffers {
    pub(crate) fn new() -> Self {
        Self {
            incoming: vec![0; READ_SIZE + MAX_RECORD].into(),
            sealed: SealBuffer::with_capacity(READ_SIZE),
            frames: Vec::with_capacity(READ_SIZE),
            pool: BufferPool::default(),
        }
    }
}

/// The state of a link after a read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LinkRead {
    /// There may be more to read.
    More,
    /// The socket is empty. The poll reports when there is more.
    Drained,
    /// The relay has closed the connection.
    Closed,
}

/// The two halves of a TLS connection.
type TlsHalves = (Reader<Client>, Writer<Client>);

/// A logged-in connection to the relay.
#[derive(Debug)]
pub(crate) struct RelayLink {
    socket: mio::net::TcpStream,
    tls: Option<TlsHalves>,
    session: RelaySession,
    /// Bytes that were read and not yet decrypted: the beginning of a record.
    tail: Vec<u8>,
    /// Plaintext that arrived behind the login.
    early: Vec<u8>,
    /// Bytes that the socket had no room for; the first `sent` of them are written by now.
    unsent: Vec<u8>,
    sent: usize,
}

impl RelayLink {
    /// Takes over a connection after its login: the socket, which must be non-blocking, the bytes that were read and
    /// not yet decrypted (`tail`), and the plaintext that was not yet used (`early`).
    pub(crate) fn new(
        socket: TcpStream,
        tls: Option<TlsHalves>,
        session: RelaySession,
        tail: Vec<u8>,
        early: Vec<u8>,
    ) -> Self {
        let socket = mio::net::TcpStream::from_std(socket);
        Self { socket, tls, session, tail, early, unsent: Vec::new(), sent: 0 }
    }

    /// Registers the link for edge-triggered events: something to read, and room to write.
    pub(crate) fn register(&mut self, registry: &Registry, token: Token) -> io::Result<()> {
        self.socket.register(registry, token, Interest::READABLE | Interest::WRITABLE)
    }

    /// Whether bytes that were sent still wait for room in the socket.
    pub(crate) const fn is_blocked(&self) -> bool {
        !self.unsent.is_empty()
    }

    /// The relay's protocol, in which the frames for [`send`](Self::send) must be encoded.
    pub(crate) const fn protocol(&self) -> RelayProtocol {
        self.session.protocol()
    }

    /// Encrypts the frames in `buffers` and writes them at once. The link must not be blocked, and may be blocked
    /// after.
    pub(crate) fn send(&mut self, buffers: &mut LinkBuffers) -> Result<()> {
        debug_assert!(!self.is_blocked(), "a blocked link must be flushed before it sends");
        let bytes = match &mut self.tls {
            Some((_, writer)) => {
                buffers.sealed.clear();
                writer.seal(&buffers.frames, &mut buffers.sealed)?;
                buffers.sealed.as_slice()
            }
            None => &buffers.frames,
        };
        let written = write_some(&mut self.socket, bytes)?;
        self.unsent.extend_from_slice(&bytes[written..]);
        buffers.frames.clear();
        Ok(())
    }

    /// Writes what a blocked link still has to write, as far as the socket has room.
    pub(crate) fn flush(&mut self) -> Result<()> {
        self.sent += write_some(&mut self.socket, &self.unsent[self.sent..])?;
        if self.sent == self.unsent.len() {
            self.unsent = Vec::new();
            self.sent = 0;
        }
        Ok(())
    }

    /// Reads once, and calls `on_frame` with each whole frame. Answers pings itself.
    pub(crate) fn read(
        &mut self,
        buffers: &mut LinkBuffers,
        mut on_frame: impl FnMut(ServerFrame<'_>),
    ) -> Result<LinkRead> {
        let held = self.tail.len();
        buffers.incoming[..held].copy_from_slice(&self.tail);
        let (read, outcome) = match self.socket.read(&mut buffers.incoming[held..]) {
            Ok(0) => (0, LinkRead::Closed),
            Ok(read) if held + read < buffers.incoming.len() => (read, LinkRead::Drained),
            Ok(read) => (read, LinkRead::More),
            Err(error) if error.kind() == ErrorKind::WouldBlock => (0, LinkRead::Drained),
            Err(error) if error.kind() == ErrorKind::Interrupted => (0, LinkRead::More),
            Err(error) => return Err(error.into()),
        };
        let mut frames = FrameSplitter { session: &mut self.session, pool: &mut buffers.pool, ping: None };
        if !self.early.is_empty() {
            frames.split(&std::mem::take(&mut self.early), &mut on_frame)?;
        }
        let incoming = &mut buffers.incoming[..held + read];
        let closed = match &mut self.tls {
            None => {
                frames.split(incoming, &mut on_frame)?;
                self.tail.clear();
                false
            }
            Some((reader, _)) => open_records(reader, incoming, &mut self.tail, |plaintext| {
                frames.split(plaintext, &mut on_frame)
            })?,
        };
        if let Some(data) = frames.ping
            && !self.is_blocked()
        {
            self.protocol().encode(&ClientFrame::Pong(data), &mut buffers.frames);
            self.send(buffers)?;
        }
        Ok(if closed { LinkRead::Closed } else { outcome })
    }
}

/// Splits plaintext into frames.
struct FrameSplitter<'a> {
    session: &'a mut RelaySession,
    pool: &'a mut BufferPool,
    ping: Option<PingData>,
}

impl FrameSplitter<'_> {
    fn split(&mut self, mut plaintext: &[u8], on_frame: &mut impl FnMut(ServerFrame<'_>)) -> Result<()> {
        while let Some(frame) = self.session.next(&mut plaintext, self.pool)? {
            match frame {
                ServerFrame::Ping(data) => self.ping = Some(data),
                frame => on_frame(frame),
            }
        }
        Ok(())
    }
}

/// Decrypts the records in `incoming`, calls `on_plaintext` for each, and keeps the beginning of the next one in
/// `tail`. Returns whether the relay has closed the connection.
fn open_records(
    reader: &mut Reader<Client>,
    incoming: &mut [u8],
    tail: &mut Vec<u8>,
    mut on_plaintext: impl FnMut(&[u8]) -> Result<()>,
) -> Result<bool> {
    let mut failed = None;
    let opened = reader.open(incoming, |plaintext| match on_plaintext(plaintext) {
        Ok(()) => ControlFlow::Continue(()),
        Err(error) => {
            failed = Some(error);
            ControlFlow::Break(())
        }
    })?;
    if let Some(error) = failed {
        return Err(error);
    }
    tail.clear();
    tail.extend_from_slice(&incoming[opened.consumed..]);
    Ok(opened.closed)
}

/// Writes as much as the socket has room for.
fn write_some(socket: &mut mio::net::TcpStream, bytes: &[u8]) -> io::Result<usize> {
    let mut written = 0;
    while written < bytes.len() {
        match socket.write(&bytes[written..]) {
            Ok(0) => return Err(ErrorKind::WriteZero.into()),
            Ok(more) => written += more,
            Err(error) if error.kind() == ErrorKind::WouldBlock => break,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(written)
}
