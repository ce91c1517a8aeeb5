//! Relays with several addresses.

use std::net::SocketAddr;

use tokio::io::AsyncReadExt;
use tokio::net::TcpSocket;
use towpath_relay_client::{DialError, Dialer};

use crate::support::{client_key, log_in, relay_key, tcp_relay};

/// An address that refuses connections. The socket is bound and does not listen, so that no other process can take the port.
fn refusing() -> (TcpSocket, SocketAddr) {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let address = socket.local_addr().unwrap();
    (socket, address)
}

#[tokio::test]
async fn the_first_address_that_accepts_is_taken() {
    let relay = tcp_relay(async |mut socket| {
        log_in(&mut socket, &[]).await;
        let _ = socket.read_to_end(&mut Vec::new()).await;
    })
    .await;
    let (_held, refusing) = refusing();
    // Neither the name nor its port is of use.
    let dialer = Dialer::plain("relay.invalid", 1).at_any(vec![refusing, relay]);
    let client = dialer.connect(&client_key()).await.unwrap();
    assert_eq!(client.relay(), relay_key().public());
}

#[tokio::test]
async fn where_no_address_accepts_the_last_failure_is_told() {
    let ((_first_held, first), (_second_held, second)) = (refusing(), refusing());
    let dialer = Dialer::plain("relay.invalid", 1).at_any(vec![first, second]);
    let error = dialer.connect(&client_key()).await.unwrap_err();
    assert!(matches!(error, DialError::Tcp { address, .. } if address == second), "{error}");
}

#[tokio::test]
async fn an_empty_list_of_addresses_means_the_name() {
    let relay = tcp_relay(async |mut socket| {
        log_in(&mut socket, &[]).await;
        let _ = socket.read_to_end(&mut Vec::new()).await;
    })
    .await;
    let dialer = Dialer::plain("127.0.0.1", relay.port()).at_any(Vec::new());
    assert!(dialer.connect(&client_key()).await.is_ok());
}
