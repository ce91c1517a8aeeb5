//! Sockets that send each other numbered datagrams.

use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use crate::namespace::Namespace;

/// How long a datagram may take that must arrive, on a machine that is busy with other things.
const PATIENCE: Duration = Duration::from_secs(3);
/// How long a datagram is waited for that arrived before another one has, if it arrives at all. Packets keep their order but
/// where two cores of a busy machine handle them.
const GRACE: Duration = Duration::from_millis(20);

/// A socket in a namespace.
#[derive(Debug)]
pub(super) struct Socket {
    socket: UdpSocket,
    pub(super) address: SocketAddr,
}

impl Socket {
    /// A socket on an address, and on any port for port zero.
    pub(super) fn open(namespace: &Namespace, address: IpAddr, port: u16) -> io::Result<Self> {
        let socket = namespace.run(|| UdpSocket::bind((address, port)))?;
        let address = socket.local_addr()?;
        Ok(Self { socket, address })
    }

    pub(super) fn send(&self, number: u32, to: SocketAddr) -> io::Result<()> {
        self.socket.send_to(&number.to_be_bytes(), to).map(|_| ())
    }

    /// The numbers and senders of what arrives until a number has, and a moment after. `None` if it does not.
    pub(super) fn receive_until(&self, number: u32) -> io::Result<Option<Vec<(u32, SocketAddr)>>> {
        let mut arrived = Vec::new();
        let mut end = Instant::now() + PATIENCE;
        let mut is_there = false;
        while let Some(datagram) = self.receive(end)? {
            arrived.push(datagram);
            if datagram.0 == number && !is_there {
                (is_there, end) = (true, Instant::now() + GRACE);
            }
        }
        Ok(is_there.then_some(arrived))
    }

    /// The sender of a number, as soon as it arrives. `None` if it does not by a time.
    pub(super) fn sender_of(&self, number: u32, end: Instant) -> io::Result<Option<SocketAddr>> {
        loop {
            match self.receive(end)? {
                Some((arrived, sender)) if arrived == number => return Ok(Some(sender)),
                Some(_) => {}
                None => return Ok(None),
            }
        }
    }

    /// The next datagram, and its sender.
    fn receive(&self, end: Instant) -> io::Result<Option<(u32, SocketAddr)>> {
        let mut number = [0; 4];
        loop {
            let rest = end.saturating_duration_since(Instant::now());
            if rest.is_zero() {
                return Ok(None);
            }
            self.socket.set_read_timeout(Some(rest))?;
            match self.socket.recv_from(&mut number) {
                Ok((_, sender)) => return Ok(Some((u32::from_be_bytes(number), sender))),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(None),
                // An ICMP message has come about a datagram that was sent before, or a signal.
                Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }
}
