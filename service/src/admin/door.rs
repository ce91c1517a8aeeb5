//! Doors: the listener on the network and the Unix socket, and what each lets in.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;
use std::{fmt, io};

use ipnet::IpNet;
use prometheus::IntCounter;
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tracing::debug;

/// A way in.
#[derive(Debug)]
pub(super) enum Door {
    /// A TCP listener.
    Network { listener: TcpListener, clients: Vec<IpNet>, turned_away: IntCounter },
    /// A Unix socket.
    Socket(UnixListener),
}

/// A connection, by the door through which it has come.
#[derive(Debug)]
pub(super) enum Visitor {
    Network(TcpStream, SocketAddr),
    Socket(UnixStream),
}

/// The kind of a [`Door`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum DoorKind {
    Network,
    Socket,
}

impl DoorKind {
    /// How long a connection may take from being accepted to the last byte of the answer. Prometheus gives up after 10 s by
    /// default. A listing of all clients may be long.
    pub(super) const fn deadline(self) -> Duration {
        match self {
            Self::Network => Duration::from_secs(5),
            Self::Socket => Duration::from_secs(60),
        }
    }
}

impl Door {
    /// The door that is `listener`. A runtime must be entered.
    pub(super) fn network(
        listener: std::net::TcpListener,
        clients: Vec<IpNet>,
        turned_away: IntCounter,
    ) -> io::Result<Self> {
        listener.set_nonblocking(true)?;
        Ok(Self::Network { listener: TcpListener::from_std(listener)?, clients, turned_away })
    }

    /// The door that is a Unix socket. A runtime must be entered.
    pub(super) fn socket(listener: std::os::unix::net::UnixListener) -> io::Result<Self> {
        listener.set_nonblocking(true)?;
        Ok(Self::Socket(UnixListener::from_std(listener)?))
    }

    /// Waits for a connection that may come in. Others are closed unread, and counted.
    pub(super) async fn accept(&self) -> io::Result<Visitor> {
        loop {
            match self {
                Self::Socket(listener) => return Ok(Visitor::Socket(listener.accept().await?.0)),
                Self::Network { listener, clients, turned_away } => {
                    let (stream, peer) = listener.accept().await?;
                    if is_of_this_machine(&stream, peer) || contain(clients, peer.ip()) {
                        return Ok(Visitor::Network(stream, peer));
                    }
                    turned_away.inc();
                    debug!(%peer, "closed an admin connection from an address that is not in admin.clients");
                }
            }
        }
    }
}

/// Whether the other end is a process of this machine: it has a loopback address, or the address that it has connected to.
fn is_of_this_machine(stream: &TcpStream, peer: SocketAddr) -> bool {
    let peer = peer.ip().to_canonical();
    peer.is_loopback() || stream.local_addr().is_ok_and(|own| own.ip().to_canonical() == peer)
}

fn contain(prefixes: &[IpNet], address: IpAddr) -> bool {
    let address = address.to_canonical();
    prefixes.iter().any(|prefix| prefix.contains(&address))
}

impl fmt::Display for Visitor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Network(_, peer) => peer.fmt(f),
            Self::Socket(_) => f.write_str("admin.socket"),
        }
    }
}
