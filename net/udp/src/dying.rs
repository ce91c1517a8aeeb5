//! Datagrams that die on the way.

use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::os::fd::BorrowedFd;

use socket2::{MsgHdr, SockAddr, SockRef};

use crate::cmsg::{Control, LocalAddr};

/// Sends a datagram that dies after `ttl` hops (`IP_TTL`, `IPV6_HOPLIMIT`), from `local`. Other datagrams of the socket are not
/// concerned. A datagram that stays on this host arrives all the same.
///
/// # Errors
/// Any error of the kernel; [`io::ErrorKind::WouldBlock`] if the send buffer is full.
pub fn send_dying(
    socket: BorrowedFd<'_>,
    destination: SocketAddr,
    local: LocalAddr,
    ttl: u8,
    payload: &[u8],
) -> io::Result<()> {
    let mut control = Control::default();
    let len = control.write_with_ttl(local, destination.is_ipv4(), ttl);
    let (address, payload) = (SockAddr::from(destination), [IoSlice::new(payload)]);
    let message = MsgHdr::new().with_addr(&address).with_buffers(&payload).with_control(&control.0[..len]);
    SockRef::from(&socket).sendmsg(&message, 0).map(drop)
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;
    use std::os::fd::AsFd;

    use super::*;
    use crate::{BatchSocket, DatagramBatch, sys};

    /// The kernel tells the receiver the hops that are left, which nothing on loopback takes away.
    #[test]
    fn the_datagram_has_so_many_hops_and_the_next_one_has_as_many_as_usual() {
        for (any, level, option) in [
            ("127.0.0.1:0", libc::IPPROTO_IP, libc::IP_RECVTTL),
            ("[::1]:0", libc::IPPROTO_IPV6, libc::IPV6_RECVHOPLIMIT),
        ] {
            // A machine may have no IPv6.
            let Ok(receiver) = UdpSocket::bind(any) else { continue };
            let sender = UdpSocket::bind(any).expect("a socket");
            let to = receiver.local_addr().expect("an address");
            let receiver = BatchSocket::new(receiver).expect("a socket");
            sys::set_option(receiver.as_fd(), level, option, 1).expect("an option");
            let local = LocalAddr { ip: to.ip(), interface: 0 };
            for (ttl, payload) in [(Some(3), &b"dies"[..]), (None, b"lives")] {
                match ttl {
                    Some(ttl) => send_dying(sender.as_fd(), to, local, ttl, payload).expect("it is sent"),
                    None => assert_eq!(sender.send_to(payload, to).expect("it is sent"), payload.len()),
                }
                let mut batch = DatagramBatch::with_capacity(1);
                receiver.recv(&mut batch).expect("it is there at once");
                assert_eq!(batch.iter().next().map(|datagram| datagram.payload), Some(payload));
                let left = batch.slots_mut()[0].control.hops().expect("the kernel says it");
                assert_eq!(left, ttl.map_or(64, i32::from), "{any}");
            }
        }
    }
}
