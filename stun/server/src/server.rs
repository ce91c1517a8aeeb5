//! The server before and while it runs.

use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::AsRawFd;
use std::panic::resume_unwind;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Instant;

use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token, Waker};
use udp::BatchSocket;

use crate::counters::Counters;
use crate::listener::{Buffers, Listener};

/// The event that ends the thread. The other tokens are indices of listeners.
const STOP: Token = Token(usize::MAX);

/// A STUN server that is bound and not yet running. Datagrams wait in its sockets' buffers.
#[derive(Debug)]
pub struct Server {
    listeners: Vec<Listener>,
    counters: Arc<Counters>,
}

/// An address that the server cannot have.
#[derive(Debug, thiserror::Error)]
#[error("cannot bind STUN on {address}/udp: {reason}")]
pub struct BindError {
    /// The address that was asked for.
    pub address: SocketAddr,
    /// What the kernel says.
    pub reason: io::Error,
}

impl Server {
    /// Binds a socket to each address. An IPv6 address is bound for IPv6 only; serving both families takes
    /// one address of each.
    ///
    /// # Errors
    /// The first address that cannot be bound, and why.
    pub fn bind(addresses: &[SocketAddr]) -> Result<Self, BindError> {
        let listen = |&address: &SocketAddr| {
            udp::bind(address).and_then(BatchSocket::new).map_err(|reason| BindError { address, reason })
        };
        Ok(Self::over(addresses.iter().map(listen).collect::<Result<_, _>>()?))
    }

    /// Takes over sockets that are already bound, for instance by a predecessor process.
    ///
    /// # Errors
    /// The kernel refuses a socket option.
    pub fn from_sockets(sockets: impl IntoIterator<Item = UdpSocket>) -> io::Result<Self> {
        Ok(Self::over(sockets.into_iter().map(BatchSocket::new).collect::<io::Result<_>>()?))
    }

    fn over(sockets: Vec<BatchSocket>) -> Self {
        Self { listeners: sockets.into_iter().map(Listener::new).collect(), counters: Arc::default() }
    }

    /// The addresses that the sockets are bound to, in the order in which they were asked for.
    pub fn local_addrs(&self) -> Vec<SocketAddr> {
        self.listeners.iter().map(|listener| listener.socket.local_addr()).collect()
    }

    /// The server's counters.
    pub fn counters(&self) -> Arc<Counters> {
        Arc::clone(&self.counters)
    }

    /// Starts the server on a thread called `stun`.
    ///
    /// # Errors
    /// The kernel gives no epoll or no thread.
    pub fn spawn(self) -> io::Result<Running> {
        let poll = Poll::new()?;
        for (index, listener) in self.listeners.iter().enumerate() {
            let fd = listener.socket.as_raw_fd();
            poll.registry().register(&mut SourceFd(&fd), Token(index), Interest::READABLE)?;
        }
        let waker = Waker::new(poll.registry(), STOP)?;
        let counters = self.counters();
        let thread = thread::Builder::new().name("stun".into()).spawn(move || self.run(poll))?;
        Ok(Running { waker, counters, thread: Some(thread) })
    }

    fn run(mut self, mut poll: Poll) -> io::Result<()> {
        let mut events = Events::with_capacity(self.listeners.len() + 1);
        let mut buffers = Buffers::new();
        loop {
            let now = Instant::now();
            let patience = self.listeners.iter().filter_map(|listener| listener.patience(now)).min();
            match poll.poll(&mut events, patience) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                polled => polled?,
            }
            for event in &events {
                match event.token() {
                    STOP => return Ok(()),
                    Token(index) => self.listeners[index].wake(),
                }
            }
            let now = Instant::now();
            for listener in &mut self.listeners {
                listener.take_turn(now, &mut buffers, &self.counters);
            }
        }
    }
}

/// A server at work. Dropping it stops the server.
#[derive(Debug)]
#[must_use = "dropping it stops the server"]
pub struct Running {
    waker: Waker,
    counters: Arc<Counters>,
    thread: Option<JoinHandle<io::Result<()>>>,
}

impl Running {
    /// The server's counters.
    pub fn counters(&self) -> Arc<Counters> {
        Arc::clone(&self.counters)
    }

    /// Whether the thread still serves. It ends by itself only if the kernel fails it.
    pub fn is_alive(&self) -> bool {
        self.thread.as_ref().is_some_and(|thread| !thread.is_finished())
    }

    /// Stops the server and waits until its sockets are closed. What it has not read by then is lost.
    ///
    /// # Errors
    /// Why the thread had ended before.
    pub fn stop(mut self) -> io::Result<()> {
        match self.join()? {
            Ok(outcome) => outcome,
            Err(panic) => resume_unwind(panic),
        }
    }

    /// Ends the thread, unless that has happened, and gives what it left behind.
    fn join(&mut self) -> io::Result<thread::Result<io::Result<()>>> {
        let Some(thread) = self.thread.take() else { return Ok(Ok(Ok(()))) };
        self.waker.wake()?;
        Ok(thread.join())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        match self.join() {
            Ok(Ok(Ok(()))) => {}
            Ok(Ok(Err(error))) | Err(error) => tracing::error!(%error, "the STUN server had failed"),
            Ok(Err(_)) => tracing::error!("the STUN server had panicked"),
        }
    }
}
