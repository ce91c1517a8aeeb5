//! The stage secure: the TLS handshake.

use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::time::error::Elapsed;
use tokio::time::timeout;

use super::refusal::Refusal;
use super::stream::TlsStream;

/// Does the TLS handshake with the client on `socket`, within `limit`.
pub(super) async fn secure(
    socket: TcpStream,
    config: Arc<rustls::ServerConfig>,
    limit: Duration,
) -> Result<TlsStream, Refusal> {
    timeout(limit, TlsStream::accept(socket, config))
        .await
        .map_err(|_: Elapsed| Refusal::HandshakeTimeout)?
        .map_err(Refusal::Handshake)
}
