//! A connection as the rest of the data plane sees it: a key, two flags, an outbox and the way out to the socket.

use std::io::{ErrorKind, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

use relay_proto::egress::{Egress, Sent, Transmit};
use relay_proto::outbox::Batch;
use relay_proto::presence::Connection;
use rustls::server::UnbufferedServerConnection;
use tls::{SealBuffer, Writer};
use wire::key::NodePublic;
use wire::pool::BufferPool;
use wire::time::Instant;

/// How much is sealed before it is written. Larger writes save no more and keep more ciphertext when a socket is full,
/// which cannot be dropped any more.
const MAX_WRITE: usize = 64 * 1024;

/// A logged-in connection.
#[derive(Debug)]
pub(crate) struct Peer {
    pub(crate) key: NodePublic,
    pub(crate) id: u64,
    pub(crate) address: SocketAddr,
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
        socket: Arc<TcpStream>,
        writer: Writer<UnbufferedServerConnection>,
    ) -> Self {
        let progress = Arc::new(AtomicU64::new(0));
        let outlet = Outlet {
            sink: Sink::Tls(writer),
            socket: Some(socket),
            unsent: Vec::new(),
            written: 0,
            progress: progress.clone(),
        };
        Self {
            key,
            id,
            address,
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
            pool: BufferPool::default(),
            now: Instant::ZERO,
            writes: 0,
        }
    }
}

/// How frames become bytes on a socket.
#[derive(Debug)]
enum Sink {
    /// Sealed by whoever flushes and written to the socket.
    Tls(Writer<UnbufferedServerConnection>),
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
    /// Closes the socket with the alert that says so, as far as that goes without waiting.
    pub(crate) fn end(&mut self, scratch: &mut Scratch) {
        let Some(socket) = self.socket.take() else { return };
        if self.unsent.is_empty() {
            let Sink::Tls(writer) = &mut self.sink;
            scratch.seal.clear();
            // Where sealing fails an alert may still be owed, and is then in the buffer.
            let _ = writer.close(&mut scratch.seal);
            let _ = (&*socket).write(scratch.seal.as_slice());
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

    fn send(&mut self, batch: Option<&mut Batch>, scratch: &mut Scratch) -> Sent {
        let resumed = self.resume(scratch);
        let Some(batch) = batch else { return resumed };
        if resumed != Sent::All {
            return resumed;
        }
        loop {
            scratch.seal.clear();
            let Sink::Tls(writer) = &mut self.sink;
            let mut room = MAX_WRITE;
            while let Some(chunk) = batch.chunk(room)
                && (chunk.len() <= room || room == MAX_WRITE)
            {
                let len = chunk.len();
                if writer.seal(chunk, &mut scratch.seal).is_err() {
                    if let Some(socket) = &self.socket {
                        let _ = socket.shutdown(Shutdown::Both);
                    }
                    return Sent::Failed;
                }
                batch.advance(len);
                room = room.saturating_sub(len);
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
