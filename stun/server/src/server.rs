//! The server before and while it runs.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::ops::RangeInclusive;
use std::os::fd::OwnedFd;
use std::panic::resume_unwind;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use rustix::io::Errno;
use rustix::net::sockopt::{set_socket_recv_buffer_size, set_socket_recv_buffer_size_force};
use towpath_stun_proto::Origins;
use towpath_udp::{BATCH_MAX, BatchSocket};

use crate::counters::StunCounters;
use crate::listener::{Listener, OriginSockets, Service};
use crate::settings::{Policy, StunSettings};

/// A turn that found so many datagrams is followed by a pause, in which more gather: a wake-up and its system calls
/// then serve more of them. It goes on while 25,000 or more come in a second; fewer are answered at once. A turn that
/// found more has no time to lose.
const GATHERED: RangeInclusive<usize> = 4..=BATCH_MAX;
/// The length of the pause. The kernel adds its timer slack, 50 µs.
const GATHER: Duration = Duration::from_micros(100);

/// What a socket has room for, in bytes of which the kernel counts half as its own: 1,300 requests. With the usual
/// default 250 that come at once are too many.
const RECEIVE_BUFFER: usize = 512 * 1024;

/// A STUN server that is bound and not yet running. Datagrams wait in its sockets' buffers.
#[derive(Debug)]
pub struct BoundServer {
    listeners: Vec<Listener>,
    policy: Policy,
    does_discovery: bool,
    counters: Arc<StunCounters>,
}

/// An address that the server cannot have.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// The kernel refuses it.
    #[error("cannot bind STUN on {address}/udp")]
    Socket {
        /// The address that was asked for.
        address: SocketAddr,
        /// What the kernel says.
        source: io::Error,
    },
    /// It is no second address: see [`StunSettings::alternates`].
    #[error(
        "STUN on {address}/udp is no second address: it must differ in address and port from one other of its family"
    )]
    Alternate {
        /// The address that was asked for.
        address: SocketAddr,
    },
}

impl BoundServer {
    /// Binds a socket to each address, and four for each family that has a second one.
    ///
    /// # Errors
    /// The first address that cannot be bound, and why.
    pub fn bind(settings: &StunSettings) -> Result<Self, BindError> {
        let StunSettings { listen, alternates, policy } = settings;
        let sockets = bind_all(listen)?;
        let mut server = Self::over(sockets, policy);
        for alternate in alternates {
            server.add_alternate(*alternate)?;
        }
        Ok(server)
    }

    fn over(sockets: Vec<Arc<BatchSocket>>, policy: &Policy) -> Self {
        Self {
            listeners: sockets.into_iter().map(Listener::new).collect(),
            policy: policy.clone(),
            does_discovery: false,
            counters: Arc::default(),
        }
    }

    /// Makes four origins of the family's one address and a second one.
    fn add_alternate(&mut self, address: SocketAddr) -> Result<(), BindError> {
        let no_second = || BindError::Alternate { address };
        let mut family = (0..self.listeners.len()).filter(|&at| {
            let listener = &self.listeners[at];
            listener.socket.local_addr().is_ipv4() == address.is_ipv4()
        });
        let (Some(at), None) = (family.next(), family.next()) else { return Err(no_second()) };
        let first = Arc::clone(&self.listeners[at].socket);
        let second = bind(address)?;
        if [&first, &second].iter().any(|socket| socket.local_addr().ip().is_unspecified()) {
            return Err(no_second());
        }
        let origins = Origins::spanned_by(first.local_addr(), second.local_addr()).ok_or_else(no_second)?;
        let [_, other_port, other_address, _] = *origins.addresses();
        let sockets = [first, bind(other_port)?, bind(other_address)?, second];
        let seen_by = |own| OriginSockets { origins, sockets: sockets.clone(), own };
        self.listeners[at] = Listener::one_of(seen_by(0));
        self.listeners.extend((1..4).map(|own| Listener::one_of(seen_by(own))));
        self.does_discovery = true;
        Ok(())
    }

