//! Dialling through an HTTP proxy: what it is asked, what goes through it, and what it answers instead.

use std::error::Error;
use std::net::SocketAddr;
use std::process::Command;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional};
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep};
use towpath_relay_client::{
    CONNECT_TIMEOUT, DialError, DialStep, Dialer, Event, Proxy, ProxyFailure, TlsVersions,
};
use towpath_wire::key::NodePublic;

use crate::support::{
    Identity, NAME, TlsStream, client_key, dialer, echo, log_in, read_request, relay_key, tcp_relay,
    tls_relay, write,
};

const PEER: NodePublic = NodePublic::from_bytes([7; 32]);
const ESTABLISHED: &[u8] = b"HTTP/1.1 200 Connection established\r\nX-Cache: MISS\r\n\r\n";

fn meta() -> Identity {
    Identity::for_test().with_meta(relay_key().public())
}

/// Where nothing listens: only a proxy knows the way to the relay.
fn unreachable() -> SocketAddr {
    ([127, 0, 0, 1], 1).into()
}

/// A proxy that makes one tunnel to `relay`, and the request that it gets.
async fn proxy(relay: SocketAddr, credentials: &str) -> (Proxy, oneshot::Receiver<String>) {
    let (told, request) = oneshot::channel();
    let address = tcp_relay(async move |mut socket| {
        let (request, rest) = read_request(&mut socket).await;
        assert!(rest.is_empty(), "nothing is sent before there is a tunnel");
        told.send(request).unwrap();
        let mut relay = TcpStream::connect(relay).await.unwrap();
        write(&mut socket, ESTABLISHED).await;
        let _ = copy_bidirectional(&mut socket, &mut relay).await;
    })
    .await;
    (Proxy::from_url(&format!("http://{credentials}{address}")).unwrap(), request)
}

#[tokio::test]
async fn tls_and_fast_start_are_the_same_inside_of_a_tunnel() {
    let identity = meta();
    let relay = tls_relay(&identity, async |mut stream: TlsStream| {
        log_in(&mut stream, &[]).await;
        echo(&mut stream).await;
    })
    .await;
    let (proxy, request) = proxy(relay, "user:p%40ss@").await;
    let dialer = dialer(unreachable(), &identity.pin(), TlsVersions::Both).through(proxy);
    let mut client = dialer.connect(&client_key()).await.unwrap();
    assert!(client.fast_start());
    client.send(PEER, b"through the tunnel").await.unwrap();
    assert_eq!(
        client.recv().await.unwrap(),
        Event::Packet { from: PEER, packet: b"through the tunnel".to_vec() }
    );
    let version = env!("CARGO_PKG_VERSION");
    assert_eq!(
        request.await.unwrap(),
        format!(
            "CONNECT {NAME}:443 HTTP/1.1\r\nHost: {NAME}:443\r\nUser-Agent: towpath/{version}\r\n\
             Proxy-Authorization: Basic dXNlcjpwQHNz\r\n\r\n"
        )
    );
}

#[tokio::test]
async fn a_relay_without_tls_is_reached_through_a_tunnel_as_well() {
    let relay = tcp_relay(async |mut socket| {
        log_in(&mut socket, &[]).await;
        echo(&mut socket).await;
    })
    .await;
    let (proxy, request) = proxy(relay, "").await;
    let client = Dialer::plain("relay.test", 8080).through(proxy).connect(&client_key()).await.unwrap();
    assert_eq!(client.relay(), relay_key().public());
    let request = request.await.unwrap();
    assert!(request.starts_with("CONNECT relay.test:8080 HTTP/1.1\r\n"), "{request}");
    assert!(!request.contains("Authorization"), "{request}");
}

