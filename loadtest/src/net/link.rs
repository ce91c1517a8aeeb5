//! One connection to the relay, for a thread that serves many: non-blocking, with the thread's buffers.

use std::io::{self, ErrorKind, Read, Write};
use std::net::TcpStream;
use std::ops::ControlFlow;

use anyhow::Result;
use mio::event::Source;
use mio::{Interest, Registry, Token};
use towpath_tls::{MAX_RECORD, Reader, SealBuffer, Writer};
use towpath_wire::derp::frame::{ClientFrame, PingData, ServerFrame};
use towpath_wire::pool::BufferPool;

use crate::protocol::{RelayProtocol, RelaySession};

/// How much is read at once.
const READ_SIZE: usize = 64 * 1024;

/// The buffers of a thread.
#[derive(Debug)]
pub(crate) struct LinkBuffers {
    incoming: Box<[u8]>,
    sealed: SealBuffer,
    /// Frames to be sent by the next [`RelayLink::send`].
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

/// What a read came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LinkRead {
    /// There may be more.
    More,
    /// There is no more for now; the poll will tell.
    Drained,
    /// The relay has closed.
    Closed,
}

/// The two halves of TLS.
type TlsHalves = (Reader<towpath_tls::Client>, Writer<towpath_tls::Client>);

/// A logged-in connection.
#[derive(Debug)]
pub(crate) struct RelayLink {
    socket: mio::net::TcpStream,
    tls: Option<TlsHalves>,
    session: RelaySession,
    /// What was read and not opened.
    tail: Vec<u8>,
    /// What was opened and not used, from the login.
    early: Vec<u8>,
    /// What the socket did not take; `sent` of it has since been written.
    unsent: Vec<u8>,
    sent: usize,
}

impl RelayLink {
    /// Takes over a connection: `socket`, which must be non-blocking, what was read and not opened, and what was opened
    /// and not used.
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

    /// Has the poll tell, once for each change, when there is something to read or room to write.
    pub(crate) fn register(&mut self, registry: &Registry, token: Token) -> io::Result<()> {
        self.socket.register(registry, token, Interest::READABLE | Interest::WRITABLE)
    }

    /// Whether the socket has not taken all that was sent.
    pub(crate) const fn is_blocked(&self) -> bool {
        !self.unsent.is_empty()
    }

    /// What the relay speaks, and thus what [`send`](Self::send) must be given.
    pub(crate) const fn protocol(&self) -> RelayProtocol {
        self.session.protocol()
    }

    /// Seals the frames in `scratch` into one run of records and writes them at once. Only when not blocked; may leave
    /// the link blocked.
    pub(crate) fn send(&mut self, buffers: &mut LinkBuffers) -> Result<()> {
        debug_assert!(!self.is_blocked(), "one write at a time");
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

    /// Writes on, where the link is blocked.
    pub(crate) fn flush(&mut self) -> Result<()> {
        self.sent += write_some(&mut self.socket, &self.unsent[self.sent..])?;
        if self.sent == self.unsent.len() {
            self.unsent = Vec::new();
            self.sent = 0;
        }
        Ok(())
    }

    /// Reads once and hands on the frames that are whole. Answers pings.
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
            frames.cut(&std::mem::take(&mut self.early), &mut on_frame)?;
        }
        let incoming = &mut buffers.incoming[..held + read];
        let closed = match &mut self.tls {
            None => {
                frames.cut(incoming, &mut on_frame)?;
                self.tail.clear();
                false
            }
            Some((reader, _)) => {
                let mut broken = None;
                let opened =
                    reader.open(incoming, |plaintext| match frames.cut(plaintext, &mut on_frame) {
                        Ok(()) => ControlFlow::Continue(()),
                        Err(error) => {
                            broken = Some(error);
                            ControlFlow::Break(())
                        }
                    })?;
                if let Some(error) = broken {
                    return Err(error);
                }
                self.tail.clear();
                self.tail.extend_from_slice(&incoming[opened.consumed..]);
                opened.closed
            }
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

/// Cuts plaintext into frames.
struct FrameSplitter<'a> {
    session: &'a mut RelaySession,
    pool: &'a mut BufferPool,
    ping: Option<PingData>,
}

impl FrameSplitter<'_> {
    fn cut(&mut self, mut plaintext: &[u8], on_frame: &mut impl FnMut(ServerFrame<'_>)) -> Result<()> {
        while let Some(frame) = self.session.next(&mut plaintext, self.pool)? {
            match frame {
                ServerFrame::Ping(data) => self.ping = Some(data),
                frame => on_frame(frame),
            }
        }
        Ok(())
    }
}

/// Writes what the socket takes.
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
