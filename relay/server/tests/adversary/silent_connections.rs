//! Connections that send nothing, or not enough to log in, from as many addresses as it takes to hold every place.

use std::net::SocketAddr;

use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::time::timeout;
use towpath_wire::derp::HEADER_LEN;
use towpath_wire::key::NodePublic;

use crate::alone;
use crate::attacker::{PATIENT, connect, is_closed, refused};
use crate::common::login::{GREETING, client_info, response};
use crate::common::{PATIENCE, Relay};
use crate::honest::Pair;
use crate::memory::resident;

/// More than any connection that has sent nothing may cost: a socket, a task and a place in the tables.
const SILENT: usize = 16 * 1024;
/// The figures of the defaults, scaled down: the places are those of eight hosts.
const PLACES: usize = 64;
const HOSTS: u8 = 8;

/// A relay with few places, which only a newer connection takes away.
fn crowded_relay() -> Relay {
    Relay::start(&format!(
        "{PATIENT}\nlogin.max_pending = {PLACES}\nlogin.max_pending_per_host = {}\nhttp.listen = \"127.0.0.1:0\"\n\
         http.proxies = [\"127.0.0.0/8\"]",
        PLACES / usize::from(HOSTS)
    ))
}

/// Takes every place, from eight hosts, and sends `bytes` on each connection.
async fn take_all(relay: &Relay, at: SocketAddr, bytes: &[u8]) -> Vec<TcpStream> {
    let mut held = Vec::new();
    for number in 0..PLACES {
        let mut socket = connect(100 + number as u8 % HOSTS, at).await;
        socket.write_all(bytes).await.expect("the relay takes the bytes");
        held.push(socket);
    }
    relay.wait("every place is taken", |relay| relay.metric("towpath_pending_connections") == PLACES as u64);
    held
}

/// Logs in honest clients one after the other, each beside one more connection of every attacking host.
async fn log_in_beside(relay: &Relay, at: SocketAddr, held: &mut Vec<TcpStream>, log_in: impl AsyncFn(u8)) {
    for seed in 0..10 {
        for host in 0..HOSTS {
            held.push(connect(100 + host, at).await);
        }
        timeout(PATIENCE, log_in(seed)).await.expect("the honest client logs in");
    }
    relay.wait("the displaced are closed", |relay| {
        relay.metric("towpath_pending_connections") <= PLACES as u64
    });
}

#[tokio::test]
async fn silent_connections_cost_little_and_disturb_no_pair() {
    let _alone = alone().await;
    let relay = Relay::start(PATIENT);
    let mut pair = Pair::new(&relay).await;
    pair.exchange(10).await;
    let before = resident();
    let mut silent = Vec::new();
    for _ in 0..256 {
        silent.push(TcpStream::connect(relay.tls()).await.expect("the relay accepts"));
    }
    relay.wait("the connections wait", |relay| relay.metric("towpath_pending_connections") > 200);
    pair.exchange(100).await;
    let cost = resident().saturating_sub(before);
    assert!(cost <= silent.len() * SILENT, "{} silent connections cost {cost} bytes", silent.len());
}

#[tokio::test]
async fn hosts_that_hold_every_place_in_silence_keep_no_client_out() {
    let _alone = alone().await;
    let relay = crowded_relay();
    let mut held = take_all(&relay, relay.tls(), b"").await;
    log_in_beside(&relay, relay.tls(), &mut held, async |seed| {
        let (_, _client) = relay.client(seed).await;
    })
    .await;
    assert!(is_closed(&mut held[0]).await, "the oldest has lost its place");
    relay.wait("it is counted", |relay| refused(relay, "displaced") >= 80);
}

#[tokio::test]
async fn hosts_that_hold_every_place_with_a_byte_each_keep_no_client_out() {
    let _alone = alone().await;
    let relay = crowded_relay();
    let mut held = take_all(&relay, relay.tls(), &[22]).await;
    log_in_beside(&relay, relay.tls(), &mut held, async |seed| {
        let (_, _client) = relay.client(seed).await;
    })
    .await;
    // A host that holds all of its places with a byte on each may have no more.
    relay.wait("they are counted", |relay| {
        let (displaced, limited) = (refused(relay, "displaced"), refused(relay, "host_limit"));
        displaced > 0 && limited > 0 && displaced + limited >= 80
    });
}

/// Logs in through the plain listener, for the client that the proxy at 127.0.0.1 names.
async fn log_in_by_proxy(relay: &Relay, client: &str) -> Option<TcpStream> {
    let mut stream = upgrade_by_proxy(relay, client).await;
    let greeting = response(&mut stream, GREETING).await?;
    let (key, _) = NodePublic::split_from(&greeting[HEADER_LEN + 8..]).expect("a ServerKey");
    stream.write_all(&client_info(&key)).await.expect("the relay takes the bytes");
    Some(stream)
}

/// Sends the request of a client that the proxy at 127.0.0.1 names.
async fn upgrade_by_proxy(relay: &Relay, client: &str) -> TcpStream {
    let mut stream = connect(1, relay.addresses.http.expect("a plain listener")).await;
    let head = format!(
        "GET /derp HTTP/1.1\r\nHost: localhost\r\nUpgrade: DERP\r\nX-Forwarded-For: {client}\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).await.expect("the relay takes the bytes");
    stream
}

#[tokio::test]
async fn silent_connections_through_a_proxy_keep_no_client_of_the_proxy_out() {
    let _alone = alone().await;
    let relay = crowded_relay();
    let plain = relay.addresses.http.expect("a plain listener");
    let mut held = Vec::new();
    for _ in 0..PLACES {
        held.push(connect(1, plain).await);
    }
    relay.wait("every place is taken", |relay| relay.metric("towpath_pending_connections") == PLACES as u64);
    let before = relay.metric("derp_current_connections");
    let mut clients = Vec::new();
    for _ in 0..8 {
        held.push(connect(1, plain).await);
        let client =
            timeout(PATIENCE, log_in_by_proxy(&relay, "192.0.2.1")).await.expect("an answer in time");
        clients.push(client.expect("the honest client logs in"));
    }
    relay.wait("they are logged in", |relay| relay.metric("derp_current_connections") == before + 8);
    assert!(is_closed(&mut held[0]).await, "the oldest has lost its place");
    relay.wait("it is counted", |relay| refused(relay, "displaced") >= 8);
}

#[tokio::test]
async fn a_client_behind_a_proxy_has_the_places_of_one_host() {
    let _alone = alone().await;
    let relay = crowded_relay();
    let per_host = PLACES / usize::from(HOSTS);
    let mut held = Vec::new();
    for _ in 0..per_host {
        let mut stream = upgrade_by_proxy(&relay, "192.0.2.1").await;
        assert!(response(&mut stream, GREETING).await.is_some());
        held.push(stream);
    }
    assert_eq!(refused(&relay, "host_limit"), 0);
    let mut more = upgrade_by_proxy(&relay, "192.0.2.1").await;
    assert!(timeout(PATIENCE, response(&mut more, GREETING)).await.expect("an end").is_none());
    relay.wait("it is counted", |relay| refused(relay, "host_limit") == 1);
    // Other clients of the same proxy are other hosts.
    let other = timeout(PATIENCE, log_in_by_proxy(&relay, "192.0.2.2")).await.expect("an answer in time");
    assert!(other.is_some());
}
