//! A connection as the rest of the data plane sees it: a key, two flags, an outbox and the way out to the socket. It is
//! that of a client, or one of our own to another relay.

use std::io::{ErrorKind, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

use towpath_relay_proto::egress::{Egress, Sent, Transmit};
use towpath_relay_proto::news::Change;
use towpath_relay_proto::outbox::Batch;
use towpath_relay_proto::presence::Connection;
use towpath_relay_proto::session::Close;
use towpath_tls::{SealBuffer, Writer};
use towpath_websocket::Messages;
use towpath_wire::derp::mesh::PresentFlags;
use towpath_wire::key::NodePublic;
use towpath_wire::pool::BufferPool;
use towpath_wire::time::Instant;

use super::websocket::MessageSink;

/// How much is sealed before it is written. Larger writes save no more and keep more ciphertext when a socket is full,
/// which cannot be dropped any more.
const MAX_WRITE: usize = 64 * 1024;

/// A logged-in connection.
#[derive(Debug)]
pub(crate) struct Peer {
    pub(crate) key: NodePublic,
    pub(crate) id: u64,
    pub(crate) address: SocketAddr,
    /// What watchers are told of it.
    flags: PresentFlags,
    /// Whether packets for the key go to this connection.
    active: AtomicBool,
    /// Whether the key has other connections.
    shared: AtomicBool,
    /// The worker that reads the connection, and its place there.
    owner: AtomicUsize,
    token: AtomicUsize,
    pub(crate) egress: Egress<Outlet>,
    /// When the socket last took bytes, in nanoseconds of the data plane's clock.
    progress: Arc<AtomicU64>,
}

impl Peer {
    pub(crate) fn new(
        key: NodePublic,
        id: u64,
        address: SocketAddr,
        flags: PresentFlags,
        socket: Arc<TcpStream>,
        sink: Sink,
    ) -> Self {
        let progress = Arc::new(AtomicU64::new(0));
        let outlet =
            Outlet { sink, socket: Some(socket), unsent: Vec::new(), written: 0, progress: progress.clone() };
        Self {
            key,
            id,
            address,
            flags,
            active: AtomicBool::new(false),
            shared: AtomicBool::new(false),
            owner: AtomicUsize::new(usize::MAX),
            token: AtomicUsize::new(usize::MAX),
            egress: Egress::new(outlet),
            progress,
        }
    }

    /// Notes which worker reads the connection, and its place there.
    pub(crate) fn settle(&self, owner: usize, token: usize) {
        self.token.store(token, Ordering::Relaxed);
        self.owner.store(owner, Ordering::Release);
    }

    /// The worker that reads the connection, and its place there.
    pub(crate) fn place(&self) -> (usize, usize) {
        (self.owner.load(Ordering::Acquire), self.token.load(Ordering::Relaxed))
    }

    /// Whether packets for the key go to this connection. Where not, the registry knows which.
    #[inline]
    pub(crate) fn is_active(&self) -> bool {
        self.active.load(Ordering::Acquire)
    }

    /// Whether the key has other connections, so that what this one sends must be noted.
    #[inline]
    pub(crate) fn is_shared(&self) -> bool {
        self.shared.load(Ordering::Relaxed)
    }

    /// Whether another relay is at the other end, or somebody with its rights.
    pub(crate) const fn is_mesh(&self) -> bool {
        self.flags.has(PresentFlags::MESH_PEER)
    }

    /// What watchers are told when it comes.
    pub(crate) const fn change(&self) -> Change {
        Change::Present { address: self.address, flags: self.flags }
    }

    /// When the socket last took bytes.
    pub(crate) fn progress(&self) -> Instant {
        Instant::from_nanos(self.progress.load(Ordering::Relaxed))
    }
}

impl Connection for Peer {
    fn id(&self) -> u64 {
        self.id
    }

    fn set_active(&self, active: bool) {
        self.active.store(active, Ordering::Release);
    }

    fn set_shared(&self, shared: bool) {
        self.shared.store(shared, Ordering::Relaxed);
    }
}

/// What a thread lends to every write.
#[derive(Debug)]
pub(crate) struct Scratch {
    seal: SealBuffer,
    messages: Messages,
    pool: BufferPool,
    /// The time of the current turn.
    pub(crate) now: Instant,
    /// Writes so far.
    pub(crate) writes: u64,
}

impl Scratch {
    pub(crate) fn new() -> Self {
        Self {
            // A chunk may be one frame longer than a write.
            seal: SealBuffer::with_capacity(2 * MAX_WRITE),
            messages: Messages::default(),
            pool: BufferPool::default(),
            now: Instant::ZERO,
            writes: 0,
        }
    }
}

/// TLS can seal no more: the connection is of no more use.
#[derive(Debug)]
struct CannotSeal;

/// How frames become bytes on a socket.
#[derive(Debug)]
pub(crate) enum Sink {
    /// Sealed by whoever flushes and written to the socket.
    Tls(Writer<towpath_tls::Server>),
    /// The same, on a connection that this relay has dialled.
    Link(Box<Writer<towpath_tls::Client>>),
    /// Written as they are.
    Plain,
    /// Wrapped in messages first.
    WebSocket(Box<MessageSink>),
}

// The other ways cost a connection in TLS nothing while it is idle.
const _: () = assert!(size_of::<Sink>() == size_of::<Writer<towpath_tls::Server>>());

impl Sink {
    /// Adds frames to what is written next.
    #[inline]
    fn push(&mut self, frames: &[u8], scratch: &mut Scratch) -> Result<(), CannotSeal> {
        match self {
            Self::Tls(writer) => writer.seal(frames, &mut scratch.seal).map_err(|_| CannotSeal)?,
            Self::Link(writer) => writer.seal(frames, &mut scratch.seal).map_err(|_| CannotSeal)?,
            Self::Plain => scratch.seal.append(frames),
            Self::WebSocket(_) => scratch.messages.push(frames),
        }
        Ok(())
    }

    /// Adds what else has to go out.
    #[inline]
    fn finish(&mut self, scratch: &mut Scratch) -> Result<(), CannotSeal> {
        match self {
            Self::Tls(_) | Self::Link(_) | Self::Plain => Ok(()),
            Self::WebSocket(sink) => {
                sink.finish(&mut scratch.messages, &mut scratch.seal).map_err(|_| CannotSeal)
            }
        }
    }

    /// Adds the last words. Where sealing fails an alert may still be owed, and is then in the buffer.
    fn close(&mut self, reason: Close, scratch: &mut Scratch) {
        match self {
            Self::Tls(writer) => {
                let _ = writer.close(&mut scratch.seal);
            }
            Self::Link(writer) => {
                let _ = writer.close(&mut scratch.seal);
            }
            Self::Plain => {}
            Self::WebSocket(sink) => sink.close(reason, &mut scratch.messages, &mut scratch.seal),
        }
    }
}

/// The way out to the socket.
#[derive(Debug)]
pub(crate) struct Outlet {
    sink: Sink,
    /// `None` once closed.
    socket: Option<Arc<TcpStream>>,
    /// Ciphertext that the socket did not take, up to `written` of it written since.
    unsent: Vec<u8>,
    written: usize,
    progress: Arc<AtomicU64>,
}

/// What became of a write.
enum Wrote {
    All,
    Part(usize),
    Failed,
}

impl Outlet {
    /// Closes the socket with the words that say so, as far as that goes without waiting.
    pub(crate) fn end(&mut self, reason: Close, scratch: &mut Scratch) {
        let Some(socket) = self.socket.take() else { return };
        if self.unsent.is_empty() {
            scratch.seal.clear();
            self.sink.close(reason, scratch);
            if !scratch.seal.is_empty() {
                let _ = (&*socket).write(scratch.seal.as_slice());
            }
        }
        scratch.pool.give(std::mem::take(&mut self.unsent));
        let _ = socket.shutdown(Shutdown::Write);
    }

    fn write(&self, bytes: &[u8], scratch_writes: &mut u64, now: Instant) -> Wrote {
        let Some(socket) = &self.socket else { return Wrote::Failed };
        loop {
            *scratch_writes += 1;
            match (&**socket).write(bytes) {
                Ok(written) => {
                    self.progress.store(now.as_nanos(), Ordering::Relaxed);
                    return if written == bytes.len() { Wrote::All } else { Wrote::Part(written) };
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Wrote::Part(0),
                Err(_) => {
                    // Wakes the owner, which closes the connection.
                    let _ = socket.shutdown(Shutdown::Both);
                    return Wrote::Failed;
                }
            }
        }
    }

    /// Writes what an earlier write left.
    fn resume(&mut self, scratch: &mut Scratch) -> Sent {
        if self.unsent.is_empty() {
            return Sent::All;
        }
        match self.write(&self.unsent[self.written..], &mut scratch.writes, scratch.now) {
            Wrote::All => {
                scratch.pool.give(std::mem::take(&mut self.unsent));
                self.written = 0;
                Sent::All
            }
            Wrote::Part(written) => {
                self.written += written;
                Sent::Blocked
            }
            Wrote::Failed => Sent::Failed,
        }
    }

    /// Makes ready for one write as much of `batch` as goes into it.
    #[inline]
    fn fill(&mut self, batch: Option<&mut Batch>, scratch: &mut Scratch) -> Result<(), CannotSeal> {
        if let Some(batch) = batch {
            let mut room = MAX_WRITE;
            while let Some(chunk) = batch.chunk(room)
                && (chunk.len() <= room || room == MAX_WRITE)
            {
                let len = chunk.len();
                self.sink.push(chunk, scratch)?;
                batch.advance(len);
                room = room.saturating_sub(len);
            }
        }
        self.sink.finish(scratch)
    }

    /// Writes what was sealed and keeps what the socket does not take.
    fn write_sealed(&mut self, scratch: &mut Scratch) -> Sent {
        let sealed = scratch.seal.as_slice();
        match self.write(sealed, &mut scratch.writes, scratch.now) {
            Wrote::All => Sent::All,
            Wrote::Part(written) => {
                self.unsent = scratch.pool.take();
                self.unsent.extend_from_slice(&sealed[written..]);
                Sent::Blocked
            }
            Wrote::Failed => Sent::Failed,
        }
    }
}

impl Transmit for Outlet {
    type Scratch = Scratch;

    fn send(&mut self, mut batch: Option<&mut Batch>, scratch: &mut Scratch) -> Sent {
        let resumed = self.resume(scratch);
        if resumed != Sent::All {
            return resumed;
        }
        loop {
            scratch.seal.clear();
            if self.fill(batch.as_deref_mut(), scratch).is_err() {
                scratch.messages.clear();
                if let Some(socket) = &self.socket {
                    let _ = socket.shutdown(Shutdown::Both);
                }
                return Sent::Failed;
            }
            if scratch.seal.is_empty() {
                return Sent::All;
            }
            match self.write_sealed(scratch) {
                Sent::All => {}
                other => return other,
            }
        }
    }
}