/// What comes of it when a proxy answers with `answer` and closes.
async fn answered(credentials: &str, answer: &'static [u8]) -> DialError {
    let address = tcp_relay(async move |mut socket| {
        read_request(&mut socket).await;
        // The client may be gone before it has taken all of it.
        let _ = socket.write_all(answer).await;
        let _ = socket.shutdown().await;
        let _ = socket.read_to_end(&mut Vec::new()).await;
    })
    .await;
    let proxy = Proxy::from_url(&format!("http://{credentials}{address}")).unwrap();
    let dialer = Dialer::plain(NAME, 80).through(proxy);
    dialer.connect(&client_key()).await.unwrap_err()
}

#[tokio::test]
async fn what_a_proxy_answers_instead_of_a_tunnel_is_told_with_what_to_do() {
    let endless = [&b"HTTP/1.1 200 OK\r\nX: "[..], &[b'x'; 40_000]].concat().leak();
    for (credentials, answer, expected) in [
        (
            "",
            &b"HTTP/1.1 407 Proxy Authentication Required\r\nProxy-Authenticate: Basic\r\n\r\n<html>"[..],
            "it asks for credentials (status 407): put them into its URL",
        ),
        (
            "user:secret@",
            b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n",
            "it does not accept the credentials of its URL (status 407): check user and password",
        ),
        (
            "",
            b"HTTP/1.1 403 Forbidden\r\n\r\n",
            "it answered with status 403 instead of 200: its rules forbid this relay",
        ),
        (
            "",
            b"HTTP/1.0 405 Method Not Allowed\r\n\r\n",
            "it answered with status 405 instead of 200: it makes no tunnels (CONNECT)",
        ),
        (
            "",
            b"HTTP/1.1 503 Service Unavailable\r\n\r\n",
            "it answered with status 503 instead of 200: it cannot reach the relay",
        ),
        ("", b"HTTP/1.1 302 Found\r\nLocation: /\r\n\r\n", "it answered with status 302 instead of 200"),
        ("", b"HTTP/1.1 101 Switching Protocols\r\n\r\n", "it answered with status 101 instead of 200"),
        ("", b"HTTP/1.1 200 OK\r\n\r\nHTTP/1.1 101", "it sent bytes of its own into the tunnel"),
        ("", b"", "it closed the connection without an answer"),
        ("", b"HTTP/1.1 200 OK\r\n", "it closed the connection without an answer"),
        ("", b"SSH-2.0-OpenSSH_9.2\r\n\r\n", "what answers there is not an HTTP proxy"),
        ("", endless, "what answers there is not an HTTP proxy"),
    ] {
        let error = answered(credentials, answer).await;
        assert_eq!(error.step(), DialStep::Proxy, "{error}");
        assert!(error.to_string().starts_with("no tunnel through the proxy 127.0.0.1:"), "{error}");
        let told = error.source().expect("a cause").to_string();
        assert!(told.starts_with(expected), "{told}");
    }
}

#[tokio::test]
async fn a_header_that_never_ends_is_read_no_further_than_its_bound() {
    let (told, taken) = oneshot::channel();
    let address = tcp_relay(async move |mut socket| {
        read_request(&mut socket).await;
        let mut bytes = 0;
        write(&mut socket, b"HTTP/1.1 200 OK\r\n").await;
        while socket.write_all(&[b'x'; 1024]).await.is_ok() {
            bytes += 1024;
        }
        told.send(bytes).unwrap();
    })
    .await;
    let proxy = Proxy::from_url(&address.to_string()).unwrap();
    let error = Dialer::plain(NAME, 80).through(proxy).connect(&client_key()).await.unwrap_err();
    assert!(matches!(error, DialError::Proxy { source: ProxyFailure::NotHttp, .. }), "{error}");
    // The rest is what sockets of loopback hold.
    assert!(taken.await.unwrap() < 16 << 20);
}

