//! What carries datagrams: the UDP sockets of the system, or what a program puts in their place.

use std::fmt::Debug;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::task::{Context, Poll};

mod batch;
mod udp;

pub use batch::{ReceivedDatagrams, ReceivedTrain};
pub use udp::UdpDatagrams;

/// The longest packet, in bytes: what a relay forwards and what fits into a UDP datagram over IPv4.
pub const PACKET_MAX: usize = 65_507;

/// Datagrams of one length to one address, which the system may send with one call.
#[derive(Clone, Copy, Debug)]
pub struct Train<'a> {
    /// The address to send to.
    pub destination: SocketAddr,
    /// The address to send from; `None` for the one that the system chooses.
    pub source: Option<IpAddr>,
    /// The datagrams, one after the other.
    pub contents: &'a [u8],
    /// The bytes of each datagram but the last one, which may be shorter. Not 0 unless there is one empty datagram.
    pub segment: usize,
}

impl Train<'_> {
    /// The datagrams one by one, for a socket that sends no trains.
    pub fn datagrams(&self) -> impl Iterator<Item = &[u8]> {
        cut(self.contents, self.segment)
    }
}

/// Cuts a train into its datagrams, each of `segment` bytes but the last one, which may be shorter. An empty train is one empty datagram.
pub fn cut(train: &[u8], segment: usize) -> impl Iterator<Item = &[u8]> {
    let empty = train.is_empty().then_some(train);
    empty.into_iter().chain(train.chunks(segment.max(1)))
}

/// How many datagrams [`cut`] makes of a train.
#[must_use]
pub fn count(train: &[u8], segment: usize) -> usize {
    train.len().div_ceil(segment.max(1)).max(1)
}

/// How many packets with these lengths, from the first one on, make a train of at most `most`: of one length, the last one perhaps
/// shorter.
pub(crate) fn train_len(lens: impl Iterator<Item = usize>, most: usize) -> usize {
    let (mut segment, mut bytes, mut count) = (0, 0, 0);
    for len in lens.take(most) {
        if count == 0 {
            segment = len;
        } else if len == 0 || len > segment || bytes + len > PACKET_MAX {
            break;
        }
        (bytes, count) = (bytes + len, count + 1);
        if len < segment || len == 0 {
            break;
        }
    }
    count
}

/// The end of the wait for room to send.
pub type Writable<'a> = Pin<Box<dyn Future<Output = io::Result<()>> + Send + 'a>>;

/// A socket for datagrams of one address family.
///
/// [`UdpDatagrams`] is the system's. A program that has another way to carry datagrams, such as a tunnel of its own or a simulated
/// network, implements this for it, and hands it to [`Builder::datagrams`](crate::Builder::datagrams).
pub trait Datagrams: Debug + Send + Sync + 'static {
    /// The address that the socket is bound to. Its family is that of all addresses that are sent to.
    fn local_addr(&self) -> SocketAddr;

    /// The addresses of this host's interfaces in the network that the datagrams go to; `None` for those of the system.
    fn interfaces(&self) -> Option<Vec<IpAddr>>;

    /// The datagrams that one train may have, at least 1.
    fn train_max(&self) -> usize;

    /// Sends a train.
    ///
    /// # Errors
    ///
    /// [`io::ErrorKind::WouldBlock`] while there is no room, until [`writable`](Self::writable) is ready. After any other error
    /// the train is lost.
    fn try_send(&self, train: &Train<'_>) -> io::Result<()>;

    /// Sends a datagram that dies after `ttl` hops, so that it opens the NATs on its way without reaching the receiver's.
    ///
    /// # Errors
    ///
    /// As for [`try_send`](Self::try_send).
    fn try_send_dying(&self, train: &Train<'_>, ttl: u8) -> io::Result<()>;

    /// Waits for room to send, in any number of tasks at once. An endpoint waits for it before it begins.
    ///
    /// # Errors
    ///
    /// If the socket is broken.
    fn writable(&self) -> Writable<'_>;

    /// Waits for datagrams, and puts those that have come into `received`, which is empty.
    ///
    /// # Errors
    ///
    /// If the socket is broken.
    fn poll_recv(&self, cx: &mut Context<'_>, received: &mut ReceivedDatagrams) -> Poll<io::Result<()>>;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_train_has_packets_of_one_length_and_perhaps_a_shorter_one_at_its_end() {
        let count = |lens: &[usize], most| train_len(lens.iter().copied(), most);
        assert_eq!(count(&[], 64), 0);
        assert_eq!(count(&[9, 9, 9], 64), 3);
        assert_eq!(count(&[9, 9, 9], 2), 2);
        assert_eq!(count(&[9, 9, 3, 9], 64), 3);
        assert_eq!(count(&[9, 10], 64), 1);
        assert_eq!(count(&[9, 0], 64), 1);
        assert_eq!(count(&[0, 0], 64), 1);
        assert_eq!(count(&[1400; 64], 64), 46);
        assert_eq!(count(&[PACKET_MAX, 1], 64), 1);
    }
}
