//! Logins step by step, for tests that want something else than a client between the steps.

use std::sync::Arc;

use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use towpath_wire::derp::HEADER_LEN;
use towpath_wire::derp::info::ClientInfo;
use towpath_wire::key::{NodePrivate, NodePublic};

pub(crate) type Stream = towpath_tls::Stream<TcpStream, towpath_tls::Client>;

/// The request of a client that waits for the response.
pub(crate) const UPGRADE: &[u8] = b"GET /derp HTTP/1.1\r\nHost: localhost\r\nUpgrade: DERP\r\n\r\n";

/// Bytes of the frame that follows the response, the relay's ServerKey.
pub(crate) const GREETING: usize = HEADER_LEN + 8 + 32;

/// A TLS connection on which nothing was sent.
pub(crate) async fn secured(address: std::net::SocketAddr, config: &Arc<rustls::ClientConfig>) -> Stream {
    let socket = TcpStream::connect(address).await.expect("the relay accepts");
    let name = ServerName::try_from("localhost").expect("a name");
    Stream::connect(socket, config.clone(), name).await.expect("a handshake")
}

/// A TLS connection on which a non-fast-start upgrade was answered, and the relay's key.
pub(crate) async fn upgraded(
    address: std::net::SocketAddr,
    config: &Arc<rustls::ClientConfig>,
) -> (Stream, NodePublic) {
    let mut stream = secured(address, config).await;
    stream.write_all(UPGRADE).await.expect("a request");
    stream.flush().await.expect("a request");
    let greeting = response(&mut stream, GREETING).await.expect("an answer");
    let (key, rest) = NodePublic::split_from(&greeting[HEADER_LEN + 8..]).expect("a ServerKey");
    assert!(rest.is_empty());
    (stream, key)
}

/// Reads the response to an upgrade and returns what is behind its head, once that has `len` bytes; `None` if the relay
/// closes before.
pub(crate) async fn response(stream: &mut (impl AsyncRead + Unpin), len: usize) -> Option<Vec<u8>> {
    let mut answer = Vec::new();
    loop {
        if stream.read_buf(&mut answer).await.ok()? == 0 {
            return None;
        }
        if let Some(head) = answer.windows(4).position(|window| window == b"\r\n\r\n")
            && answer.len() >= head + 4 + len
        {
            assert!(answer.starts_with(b"HTTP/1.1 101 "));
            return Some(answer.split_off(head + 4));
        }
    }
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
