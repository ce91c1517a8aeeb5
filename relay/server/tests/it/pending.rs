//! The limits on connections that have not logged in: one host cannot use them all.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout;

use crate::common::login::secured;
use crate::common::{PATIENCE, Relay, trusting_anyone};

/// Connects from an address of loopback and says nothing.
async fn connect(relay: &Relay, from: [u8; 4]) -> TcpStream {
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.bind(SocketAddr::from((Ipv4Addr::from(from), 0))).expect("an address of loopback");
    socket.connect(relay.tls()).await.expect("the kernel accepts")
}

fn refused(relay: &Relay, reason: &str) -> u64 {
    relay.metric(&format!("towpath_refused_total{{reason=\"{reason}\"}}"))
}

/// Expects that the relay closes a connection on which nothing was sent.
async fn expect_closed(socket: &mut TcpStream) {
    let closed = timeout(PATIENCE, socket.read(&mut [0])).await.expect("an end");
    assert!(matches!(closed, Ok(0) | Err(_)), "{closed:?}");
}

#[tokio::test]
async fn a_host_that_holds_its_places_keeps_out_only_itself() {
    let relay = Relay::start("login.max_pending_per_host = 2\nlogin.first_byte_timeout = \"60s\"");
    // A client that has logged in holds no place.
    let (_, _client) = relay.client(1).await;
    let config = Arc::new(trusting_anyone());
    let idle = [secured(relay.tls(), &config).await, secured(relay.tls(), &config).await];
    let mut third = connect(&relay, [127, 0, 0, 1]).await;
    expect_closed(&mut third).await;
    relay.wait("it is counted", |relay| refused(relay, "host_limit") == 1);

    // Another host is served: that it speaks no TLS is told with an alert.
    let mut other = connect(&relay, [127, 0, 0, 2]).await;
    other.write_all(b"no TLS\r\n").await.expect("the relay takes the bytes");
    assert_eq!(timeout(PATIENCE, other.read_u8()).await.expect("an answer").expect("an answer"), 21);

    drop(idle);
    relay.wait("the places are free", |relay| relay.metric("towpath_pending_connections") == 0);
    let (_, _client) = relay.client(2).await;
    assert_eq!(refused(&relay, "host_limit"), 1);
}

#[tokio::test]
async fn the_silent_connections_of_a_host_make_room_for_its_others() {
    let relay = Relay::start("login.max_pending_per_host = 2\nlogin.first_byte_timeout = \"60s\"");
    let mut silent = [connect(&relay, [127, 0, 0, 1]).await, connect(&relay, [127, 0, 0, 1]).await];
    relay.wait("both hold a place", |relay| relay.metric("towpath_pending_connections") == 2);
    let (_, _client) = relay.client(1).await;
    expect_closed(&mut silent[0]).await;
    relay.wait("it is counted", |relay| refused(relay, "displaced") == 1);
    relay.wait("its place is free", |relay| relay.metric("towpath_pending_connections") == 1);
    assert_eq!(refused(&relay, "host_limit"), 0);
}
