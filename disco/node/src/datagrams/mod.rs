//! What carries datagrams: the UDP sockets of the system, or what a program puts in their place.

use std::fmt::Debug;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::task::{Context, Poll};

mod batch;
mod udp;

pub use batch::ReceivedDatagrams;
pub use udp::UdpDatagrams;

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

/// Cuts a train into its datagrams. An empty one is a datagram.
fn cut(train: &[u8], segment: usize) -> impl Iterator<Item = &[u8]> {
    let empty = train.is_empty().then_some(train);
    empty.into_iter().chain(train.chunks(segment.max(1)))
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

    /// Waits for room to send, in any number of tasks at once.
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