#[tokio::test]
async fn a_success_is_any_status_from_200_to_299() {
    let relay = tcp_relay(async |mut socket| {
        log_in(&mut socket, &[]).await;
        echo(&mut socket).await;
    })
    .await;
    let address = tcp_relay(async move |mut socket| {
        read_request(&mut socket).await;
        let mut relay = TcpStream::connect(relay).await.unwrap();
        write(&mut socket, b"HTTP/1.0 299 \r\nContent-Length: 5\r\n\r\n").await;
        let _ = copy_bidirectional(&mut socket, &mut relay).await;
    })
    .await;
    let proxy = Proxy::from_url(&address.to_string()).unwrap();
    assert!(Dialer::plain(NAME, 80).through(proxy).connect(&client_key()).await.is_ok());
}

#[tokio::test]
async fn a_proxy_that_is_not_there_is_told_apart_from_the_relay() {
    // The socket is bound and does not listen, so that no other process can take the port.
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let absent = socket.local_addr().unwrap();
    let proxy = Proxy::from_url(&absent.to_string()).unwrap();
    let error = Dialer::plain(NAME, 80).through(proxy).connect(&client_key()).await.unwrap_err();
    assert!(
        matches!(&error, DialError::Proxy { source: ProxyFailure::Tcp { address, .. }, .. } if *address == absent),
        "{error:?}"
    );
}

/// Time stands still but for waiting, so the deadline comes at once.
#[tokio::test(start_paused = true)]
async fn the_deadline_of_dialling_bounds_a_proxy_that_is_silent_or_slow() {
    for drips in [false, true] {
        let address = tcp_relay(async move |mut socket: TcpStream| {
            let _ = socket.write_all(b"HTTP/1.1 200 OK\r\nX: ").await;
            while drips && socket.write_all(b"x").await.is_ok() {
                sleep(Duration::from_secs(1)).await;
            }
            let _ = socket.read_to_end(&mut Vec::new()).await;
        })
        .await;
        let proxy = Proxy::from_url(&address.to_string()).unwrap();
        let start = Instant::now();
        let error = Dialer::plain(NAME, 80).through(proxy).connect(&client_key()).await.unwrap_err();
        assert!(matches!(error, DialError::Timeout(DialStep::Proxy)), "{error}");
        assert_eq!(start.elapsed().as_secs(), CONNECT_TIMEOUT.as_secs());
    }
}

#[tokio::test]
async fn no_error_and_no_dialer_shows_the_credentials_of_a_proxy() {
    let error = answered("user:secret@", b"HTTP/1.1 407 No\r\n\r\n").await;
    let proxy = Proxy::from_url("http://user:secret@proxy.test:3128").unwrap();
    let dialer = Dialer::plain(NAME, 80).through(proxy);
    for shown in [format!("{error} {error:?}"), format!("{dialer:?}")] {
        assert!(!shown.contains("secret") && !shown.contains("dXNlcjpzZWNyZXQ="), "{shown}");
    }
}

/// In a process of its own, since the environment is that of all tests.
#[test]
fn the_environment_of_the_process_names_the_proxy() {
    const HOST: &str = "TOWPATH_TEST_HOST";
    if let Ok(host) = std::env::var(HOST) {
        let proxy = Proxy::from_environment(&host, 443);
        println!("proxy: {:?}", proxy.unwrap().map(|proxy| proxy.to_string()));
        return;
    }
    let printed = |host: &str| {
        let mut command = Command::new(std::env::current_exe().unwrap());
        for name in ["https_proxy", "all_proxy", "ALL_PROXY", "no_proxy"] {
            command.env_remove(name);
        }
        let output = command
            .args(["--exact", "proxy::the_environment_of_the_process_names_the_proxy", "--nocapture"])
            .envs([(HOST, host), ("HTTPS_PROXY", "http://u:p@proxy.test:3128"), ("NO_PROXY", ".internal")])
            .output()
            .unwrap();
        String::from_utf8(output.stdout).unwrap()
    };
    assert!(printed("relay.test").contains("proxy: Some(\"proxy.test:3128\")\n"));
    assert!(printed("relay.internal").contains("proxy: None\n"));
}
