//! Our client at derper: a login that says more than upstream's is one.

use std::time::Duration;

use tokio::time::timeout;
use towpath_interop::Relay;
use towpath_relay_client::{Client, Dialer, Event, TlsVersions, Trust};
use towpath_relay_proto::token::{Claims, SigningKey};
use towpath_wire::derp::token::{MAX_TOKEN, Token};
use towpath_wire::key::{NodePrivate, NodePublic};

const LIMIT: Duration = Duration::from_secs(5);

/// A dialer of the relay, whose logins are bound to their connections.
fn dialer(relay: &Relay) -> Dialer {
    let at = relay.address();
    let dialer = Dialer::tls("127.0.0.1", at.port(), &Trust::Anyone, TlsVersions::Both);
    dialer.expect("a name").at(at)
}

/// Sends a packet from the one to the other.
async fn exchange((from, sender): (NodePublic, &mut Client), (to, receiver): (NodePublic, &mut Client)) {
    sender.send(to, b"packet").await.expect("a client that is connected");
    loop {
        let event = timeout(LIMIT, receiver.recv()).await.expect("in time").expect("a frame");
        if let Event::Packet { from: source, packet } = event {
            assert_eq!((source, &packet[..]), (from, &b"packet"[..]));
            return;
        }
    }
}

/// What derper makes of each of these logins: a client that receives and sends packets.
async fn expect_to_work(logins: [Dialer; 4]) {
    let mut clients = Vec::new();
    for (seed, login) in (1..).zip(logins) {
        let key = NodePrivate::from_random([seed; 32]);
        clients.push((key.public(), login.connect(&key).await.expect("a login")));
    }
    for _ in 0..clients.len() {
        let [(first, sender), (second, receiver), ..] = &mut clients[..] else { panic!("clients") };
        exchange((*first, sender), (*second, receiver)).await;
        clients.rotate_left(1);
    }
}

#[tokio::test]
async fn derper_takes_logins_that_are_bound_and_logins_with_a_token() {
    let relay = Relay::start_derper();
    let key = NodePrivate::from_random([2; 32]).public();
    let claims = Claims { client: key, relay: None, expires: 4_000_000_000, not_before: None, issued: None };
    let token = SigningKey::from_random(&[7; 32]).issue(&claims).expect("a token");
    let longest: Token = "x".repeat(MAX_TOKEN).parse().expect("a token");
    expect_to_work([
        dialer(&relay),
        dialer(&relay).with_token(token.clone()),
        dialer(&relay).proxied().with_token(token),
        dialer(&relay).with_token(longest).without_fast_start(),
    ])
    .await;
}

#[tokio::test]
async fn derper_and_our_client_speak_websocket() {
    let relay = Relay::start_derper();
    expect_to_work([
        dialer(&relay).websocket(),
        dialer(&relay),
        dialer(&relay).websocket().proxied(),
        dialer(&relay).websocket(),
    ])
    .await;
}
