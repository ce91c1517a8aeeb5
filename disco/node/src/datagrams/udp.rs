//! The UDP sockets of the system: trains by GSO and GRO where the kernel has them.
//!
//! A socket is bound once and for all. It survives all that happens to interfaces, addresses and routes, also one that is bound to an
//! address: that one sends and hears nothing while the address is away, and works again when it is back. It survives that another
//! program destroys it (`SOCK_DESTROY` of sock_diag(7)), as Android does with the sockets of a network that has gone, because its port
//! is one that it was bound to by number: the kernel takes back only those that it has chosen itself.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsFd;
use std::task::{Context, Poll, ready};

use quinn_udp::{Transmit, UdpSockRef, UdpSocketState};
use rustix::net::connect_unspec;
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
        let socket = towpath_udp::bind(address)?;
        if address.port() == 0 {
            keep_port(&socket)?;
        }
        let socket = UdpSocket::from_std(socket)?;
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

/// Binds a socket to the port that the kernel has chosen for it, this time by number.
fn keep_port(socket: &std::net::UdpSocket) -> io::Result<()> {
    let socket = SockRef::from(socket);
    loop {
        let chosen = socket.local_addr()?;
        // Dissolves the association of a socket, and with it the binding to a port that the kernel has chosen.
        connect_unspec(&*socket)?;
        match socket.bind(&chosen) {
            // Another program has been given the port in between.
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
                let mut any = chosen.as_socket().ok_or(io::ErrorKind::Unsupported)?;
                any.set_port(0);
                socket.bind(&any.into())?;
            }
            bound => return bound,
        }
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

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    /// Dissolving the association of a socket does to its port what its destruction does, and needs no privilege.
    #[tokio::test]
    async fn a_socket_keeps_its_port_when_it_is_destroyed() {
        let datagrams = UdpDatagrams::bind((Ipv4Addr::LOCALHOST, 0).into()).expect("a socket");
        let local = datagrams.local_addr();
        assert_ne!(local.port(), 0);
        connect_unspec(&datagrams.socket).expect("it is a socket of UDP");
        assert_eq!(datagrams.socket.local_addr().expect("an address"), local);
        let sender = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a socket");
        sender.send_to(b"hello", local).await.expect("loopback takes it");
        let mut received = ReceivedDatagrams::new();
        std::future::poll_fn(|cx| datagrams.poll_recv(cx, &mut received)).await.expect("it works");
        assert!(received.iter().eq([(sender.local_addr().expect("an address"), &b"hello"[..])]));
    }
}
