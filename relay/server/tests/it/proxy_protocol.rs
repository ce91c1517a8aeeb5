//! Proxies of TCP that name their clients in a header of the PROXY protocol: the relay takes the client's address from it for
//! whatever hangs on an address, from such proxies and from no other connection.
//!
//! Here the proxy is at 127.0.0.2, and what comes from 127.0.0.1 is a client of its own.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use rustls::{AlertDescription, ClientConnection, Error};
use tokio::io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::time::timeout;
use towpath_relay_client::{Client, Event};
use towpath_wire::derp::HEADER_LEN;
use towpath_wire::key::{NodePrivate, NodePublic};

use crate::common::login::{GREETING, client_info, response};
use crate::common::{MeshFiles, PATIENCE, Relay, event, mesh_info, trusting_anyone};

const SOURCES: &str = "proxy_protocol.sources = ['127.0.0.2']";
const V4: [u8; 8] = [192, 0, 2, 1, 198, 51, 100, 1];
const PORTS: [u8; 4] = [0x9c, 0x40, 0x01, 0xbb];

/// A header of version 2.
fn binary(command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
    let length = u16::try_from(rest.len()).expect("a length that a header can have").to_be_bytes();
    [b"\r\n\r\n\0\r\nQUIT\n", &[command, family][..], &length, rest].concat()
}

/// The header for a client at 192.0.2.`last`:40000.
fn header_of(last: u8) -> Vec<u8> {
    binary(0x21, 0x11, &[&[192, 0, 2, last], &V4[4..], &PORTS].concat())
}

/// A connection of the proxy, on which nothing was sent.
async fn connect(to: SocketAddr) -> TcpStream {
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.bind((Ipv4Addr::new(127, 0, 0, 2), 0).into()).expect("an address of loopback");
    let stream = socket.connect(to).await.expect("the relay accepts");
    stream.set_nodelay(true).expect("an option");
    stream
}

/// A connection of the proxy on which `bytes` were sent.
async fn sent(to: SocketAddr, bytes: &[u8]) -> TcpStream {
    let mut stream = connect(to).await;
    stream.write_all(bytes).await.expect("the kernel takes the bytes");
    stream
}

/// Everything that the relay says until it closes.
async fn rest(stream: &mut TcpStream) -> Vec<u8> {
    let mut answer = Vec::new();
    timeout(PATIENCE, stream.read_to_end(&mut answer)).await.expect("an end in time").expect("no reset");
    answer
}

fn expect_refused(relay: &Relay, reason: &str, times: u64) {
    let metric = format!("towpath_refused_total{{reason=\"{reason}\"}}");
    relay.wait(reason, |relay| relay.metric(&metric) == times);
}

/// A client of the relay that comes through the proxy, which sends `header` in pieces of this length.
async fn proxied(relay: &Relay, header: Vec<u8>, piece: usize, seed: u8) -> (NodePublic, Client) {
    let front = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let (address, to) = (front.local_addr().expect("an address"), relay.tls());
    tokio::spawn(async move {
        let (mut client, _) = front.accept().await.expect("a client");
        let mut server = connect(to).await;
        for piece in header.chunks(piece) {
            server.write_all(piece).await.expect("the relay takes the bytes");
            tokio::task::yield_now().await;
        }
        // Ends when either side does.
        let _ = copy_bidirectional(&mut client, &mut server).await;
    });
    let key = NodePrivate::from_random([seed; 32]);
    let client = timeout(PATIENCE, relay.dialer().at(address).connect(&key)).await.expect("a login in time");
    (key.public(), client.expect("a login"))
}

async fn watcher(relay: &Relay) -> Client {
    let key = NodePrivate::from_random([0xee; 32]);
    let mut client = relay.dialer().with_info(mesh_info()).connect(&key).await.expect("a login");
    client.watch().await.expect("sent");
    let Event::PeerPresent { address: Some(own), .. } = event(&mut client).await else { panic!("itself") };
    assert_eq!(own.ip(), Ipv4Addr::LOCALHOST, "what is no proxy needs no header");
    client
}

/// Where the next client is that the watcher is told of; clients that leave are passed over.
async fn told(watcher: &mut Client, key: NodePublic) -> SocketAddr {
    loop {
        if let Event::PeerPresent { peer, address, .. } = event(watcher).await {
            assert_eq!(peer, key);
            return address.expect("the relay says where");
        }
    }
}

