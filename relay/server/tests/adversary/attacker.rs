//! What attackers share: connections from addresses of their choice.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use rustls::pki_types::ServerName;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout;
use towpath_wire::derp::HEADER_LEN;
use towpath_wire::derp::frame::FrameType;
use towpath_wire::derp::info::ClientInfo;
use towpath_wire::key::{NodePrivate, NodePublic};

use crate::common::login::{GREETING, Stream, UPGRADE, response};
use crate::common::{PATIENCE, Relay};

/// Settings by which nothing but another connection ends a pending one.
pub(crate) const PATIENT: &str =
    "login.first_byte_timeout = \"60s\"\nlogin.handshake_timeout = \"60s\"\nlogin.login_timeout = \"60s\"";

/// Connects from an address of loopback.
pub(crate) async fn connect(from: u8, to: SocketAddr) -> TcpStream {
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.set_reuseaddr(true).expect("an option");
    socket.bind(SocketAddr::from((Ipv4Addr::new(127, 0, 0, from), 0))).expect("an address of loopback");
    socket.connect(to).await.expect("the kernel accepts")
}

/// A TLS connection from an address of loopback; `None` if the relay refuses it.
pub(crate) async fn secured(from: u8, relay: &Relay, config: &Arc<rustls::ClientConfig>) -> Option<Stream> {
    secured_at(from, relay.tls(), config).await
}

/// A TLS connection from an address of loopback to the relay at `to`; `None` if the relay refuses it.
pub(crate) async fn secured_at(
    from: u8,
    to: SocketAddr,
    config: &Arc<rustls::ClientConfig>,
) -> Option<Stream> {
    let socket = connect(from, to).await;
    let name = ServerName::try_from("localhost").expect("a name");
    timeout(PATIENCE, Stream::connect(socket, config.clone(), name)).await.expect("an end").ok()
}

/// A client with a key made from `key` that has logged in from an address of loopback; `None` if the relay refuses it.
pub(crate) async fn log_in(
    from: u8,
    key: u64,
    relay: &Relay,
    config: &Arc<rustls::ClientConfig>,
) -> Option<Stream> {
    log_in_at(from, key, relay.tls(), config).await
}

/// A client of the relay at `to`, as [`log_in`] makes one.
pub(crate) async fn log_in_at(
    from: u8,
    key: u64,
    to: SocketAddr,
    config: &Arc<rustls::ClientConfig>,
) -> Option<Stream> {
    let mut stream = secured_at(from, to, config).await?;
    stream.write_all(UPGRADE).await.ok()?;
    stream.flush().await.ok()?;
    let greeting = timeout(PATIENCE, response(&mut stream, GREETING)).await.expect("an answer or an end")?;
    let (relay_key, _) = NodePublic::split_from(&greeting[HEADER_LEN + 8..]).expect("a ServerKey");
    let mut frame = Vec::new();
    let info = ClientInfo { version: 2, ..ClientInfo::default() };
    info.seal(&private(key), &relay_key, &[3; 24], &mut frame);
    stream.write_all(&frame).await.ok()?;
    stream.flush().await.ok()?;
    // The ServerInfo says that the relay has admitted the client. A Health frame says why it has not.
    let answer = timeout(PATIENCE, stream.read_u8()).await.expect("an answer or an end").ok()?;
    (answer == FrameType::ServerInfo as u8).then_some(stream)
}

/// The key that is made from a number.
pub(crate) fn private(key: u64) -> NodePrivate {
    let mut bytes = [0x3c; 32];
    bytes[..8].copy_from_slice(&key.to_be_bytes());
    NodePrivate::from_random(bytes)
}

/// How many connections the relay has refused for this reason.
pub(crate) fn refused(relay: &Relay, reason: &str) -> u64 {
    relay.metric(&format!("towpath_refused_total{{reason=\"{reason}\"}}"))
}

/// Whether the relay has closed `socket`. It has sent nothing on it.
pub(crate) async fn is_closed(socket: &mut TcpStream) -> bool {
    matches!(timeout(PATIENCE, socket.read(&mut [0])).await, Ok(Ok(0) | Err(_)))
}
