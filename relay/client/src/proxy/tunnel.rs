//! A tunnel to a relay: a connection to the proxy that goes on as one to the relay.

use std::io;
use std::net::SocketAddr;

use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use super::Proxy;
use crate::http::{NoResponse, read_head, tunnel_request};
use crate::tcp::{self, ConnectFailure};

/// Why a proxy makes no tunnel.
#[derive(Debug, thiserror::Error)]
pub enum ProxyFailure {
    /// The proxy has no address.
    #[error("its name cannot be resolved")]
    Resolve(#[source] io::Error),
    /// No address of the proxy accepts.
    #[error("cannot connect to it at {address}")]
    Tcp {
        /// The address that failed last.
        address: SocketAddr,
        /// What the system says.
        source: io::Error,
    },
    /// The socket failed.
    #[error("the connection to it failed")]
    Io(#[source] io::Error),
    /// The proxy closed before its response was whole.
    #[error("it closed the connection without an answer")]
    Closed,
    /// No HTTP/1 response, or one with an endless header.
    #[error("what answers there is not an HTTP proxy: check host and port")]
    NotHttp,
    /// Status 407 to a request without credentials.
    #[error(
        "it asks for credentials (status 407): put them into its URL, as in http://user:password@host:port"
    )]
    NoCredentials,
    /// Status 407 to a request with credentials.
    #[error(
        "it does not accept the credentials of its URL (status 407): check user and password; the scheme Basic is the only \
         one that is supported"
    )]
    BadCredentials,
    /// Another status that is no success.
    #[error("it answered with status {status} instead of 200{advice}", status = .0, advice = advice(*.0))]
    Status(u16),
    /// Bytes behind the response, although the relay has been sent nothing that it could answer.
    #[error("it sent bytes of its own into the tunnel")]
    EarlyBytes,
}

/// What a status of a proxy means for an operator.
fn advice(status: u16) -> &'static str {
    match status {
        400 | 405 | 501 => ": it makes no tunnels (CONNECT); check host and port",
        403 => ": its rules forbid this relay; have its host and port allowed, or put the host into NO_PROXY",
        502..=504 => ": it cannot reach the relay",
        _ => "",
    }
}

impl From<NoResponse> for ProxyFailure {
    fn from(error: NoResponse) -> Self {
        match error {
            NoResponse::Io(error) => Self::Io(error),
            NoResponse::Closed => Self::Closed,
            NoResponse::NotHttp => Self::NotHttp,
        }
    }
}

/// Connects to `host` through `proxy`, which looks it up.
pub(crate) async fn open(
    proxy: &Proxy,
    host: &str,
    port: u16,
    mark: Option<u32>,
) -> Result<TcpStream, ProxyFailure> {
    let addresses = tcp::resolve(&proxy.host, proxy.port).await.map_err(ProxyFailure::Resolve)?;
    let failed = |ConnectFailure { address, source }| ProxyFailure::Tcp { address, source };
    let mut socket = tcp::connect(&addresses, mark).await.map_err(failed)?;
    let request = tunnel_request(host, port, proxy.authorization.as_deref());
    socket.write_all(request.as_bytes()).await.map_err(ProxyFailure::Io)?;
    let mut received = Vec::with_capacity(1024);
    match read_head(&mut socket, &mut received).await?.status {
        // Any success, by RFC 9110 section 9.3.6. Whatever the header says of a body, there is none.
        200..=299 if received.is_empty() => Ok(socket),
        200..=299 => Err(ProxyFailure::EarlyBytes),
        407 if proxy.authorization.is_none() => Err(ProxyFailure::NoCredentials),
        407 => Err(ProxyFailure::BadCredentials),
        status => Err(ProxyFailure::Status(status)),
    }
}
