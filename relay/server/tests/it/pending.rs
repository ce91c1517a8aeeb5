//! The limits on connections that have not logged in: one host cannot use them all.

use std::net::{Ipv4Addr, SocketAddr};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout;

use crate::common::{PATIENCE, Relay};

/// Connects from an address of loopback and says nothing.
async fn connect(relay: &Relay, from: [u8; 4]) -> TcpStream {
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.bind(SocketAddr::from((Ipv4Addr::from(from), 0))).expect("an address of loopback");
    socket.connect(relay.addresses.tls).await.expect("the kernel accepts")
}

fn refused(relay: &Relay) -> u64 {
    relay.metric("towpath_refused_total{reason=\"host_limit\"}")
}

#[tokio::test]
async fn a_host_that_holds_its_places_keeps_out_only_itself() {
    let relay = Relay::start("login.max_pending_per_host = 2\nlogin.handshake_timeout = \"60s\"");
    // A client that has logged in holds no place.
    let (_, _client) = relay.client(1).await;
    let idle = [connect(&relay, [127, 0, 0, 1]).await, connect(&relay, [127, 0, 0, 1]).await];
    relay.wait("both hold a place", |relay| relay.metric("towpath_pending_connections") == 2);

    let mut third = connect(&relay, [127, 0, 0, 1]).await;
    let closed = timeout(PATIENCE, third.read(&mut [0])).await.expect("an end");
    assert!(matches!(closed, Ok(0) | Err(_)), "{closed:?}");
    relay.wait("it is counted", |relay| refused(relay) == 1);

    // Another host is served: that it speaks no TLS is told with an alert.
    let mut other = connect(&relay, [127, 0, 0, 2]).await;
    other.write_all(b"GET / HTTP/1.1\r\n\r\n").await.expect("the relay takes the bytes");
    assert_eq!(timeout(PATIENCE, other.read_u8()).await.expect("an answer").expect("an answer"), 21);

    drop(idle);
    relay.wait("the places are free", |relay| relay.metric("towpath_pending_connections") == 0);
    let (_, _client) = relay.client(2).await;
    assert_eq!(refused(&relay), 1);
}