#[tokio::test]
async fn the_client_is_where_the_header_says() {
    let files = MeshFiles::new(1);
    let relay = Relay::start(&format!("{SOURCES}\n{}", files.settings(&[])));
    let mut watcher = watcher(&relay).await;
    let v6 = [&[0x20, 1, 0xd, 0xb8][..], &[0; 11], &[1], &[0xfe; 16], &PORTS].concat();
    let with_tlvs = binary(0x21, 0x11, &[&V4[..], &PORTS, &[0xee; 60_000]].concat());
    let (whole, in_bytes) = (usize::MAX, 1);
    for (seed, (header, piece, expected)) in (10..).zip([
        (header_of(1), whole, "192.0.2.1:40000"),
        (header_of(1), in_bytes, "192.0.2.1:40000"),
        (binary(0x21, 0x21, &v6), whole, "[2001:db8::1]:40000"),
        (with_tlvs, 1000, "192.0.2.1:40000"),
        (b"PROXY TCP4 192.0.2.1 198.51.100.1 40000 443\r\n".to_vec(), whole, "192.0.2.1:40000"),
        (b"PROXY TCP6 2001:db8::1 ::1 7 443\r\n".to_vec(), in_bytes, "[2001:db8::1]:7"),
    ]) {
        let (key, _client) = proxied(&relay, header, piece, seed).await;
        assert_eq!(told(&mut watcher, key).await.to_string(), expected);
    }
    // The connection is the proxy's own, or it does not know.
    for (seed, header) in (100..).zip([binary(0x20, 0, &[]), b"PROXY UNKNOWN\r\n".to_vec()]) {
        let (key, _client) = proxied(&relay, header, whole, seed).await;
        assert_eq!(told(&mut watcher, key).await.ip(), Ipv4Addr::new(127, 0, 0, 2));
    }
    assert_eq!(relay.metric("towpath_refused_total"), 0);
}

#[tokio::test]
async fn a_proxy_without_a_header_is_told_so_and_closed() {
    let relay = Relay::start(&format!(
        "{SOURCES}\nhttp.listen = '127.0.0.1:0'\nhttp.redirect_listen = '127.0.0.1:0'\nlogin.first_byte_timeout = '300ms'"
    ));
    let name = "localhost".try_into().expect("a name");
    let mut client = ClientConnection::new(Arc::new(trusting_anyone()), name).expect("a client");
    let mut hello = Vec::new();
    client.write_tls(&mut hello).expect("bytes");
    let answer = rest(&mut sent(relay.tls(), &hello).await).await;
    client.read_tls(&mut &answer[..]).expect("bytes");
    let told = client.process_new_packets().expect_err("no handshake");
    assert_eq!(told, Error::AlertReceived(AlertDescription::UnexpectedMessage));
    expect_refused(&relay, "proxy_header_missing", 1);

    let addresses =
        [relay.addresses.http, relay.addresses.redirect].map(|address| address.expect("a listener"));
    for (times, address) in (2..).zip(addresses) {
        let mut stream = sent(address, b"GET /generate_204 HTTP/1.1\r\nHost: x\r\n\r\n").await;
        let answer = String::from_utf8(rest(&mut stream).await).expect("text");
        assert!(answer.starts_with("HTTP/1.1 400 Bad Request\r\n"), "{answer}");
        assert!(
            answer.ends_with("This relay expects a PROXY protocol header from this address.\n"),
            "{answer}"
        );
        expect_refused(&relay, "proxy_header_missing", times);
    }
    let (http, _) = (addresses[0], addresses[1]);
    let invalid = [binary(0x31, 0x11, &[0; 12]), b"PROXY TCP4 x\r\n".to_vec()];
    for (times, header) in (1..).zip(invalid) {
        assert!(rest(&mut sent(http, &header).await).await.starts_with(b"HTTP/1.1 400 "));
        expect_refused(&relay, "proxy_header_invalid", times);
    }
    // Nothing, and a part of it: both end by themselves.
    for (times, part) in (1..).zip([&[][..], &header_of(1)[..20]]) {
        assert!(rest(&mut sent(relay.tls(), part).await).await.is_empty());
        expect_refused(&relay, "proxy_header_timeout", times);
    }
    drop(sent(relay.tls(), &header_of(1)[..20]).await);
    expect_refused(&relay, "broken", 1);

    // A health check of the proxy's own is answered.
    let check =
        [&binary(0x20, 0, &[])[..], b"GET /derp/probe HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"]
            .concat();
    assert!(rest(&mut sent(http, &check).await).await.starts_with(b"HTTP/1.1 200 "));
    // A header from elsewhere is believed as little as before.
    let mut elsewhere = TcpStream::connect(http).await.expect("the relay accepts");
    elsewhere.write_all(&[&header_of(1)[..], &check].concat()).await.expect("the kernel takes the bytes");
    assert!(rest(&mut elsewhere).await.starts_with(b"HTTP/1.1 400 "));
    expect_refused(&relay, "proxy_header", 1);
}