    /// The addresses that the sockets are bound to: those to listen on in the order in which they were asked for, that of IPv4
    /// behind its `[::]`, and at the end those that a second address adds.
    pub fn local_addrs(&self) -> Vec<SocketAddr> {
        self.listeners.iter().map(|listener| listener.socket.local_addr()).collect()
    }

    /// The server's counters.
    pub fn counters(&self) -> Arc<StunCounters> {
        Arc::clone(&self.counters)
    }

    /// Starts the server on a thread called `stun`.
    ///
    /// # Errors
    /// The kernel gives no descriptor or no thread.
    pub fn spawn(self) -> io::Result<RunningServer> {
        self.spawn_with(|| {})
    }

    /// Starts the server as [`spawn`](Self::spawn) does. `ended` is called when the thread ends, for whatever reason:
    /// by itself it ends only if the kernel fails it.
    ///
    /// # Errors
    /// The kernel gives no descriptor or no thread.
    pub fn spawn_with(self, ended: impl FnOnce() + Send + 'static) -> io::Result<RunningServer> {
        let stop = Arc::new(eventfd(0, EventfdFlags::CLOEXEC)?);
        let (stopped, counters) = (Arc::clone(&stop), self.counters());
        let thread = thread::Builder::new().name("stun".into()).spawn(move || {
            let _call = CallOnDrop(Some(ended));
            self.run(&stopped)
        })?;
        Ok(RunningServer { stop, counters, thread: Some(thread) })
    }

    /// Serves until `stop` is readable.
    ///
    /// It waits by poll(2), which names a handful of sockets anew each time. An epoll would wait for them even while
    /// this thread is at work, so that the kernel calls it for each datagram that has left, 6 % of what an answer
    /// costs.
    fn run(mut self, stop: &OwnedFd) -> io::Result<()> {
        let sockets: Vec<_> = self.listeners.iter().map(|listener| Arc::clone(&listener.socket)).collect();
        let mut service = Service::new(&self.policy, Instant::now(), self.does_discovery);
        let mut awake = Vec::with_capacity(sockets.len());
        let mut fds = Vec::with_capacity(sockets.len() + 1);
        let mut found = 0;
        loop {
            if GATHERED.contains(&found) {
                thread::sleep(GATHER);
            }
            let now = Instant::now();
            awake.clear();
            awake.extend((0..sockets.len()).filter(|&at| self.listeners[at].backoff(now).is_none()));
            fds.clear();
            fds.push(PollFd::new(stop, PollFlags::IN));
            fds.extend(awake.iter().map(|&at| PollFd::new(&sockets[at], PollFlags::IN)));
            let backoff = self.listeners.iter().filter_map(|listener| listener.backoff(now)).min();
            let backoff = backoff.map(|backoff| Timespec {
                tv_sec: backoff.as_secs() as i64,
                tv_nsec: backoff.subsec_nanos().into(),
            });
            match poll(&mut fds, backoff.as_ref()) {
                Err(Errno::INTR) => continue,
                polled => polled?,
            };
            let (stopped, fds) = (!fds[0].revents().is_empty(), &fds[1..]);
            if stopped {
                return Ok(());
            }
            let now = Instant::now();
            let ready = awake.iter().zip(fds).filter(|(_, fd)| !fd.revents().is_empty());
            found =
                ready.map(|(&at, _)| self.listeners[at].take_turn(now, &mut service, &self.counters)).sum();
        }
    }
}

/// Binds a socket to each address. `[::]` stands for all addresses of the host, so it has one of IPv4 with its port beside it,
/// unless the list names that itself. With a socket for each family, an answer
/// has the family of its request, and no address is a mapped one.
fn bind_all(listen: &[SocketAddr]) -> Result<Vec<Arc<BatchSocket>>, BindError> {
    let mut sockets = Vec::with_capacity(listen.len() + 1);
    for &address in listen {
        let socket = bind(address)?;
        let twin = SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), socket.local_addr().port());
        sockets.push(socket);
        if address.ip() == Ipv6Addr::UNSPECIFIED && !listen.contains(&twin) {
            sockets.push(bind(twin)?);
        }
    }
    Ok(sockets)
}

