//! The UDP sockets of the system: trains by GSO and GRO where the kernel has them.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsFd;
use std::task::{Context, Poll, ready};

use quinn_udp::{Transmit, UdpSockRef, UdpSocketState};
use rustix::net::sockopt::{
    set_socket_recv_buffer_size, set_socket_recv_buffer_size_force, set_socket_send_buffer_size,
};
use socket2::SockRef;
use tokio::io::Interest;
use tokio::net::UdpSocket;
use towpath_udp::{LocalAddr, send_dying};

use super::{Datagrams, ReceivedDatagrams, Train, Writable};

/// The buffers that the kernel is asked for, in bytes in each direction. It gives less where `net.core.rmem_max` and `wmem_max` say
/// so; a program with CAP_NET_ADMIN gets all of the first. 20,000 packets a second of 1,400 bytes fill this in a fifth of a second.
const SOCKET_BUFFER: usize = 7 << 20;

/// A UDP socket of the system.
#[derive(Debug)]
pub struct UdpDatagrams {
    socket: UdpSocket,
    state: UdpSocketState,
    local: SocketAddr,
}

impl UdpDatagrams {
    /// Binds a socket. One for IPv6 takes IPv6 alone, so that there may be one for IPv4 at the same port. To be called on a runtime
    /// of tokio.
    ///
    /// # Errors
    ///
    /// Any error of the system, such as [`io::ErrorKind::AddrInUse`].
    pub fn bind(address: SocketAddr) -> io::Result<Self> {
        let socket = UdpSocket::from_std(towpath_udp::bind(address)?)?;
        let state = UdpSocketState::new(UdpSockRef::from(&socket))?;
        // With less, more packets are lost while this program is busy.
        if set_socket_recv_buffer_size_force(&socket, SOCKET_BUFFER).is_err() {
            let _ = set_socket_recv_buffer_size(&socket, SOCKET_BUFFER);
        }
        let _ = set_socket_send_buffer_size(&socket, SOCKET_BUFFER);
        let local = socket.local_addr()?;
        Ok(Self { socket, state, local })
    }

    /// Marks all packets for the routing rules of this host (`SO_MARK`).
    ///
    /// # Errors
    ///
    /// [`io::ErrorKind::PermissionDenied`] without CAP_NET_ADMIN.
    pub fn set_mark(&self, mark: u32) -> io::Result<()> {
        SockRef::from(&self.socket).set_mark(mark)
    }
}

impl Datagrams for UdpDatagrams {
    fn local_addr(&self) -> SocketAddr {
        self.local
    }

    fn interfaces(&self) -> Option<Vec<IpAddr>> {
        None
    }

    fn train_max(&self) -> usize {
        self.state.max_gso_segments().max(1)
    }

    fn try_send(&self, train: &Train<'_>) -> io::Result<()> {
        let transmit = Transmit {
            destination: train.destination,
            ecn: None,
            contents: train.contents,
            segment_size: (train.segment < train.contents.len()).then_some(train.segment),
            src_ip: train.source,
        };
        self.socket
            .try_io(Interest::WRITABLE, || self.state.try_send(UdpSockRef::from(&self.socket), &transmit))
    }

    fn try_send_dying(&self, train: &Train<'_>, ttl: u8) -> io::Result<()> {
        let source = train.source.map_or(LocalAddr::ANY, |ip| LocalAddr { ip, interface: 0 });
        self.socket.try_io(Interest::WRITABLE, || {
            send_dying(self.socket.as_fd(), train.destination, source, ttl, train.contents)
        })
    }

    fn writable(&self) -> Writable<'_> {
        Box::pin(self.socket.writable())
    }

    fn poll_recv(&self, cx: &mut Context<'_>, received: &mut ReceivedDatagrams) -> Poll<io::Result<()>> {
        loop {
            ready!(self.socket.poll_recv_ready(cx))?;
            let receive = || {
                received.fill(|places, metas| self.state.recv(UdpSockRef::from(&self.socket), places, metas))
            };
            match self.socket.try_io(Interest::READABLE, receive) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                done => return Poll::Ready(done),
            }
        }
    }
}