/// What a client holds is charged to its own address, and what has no header yet to the proxy, which has no bound.
#[tokio::test]
async fn the_client_of_a_proxy_is_charged_for_its_connections() {
    let relay = Relay::start(&format!(
        "{SOURCES}\nlogin.max_pending_per_host = 2\nlogin.first_byte_timeout = '60s'\nlogin.handshake_timeout = '60s'"
    ));
    let pending = |count: u64| {
        relay.wait("pending", |relay| relay.metric("towpath_pending_connections") == count);
    };
    let mut held = Vec::new();
    for _ in 0..5 {
        held.push(connect(relay.tls()).await);
    }
    pending(5);
    let begun = [&header_of(1)[..], &[22]].concat();
    for count in [6, 7] {
        held.push(sent(relay.tls(), &begun).await);
        pending(count);
    }
    // One that is heard gives no place up.
    let mut refused = sent(relay.tls(), &begun).await;
    // What it has sent is not read, so the end may be a reset.
    let _ = timeout(PATIENCE, refused.read(&mut [0])).await.expect("an end in time");
    expect_refused(&relay, "host_limit", 1);
    held.push(sent(relay.tls(), &[&header_of(2)[..], &[22]].concat()).await);
    pending(8);
    assert_eq!(relay.metric("towpath_refused_total"), 1);
}

#[tokio::test]
async fn the_client_of_a_proxy_is_charged_for_its_handshakes() {
    let relay = Relay::start(&format!(
        "{SOURCES}\nlogin.max_pending = 64\nlogin.first_byte_timeout = '60s'\nlogin.handshake_timeout = '60s'"
    ));
    let begun = |client| [&header_of(client)[..], &[22, 3]].concat();
    let mut held = Vec::new();
    for client in 100..133 {
        held.push(sent(relay.tls(), &begun(client)).await);
    }
    relay.wait("the places are crowded", |relay| relay.metric("towpath_pending_connections") == 33);
    let refused = |relay: &Relay| relay.metric("towpath_refused_total{reason=\"handshake_rate\"}");
    // One after the other, because they would take each other's places.
    let ask = async |client, times| {
        for _ in 0..times {
            let mut stream = sent(relay.tls(), &begun(client)).await;
            let _ = stream.shutdown().await;
            let _ = timeout(PATIENCE, stream.read(&mut [0])).await.expect("an end in time");
        }
        relay.wait("they have ended", |relay| relay.metric("towpath_pending_connections") == 33);
        refused(&relay)
    };
    let before = ask(1, 1000).await;
    assert!(before > 0, "the rate of one host is bounded");
    assert_eq!(ask(2, 40).await, before, "another client of the same proxy has a rate of its own");
}

/// A plain connection through the proxy that has asked for DERP, with this X-Forwarded-For; `None` if it is refused.
async fn upgraded(relay: &Relay, header: &[u8], forwarded_for: &str) -> Option<(TcpStream, Vec<u8>)> {
    let request = format!(
        "GET /derp HTTP/1.1\r\nHost: localhost\r\nUpgrade: DERP\r\nX-Forwarded-For: {forwarded_for}\r\n\r\n"
    );
    let to = relay.addresses.http.expect("a plain listener");
    let mut stream = sent(to, &[header, request.as_bytes()].concat()).await;
    let greeting = timeout(PATIENCE, response(&mut stream, GREETING)).await.expect("an answer in time")?;
    Some((stream, greeting))
}

/// The listener without TLS takes connections from both kinds of proxies, and of a proxy of HTTP behind one of TCP it knows
/// the client by both headers.
#[tokio::test]
async fn the_header_says_which_proxy_of_http_is_in_front() {
    let files = MeshFiles::new(1);
    let relay = Relay::start(&format!(
        "{SOURCES}\nhttp.listen = '127.0.0.1:0'\nhttp.proxies = ['192.0.2.100']\n{}",
        files.settings(&[])
    ));
    let mut watcher = watcher(&relay).await;
    for (client, expected) in [(100, "198.51.100.9:0"), (1, "192.0.2.1:40000")] {
        let upgraded = upgraded(&relay, &header_of(client), "198.51.100.9").await;
        let (mut stream, greeting) = upgraded.expect("a greeting");
        let (key, _) = NodePublic::split_from(&greeting[HEADER_LEN + 8..]).expect("a ServerKey");
        stream.write_all(&client_info(&key)).await.expect("the relay takes the bytes");
        let own = NodePrivate::from_random([9; 32]).public();
        assert_eq!(told(&mut watcher, own).await.to_string(), expected);
        drop(stream);
        // The next one has the same key.
        while !matches!(event(&mut watcher).await, Event::PeerGone { .. }) {}
    }
    let mut stranger =
        TcpStream::connect(relay.addresses.http.expect("a plain listener")).await.expect("accepted");
    let _ = stranger.read(&mut [0]).await;
    expect_refused(&relay, "not_a_proxy", 1);
}

/// A request without another name in it leaves a connection charged to the client of the header.
#[tokio::test]
async fn a_request_does_not_take_the_charge_from_the_client_of_the_header() {
    let relay =
        Relay::start(&format!("{SOURCES}\nhttp.listen = '127.0.0.1:0'\nlogin.max_pending_per_host = 1"));
    let first = upgraded(&relay, &header_of(1), "").await;
    assert!(first.is_some());
    assert!(upgraded(&relay, &header_of(1), "").await.is_none());
    expect_refused(&relay, "host_limit", 1);
    assert!(upgraded(&relay, &header_of(2), "").await.is_some());
}
