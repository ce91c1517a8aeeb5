//! Connections to a backend: over TCP with TLS or without, or over a Unix socket.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream, lookup_host};
use tokio::time::{Instant, timeout_at};
use towpath_wire::host::bracketed;

use super::failure::{AskError, Step};

/// A connection to a backend.
pub(super) trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}

impl<S: AsyncRead + AsyncWrite + Unpin + Send> Stream for S {}

/// Where a backend is, and how it is reached.
#[derive(Debug)]
pub(super) enum Connector {
    /// A host of a URL.
    Web(Web),
    /// A socket of this machine.
    Unix(PathBuf),
    /// A backend in the memory of a test, which is sent the other end of each connection.
    #[cfg(test)]
    Memory(tokio::sync::mpsc::UnboundedSender<tokio::io::DuplexStream>),
}

/// A host that is reached over TCP.
#[derive(Debug)]
pub(super) struct Web {
    /// A DNS name or an IP address.
    pub(super) host: String,
    pub(super) port: u16,
    /// What TLS needs. `None` for a connection without TLS, which leads to addresses of this machine only.
    pub(super) tls: Option<(Arc<ClientConfig>, ServerName<'static>)>,
}

impl Connector {
    /// Connects, by `deadline` at the latest. Notes in `step` how far it is.
    pub(super) async fn connect(
        &self,
        deadline: Instant,
        step: &mut Step,
    ) -> Result<Box<dyn Stream>, AskError> {
        match self {
            Self::Web(web) => web.connect(deadline, step).await,
            Self::Unix(path) => {
                *step = Step::Connect;
                match UnixStream::connect(path).await {
                    Ok(stream) => Ok(Box::new(stream)),
                    Err(source) if source.kind() == io::ErrorKind::PermissionDenied => {
                        Err(AskError::Denied { path: path.clone(), source })
                    }
                    Err(source) => {
                        let to = towpath_service::visible_path(path).to_string();
                        Err(AskError::Connect { to, source })
                    }
                }
            }
            #[cfg(test)]
            Self::Memory(backend) => {
                *step = Step::Connect;
                let (ours, theirs) = tokio::io::duplex(64 * 1024);
                let refused = |_| AskError::Connect {
                    to: "memory".into(),
                    source: io::ErrorKind::ConnectionRefused.into(),
                };
                backend.send(theirs).map_err(refused)?;
                Ok(Box::new(ours))
            }
        }
    }
}

impl Web {
    async fn connect(&self, deadline: Instant, step: &mut Step) -> Result<Box<dyn Stream>, AskError> {
        *step = Step::Resolve;
        let addresses = self.resolve().await?;
        *step = Step::Connect;
        let connected = first(&addresses, deadline, TcpStream::connect).await;
        let to = format!("{}:{}", bracketed(&self.host), self.port);
        let socket = connected.map_err(|source| AskError::Connect { to, source })?;
        // A question is one write, and nothing is gained by holding it back. Where the system refuses, it is only slower.
        let _ = socket.set_nodelay(true);
        let Some((config, name)) = &self.tls else { return Ok(Box::new(socket)) };
        *step = Step::Tls;
        let handshake = towpath_tls::Stream::connect(socket, config.clone(), name.clone());
        let stream = handshake.await.map_err(|error| AskError::Tls(error.into()))?;
        Ok(Box::new(stream))
    }

    async fn resolve(&self) -> Result<Vec<SocketAddr>, AskError> {
        let failed = |source| AskError::Resolve { host: self.host.clone(), source };
        let found = lookup_host((&*self.host, self.port)).await.map_err(failed)?;
        // Without TLS the name `localhost` must not lead elsewhere, whatever a resolver says.
        let addresses: Vec<_> =
            found.filter(|at| self.tls.is_some() || at.ip().to_canonical().is_loopback()).collect();
        if addresses.is_empty() {
            return Err(failed(io::Error::new(io::ErrorKind::NotFound, "the host has no address")));
        }
        Ok(addresses)
    }
}

/// Connects to the first address that answers. Each has an equal part of the time that is left, so that one that is not
/// reachable, such as that of a family that the network lacks, does not take all of it.
async fn first<T, F>(
    addresses: &[SocketAddr],
    deadline: Instant,
    connect: impl Fn(SocketAddr) -> F,
) -> io::Result<T>
where
    F: Future<Output = io::Result<T>>,
{
    let mut last = io::ErrorKind::NotFound.into();
    for (tried, address) in addresses.iter().enumerate() {
        let now = Instant::now();
        let left = u32::try_from(addresses.len() - tried).unwrap_or(u32::MAX);
        let share = now + deadline.saturating_duration_since(now) / left;
        match timeout_at(share, connect(*address)).await {
            Ok(Ok(connected)) => return Ok(connected),
            Ok(Err(error)) => last = error,
            Err(_elapsed) => last = io::ErrorKind::TimedOut.into(),
        }
    }
    Err(last)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn an_address_that_does_not_answer_leaves_time_for_the_next() {
        let addresses = ["[2001:db8::1]:443", "192.0.2.1:443"].map(|text| text.parse().expect("an address"));
        let begun = Instant::now();
        let connect = async |address: SocketAddr| {
            if address.is_ipv6() {
                std::future::pending::<()>().await;
            }
            Ok(address)
        };
        let connected = first(&addresses, begun + Duration::from_secs(5), connect).await;
        assert_eq!(connected.expect("the second address"), addresses[1]);
        assert_eq!(begun.elapsed(), Duration::from_millis(2500));
    }
}
