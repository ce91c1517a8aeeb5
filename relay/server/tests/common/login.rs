//! Logins step by step, for tests that want something else than a client between the steps.

use std::sync::Arc;

use rustls::client::UnbufferedClientConnection;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use wire::derp::HEADER_LEN;
use wire::derp::info::ClientInfo;
use wire::key::{NodePrivate, NodePublic};

pub(crate) type Stream = tls::Stream<TcpStream, UnbufferedClientConnection>;

/// The request of a client that waits for the response.
pub(crate) const UPGRADE: &[u8] = b"GET /derp HTTP/1.1\r\nHost: localhost\r\nUpgrade: DERP\r\n\r\n";

/// A TLS connection on which nothing was sent.
pub(crate) async fn secured(address: std::net::SocketAddr, config: &Arc<rustls::ClientConfig>) -> Stream {
    let socket = TcpStream::connect(address).await.expect("the relay accepts");
    let name = ServerName::try_from("localhost").expect("a name");
    let connection = UnbufferedClientConnection::new(config.clone(), name).expect("a client");
    Stream::handshake(socket, connection).await.expect("a handshake")
}

/// A TLS connection on which a non-fast-start upgrade was answered, and the relay's key.
pub(crate) async fn upgraded(
    address: std::net::SocketAddr,
    config: &Arc<rustls::ClientConfig>,
) -> (Stream, NodePublic) {
    let mut stream = secured(address, config).await;
    stream.write_all(UPGRADE).await.expect("a request");
    stream.flush().await.expect("a request");
    let key = greeting(&mut stream).await.expect("an answer");
    (stream, key)
}

/// Reads the response to an upgrade and the ServerKey frame; `None` if the relay closes before that.
pub(crate) async fn greeting(stream: &mut Stream) -> Option<NodePublic> {
    let mut answer = Vec::new();
    let end = loop {
        if stream.read_buf(&mut answer).await.ok()? == 0 {
            return None;
        }
        if let Some(end) = answer.windows(4).position(|window| window == b"\r\n\r\n")
            && answer.len() >= end + 4 + HEADER_LEN + 40
        {
            break end + 4;
        }
    };
    assert!(answer.starts_with(b"HTTP/1.1 101 "));
    let (key, rest) = NodePublic::split_from(&answer[end + HEADER_LEN + 8..]).expect("a ServerKey");
    assert!(rest.is_empty());
    Some(key)
}

/// A login's ClientInfo frame for the relay with `key`.
pub(crate) fn client_info(key: &NodePublic) -> Vec<u8> {
    let mut frame = Vec::new();
    ClientInfo { version: 2, ..ClientInfo::default() }.seal(
        &NodePrivate::from_random([9; 32]),
        key,
        &[3; 24],
        &mut frame,
    );
    frame
}