fn bind(address: SocketAddr) -> Result<Arc<BatchSocket>, BindError> {
    towpath_udp::bind(address).and_then(open).map_err(|source| BindError::Socket { address, source })
}

fn open(socket: UdpSocket) -> io::Result<Arc<BatchSocket>> {
    // Past net.core.rmem_max only with CAP_NET_ADMIN. Without it there is less room, which is no reason not to serve.
    let _ = set_socket_recv_buffer_size_force(&socket, RECEIVE_BUFFER)
        .or_else(|_| set_socket_recv_buffer_size(&socket, RECEIVE_BUFFER));
    BatchSocket::new(socket).map(Arc::new)
}

/// Calls its function when it is dropped, also by a panic.
struct CallOnDrop<F: FnOnce()>(Option<F>);

impl<F: FnOnce()> Drop for CallOnDrop<F> {
    fn drop(&mut self) {
        if let Some(function) = self.0.take() {
            function();
        }
    }
}

/// A server at work. Dropping it stops the server.
#[derive(Debug)]
#[must_use = "dropping it stops the server"]
pub struct RunningServer {
    stop: Arc<OwnedFd>,
    counters: Arc<StunCounters>,
    thread: Option<JoinHandle<io::Result<()>>>,
}

impl RunningServer {
    /// The server's counters.
    pub fn counters(&self) -> Arc<StunCounters> {
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
        rustix::io::write(&self.stop, &1_u64.to_ne_bytes())?;
        Ok(thread.join())
    }
}

impl Drop for RunningServer {
    fn drop(&mut self) {
        match self.join() {
            Ok(Ok(Ok(()))) => {}
            Ok(Ok(Err(error))) | Err(error) => {
                tracing::error!(%error, "the STUN server failed before it was stopped");
            }
            Ok(Err(_)) => tracing::error!("the STUN server panicked before it was stopped"),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};

    use towpath_stun_proto::{REQUEST_LEN, RESPONSE_MAX_LEN, Response, TransactionId, write_request};

    use super::*;

    const DEADLINE: Duration = Duration::from_secs(10);

    /// A TCP listener with a connection waiting is always ready and never readable: the worst of sockets.
    #[test]
    fn a_read_error_does_not_spin() {
        let broken = TcpListener::bind("127.0.0.1:0").unwrap();
        let _waiting = TcpStream::connect(broken.local_addr().unwrap()).unwrap();
        let good = UdpSocket::bind("127.0.0.1:0").unwrap();
        let client = UdpSocket::bind("127.0.0.1:0").unwrap();
        client.connect(good.local_addr().unwrap()).unwrap();
        client.set_read_timeout(Some(DEADLINE)).unwrap();
        let sockets = [UdpSocket::from(OwnedFd::from(broken)), good].map(|socket| open(socket).unwrap());
        let policy = Policy { rate: None, ..Policy::default() };
        let server = BoundServer::over(sockets.into(), &policy).spawn().unwrap();

        let start = Instant::now();
        let mut number = 0_u8;
        while server.counters().snapshot().read_error < 4 {
            assert!(start.elapsed() < DEADLINE, "the broken socket is not tried again");
            assert_answers(&client, TransactionId([number; 12]));
            number = number.wrapping_add(1);
        }
        assert!(start.elapsed() >= Duration::from_millis(250), "four errors in {:?}", start.elapsed());
        server.stop().unwrap();
    }

    fn assert_answers(client: &UdpSocket, transaction: TransactionId) {
        let mut request = [0; REQUEST_LEN];
        write_request(&mut request, transaction);
        client.send(&request).unwrap();
        let mut response = [0; RESPONSE_MAX_LEN];
        let len = client.recv(&mut response).expect("a response before the deadline");
        let expected = Response { transaction, mapped: client.local_addr().unwrap(), other: None };
        assert_eq!(Response::parse(&response[..len]), Ok(expected));
    }
}
