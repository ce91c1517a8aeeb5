//! UDP sockets that send and receive in batches.

use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};

use socket2::{Domain, Protocol, Socket, Type};

use crate::batch::DatagramBatch;
use crate::sys;

/// Binds a non-blocking UDP socket.
///
/// An IPv6 socket takes IPv6 only, so that `0.0.0.0` and `[::]` can be bound side by side and IPv4 peers
/// never appear in the IPv4-mapped form. Address reuse is off: a taken port is an error.
///
/// # Errors
/// Any error of the kernel, such as [`io::ErrorKind::AddrInUse`].
pub fn bind(address: SocketAddr) -> io::Result<UdpSocket> {
    let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    Ok(socket.into())
}

/// A UDP socket that sends and receives in batches.
#[derive(Debug)]
pub struct BatchSocket {
    socket: UdpSocket,
    local_addr: SocketAddr,
}

impl BatchSocket {
    /// Takes over a bound socket: makes it non-blocking and, if it is bound to a wildcard, lets it tell which address
    /// was asked. What leaves an IPv4 socket is never fragmented: a datagram longer than the interface's MTU is
    /// refused.
    ///
    /// # Errors
    /// The kernel refuses an option, or the socket is not an IP socket.
    pub fn new(socket: UdpSocket) -> io::Result<Self> {
        socket.set_nonblocking(true)?;
        let local_addr = socket.local_addr()?;
        let fd = socket.as_fd();
        // A socket that is bound to one address answers from it in any case, and saves two control messages.
        if local_addr.ip().is_unspecified() {
            let (level, option) = match local_addr {
                SocketAddr::V4(_) => (libc::IPPROTO_IP, libc::IP_PKTINFO),
                SocketAddr::V6(_) => (libc::IPPROTO_IPV6, libc::IPV6_RECVPKTINFO),
            };
            sys::set_option(fd, level, option, 1)?;
        }
        // A datagram that may be fragmented needs an identification of its own (RFC 6864), and to find one costs 3 % of
        // all that an answer does.
        if local_addr.is_ipv4() {
            sys::set_option(fd, libc::IPPROTO_IP, libc::IP_MTU_DISCOVER, libc::IP_PMTUDISC_PROBE)?;
        }
        Ok(Self { socket, local_addr })
    }

    /// The address that the socket is bound to.
    pub fn local_addr(&self) -> SocketAddr {
        self.local_addr
    }

    /// Replaces the content of `batch` by datagrams that have arrived, at least one.
    ///
    /// A batch that is not full does not prove that the socket is empty; only
    /// [`io::ErrorKind::WouldBlock`] does.
    ///
    /// # Errors
    /// The error of the kernel. The batch is then empty.
    pub fn recv(&self, batch: &mut DatagramBatch) -> io::Result<()> {
        batch.clear();
        let received = loop {
            match sys::recvmmsg(self.socket.as_fd(), batch.slots_mut()) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                received => break received?,
            }
        };
        batch.set_len(received);
        Ok(())
    }

    /// Sends the datagrams of `batch` and empties it.
    ///
    /// Nothing is kept for later. A datagram that the kernel refuses costs only itself; when the send buffer
    /// is full, the rest of the batch is dropped, since a reply that waits is worth less than the next one.
    pub fn send(&self, batch: &mut DatagramBatch) -> SendOutcome {
        let outcome = send_all(batch.filled_mut(), |rest| sys::sendmmsg(self.socket.as_fd(), rest));
        batch.clear();
        outcome
    }
}

/// Offers datagrams to `send`, which takes some from the front or says what is wrong with the first, until
/// all are dealt with.
fn send_all<T>(mut rest: &mut [T], mut send: impl FnMut(&mut [T]) -> io::Result<usize>) -> SendOutcome {
    let mut outcome = SendOutcome::default();
    while !rest.is_empty() {
        let done = match send(rest) {
            Ok(sent) => {
                outcome.sent += sent;
                sent
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => 0,
            Err(error) if is_full(&error) => {
                outcome.dropped = rest.len();
                break;
            }
            Err(error) => {
                outcome.failed += 1;
                outcome.error.get_or_insert(error);
                1
            }
        };
        rest = &mut rest[done..];
    }
    outcome
}

/// Whether the kernel has no room for a datagram, as opposed to something being wrong with it.
fn is_full(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::WouldBlock || error.raw_os_error() == Some(libc::ENOBUFS)
}

impl AsFd for BatchSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl AsRawFd for BatchSocket {
    fn as_raw_fd(&self) -> RawFd {
        self.socket.as_raw_fd()
    }
}

/// The outcome of sending a batch. The three numbers add up to its length.
#[derive(Debug, Default)]
#[must_use]
pub struct SendOutcome {
    /// Datagrams that the kernel took.
    pub sent: usize,
    /// Datagrams that the kernel refused one by one, for example for want of a route.
    pub failed: usize,
    /// Datagrams that were dropped because the send buffer was full.
    pub dropped: usize,
    /// Why the first of the failed ones was refused.
    pub error: Option<io::Error>,
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Plays the kernel: each step is what one call returns. Gives the outcome and the first datagram of
    /// each call.
    fn play(count: u8, steps: &[Result<usize, i32>]) -> (SendOutcome, Vec<u8>) {
        let mut datagrams: Vec<u8> = (0..count).collect();
        let mut steps = steps.iter();
        let mut offered = Vec::new();
        let outcome = send_all(&mut datagrams, |rest| {
            offered.push(rest[0]);
            steps.next().expect("a call too many").map_err(io::Error::from_raw_os_error)
        });
        assert_eq!(steps.next(), None, "a call too few");
        (outcome, offered)
    }

    #[test]
    fn what_the_kernel_did_not_take_is_offered_again() {
        let (outcome, offered) = play(10, &[Ok(4), Err(libc::EINTR), Ok(5), Ok(1)]);
        assert_eq!((outcome.sent, outcome.failed, outcome.dropped), (10, 0, 0));
        assert_eq!(offered, [0, 4, 4, 9]);
    }

    #[test]
    fn a_full_send_buffer_drops_the_rest() {
        for full in [libc::EAGAIN, libc::ENOBUFS] {
            let (outcome, offered) = play(10, &[Ok(4), Err(full)]);
            assert_eq!((outcome.sent, outcome.failed, outcome.dropped), (4, 0, 6));
            assert_eq!(offered, [0, 4]);
        }
    }

    #[test]
    fn a_refused_datagram_is_passed_over() {
        let steps = [Ok(1), Err(libc::ENETUNREACH), Err(libc::EINVAL), Ok(1)];
        let (outcome, offered) = play(4, &steps);
        assert_eq!((outcome.sent, outcome.failed, outcome.dropped), (2, 2, 0));
        assert_eq!(outcome.error.unwrap().raw_os_error(), Some(libc::ENETUNREACH));
        assert_eq!(offered, [0, 1, 2, 3]);
    }
}
