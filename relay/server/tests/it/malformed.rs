//! Damaged logins and frames through a real socket: each is closed and counted, and the relay goes on.

use std::sync::Arc;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use towpath_wire::derp::frame::{FrameType, frame};
use towpath_wire::key::NodePrivate;
use towpath_wire::sealed::SharedKey;

use crate::common::login::{Stream, client_info, secured, upgraded};
use crate::common::sweep::expect_service;
use crate::common::{PATIENCE, Relay, trusting_anyone};

/// Sends `bytes` and waits for the relay to close, with or without an alert.
async fn expect_close(mut stream: Stream, bytes: &[u8], what: &str) {
    stream.write_all(bytes).await.expect("the relay takes the bytes");
    stream.flush().await.expect("the relay takes the bytes");
    let closed = async { while matches!(stream.read(&mut [0; 1024]).await, Ok(read) if read > 0) {} };
    timeout(PATIENCE, closed).await.unwrap_or_else(|_| panic!("not closed: {what}"));
}

#[tokio::test]
async fn every_changed_byte_of_a_login_is_refused_and_counted() {
    let relay = Relay::start("");
    let config = Arc::new(trusting_anyone());
    let (_, key) = upgraded(relay.tls(), &config).await;
    let golden = client_info(&key);
    for at in 0..golden.len() {
        let (stream, _) = upgraded(relay.tls(), &config).await;
        let mut frame = golden.clone();
        // The top bit: a length with it is out of bounds at once, and not waited for.
        frame[at] ^= 0x80;
        // A length that is a little too long is waited for, until the login's deadline.
        if (1..4).contains(&at) || at == 4 {
            frame[1] = 0x80;
        }
        expect_close(stream, &frame, &format!("byte {at}")).await;
    }
    relay.wait("every refusal is counted", |relay| {
        let count = |reason| relay.metric(&format!("towpath_refused_total{{reason=\"{reason}\"}}"));
        count("bad_frame") + count("bad_key") == golden.len() as u64
    });
    expect_service(&relay).await;
}

#[tokio::test]
async fn an_app_name_that_is_too_long_or_cannot_be_printed_is_refused_and_counted() {
    let relay = Relay::start("");
    let config = Arc::new(trusting_anyone());
    let private = NodePrivate::from_random([0x61; 32]);
    for (refused, name) in ["x".repeat(33).as_str(), "a\\nb", "\u{e9}"].into_iter().enumerate() {
        let (stream, key) = upgraded(relay.tls(), &config).await;
        let json = format!(r#"{{"version":2,"AppName":"{name}"}}"#);
        let sealed = SharedKey::new(&private, &key).seal(&[4; 24], json.as_bytes());
        let mut login = Vec::new();
        frame(&mut login, FrameType::ClientInfo, &[private.public().as_bytes(), &[4; 24], &sealed]);
        expect_close(stream, &login, name).await;
        relay.wait("it is counted", |relay| {
            relay.metric("towpath_refused_total{reason=\"bad_app_name\"}") == refused as u64 + 1
        });
    }
    expect_service(&relay).await;
}

#[tokio::test]
async fn a_dripping_login_is_closed_at_its_deadline() {
    let relay = Relay::start("login.login_timeout = \"1s\"");
    let config = Arc::new(trusting_anyone());
    let (mut stream, key) = upgraded(relay.tls(), &config).await;
    let frame = client_info(&key);
    let dripping = async {
        for byte in frame {
            if stream.write_all(&[byte]).await.and(stream.flush().await).is_err() {
                return;
            }
            tokio::time::sleep(std::time::Duration::from_millis(200)).await;
        }
    };
    timeout(PATIENCE, dripping).await.expect("closed in the middle");
    relay.wait("it is counted", |relay| relay.metric("towpath_refused_total{reason=\"login_timeout\"}") == 1);
}

#[tokio::test]
async fn a_connection_that_says_nothing_is_closed_before_tls_and_before_http() {
    let relay = Relay::start(
        "login.first_byte_timeout = \"1s\"\nlogin.handshake_timeout = \"1s\"\nlogin.idle_http_timeout = \"1s\"",
    );
    let refused =
        |relay: &Relay, reason| relay.metric(&format!("towpath_refused_total{{reason=\"{reason}\"}}"));
    let mut socket = TcpStream::connect(relay.tls()).await.expect("the relay accepts");
    let closed = timeout(PATIENCE, socket.read(&mut [0])).await.expect("closed");
    assert!(matches!(closed, Ok(0) | Err(_)), "{closed:?}");
    relay.wait("it is counted", |relay| refused(relay, "first_byte_timeout") == 1);
    let mut socket = TcpStream::connect(relay.tls()).await.expect("the relay accepts");
    socket.write_all(&[22]).await.expect("the relay takes the byte");
    let closed = timeout(PATIENCE, socket.read(&mut [0])).await.expect("closed");
    assert!(matches!(closed, Ok(0) | Err(_)), "{closed:?}");
    relay.wait("it is counted", |relay| refused(relay, "handshake_timeout") == 1);
    let config = Arc::new(trusting_anyone());
    expect_close(secured(relay.tls(), &config).await, b"", "no request").await;
    expect_close(secured(relay.tls(), &config).await, b"GET /derp HT", "half a request").await;
    // One request is no licence to stay.
    let probe = b"GET /derp/probe HTTP/1.1\r\nHost: x\r\n\r\n";
    expect_close(secured(relay.tls(), &config).await, probe, "no second request").await;
    relay.wait("they are counted", |relay| refused(relay, "http_timeout") == 3);
}

#[tokio::test]
async fn frames_that_break_their_layout_close_the_connection_with_their_reason() {
    let relay = Relay::start("");
    let config = Arc::new(trusting_anyone());
    let long = [&[4][..], &(32u32 + 65_537).to_be_bytes(), &[0; 100]].concat();
    let cases: [(&str, &[u8], &str); 12] = [
        ("SendPacket without a key", &[4, 0, 0, 0, 31], "bad_frame"),
        ("SendPacket too long", &long, "bad_frame"),
        ("NotePreferred of no byte", &[7, 0, 0, 0, 0], "bad_frame"),
        ("NotePreferred of two", &[7, 0, 0, 0, 2, 1, 1], "bad_frame"),
        ("Ping of seven", &[0x12, 0, 0, 0, 7, 1, 2, 3, 4, 5, 6, 7], "bad_frame"),
        ("Ping of 1001", &[0x12, 0, 0, 3, 0xe9], "bad_frame"),
        ("an unknown frame of 64 KiB and 33 bytes", &[0x7f, 0, 1, 0, 0x21], "unknown_frame"),
        ("a Pong as long", &[0x13, 0, 1, 0, 0x21], "unknown_frame"),
        ("ForwardPacket", &[&[0x0a, 0, 0, 0, 64][..], &[1; 64]].concat(), "not_permitted"),
        ("WatchConns", &[0x10, 0, 0, 0, 0], "not_permitted"),
        ("WatchConns with a byte", &[0x10, 0, 0, 0, 1, 0], "bad_frame"),
        ("ClosePeer", &[&[0x11, 0, 0, 0, 32][..], &[1; 32]].concat(), "not_permitted"),
    ];
    for (what, bytes, reason) in cases {
        let name = format!("towpath_closed_total{{reason=\"{reason}\"}}");
        let before = relay.metric(&name);
        let (stream, key) = upgraded(relay.tls(), &config).await;
        expect_close(stream, &[&client_info(&key), bytes].concat(), what).await;
        relay.wait(what, |relay| relay.metric(&name) == before + 1);
    }
    expect_service(&relay).await;
}

/// Also those that come in one write with the login, which the data plane never reads from a socket.
#[tokio::test]
async fn frames_of_unknown_types_are_counted_from_the_first_byte_on() {
    let relay = Relay::start("");
    let config = Arc::new(trusting_anyone());
    let (mut stream, key) = upgraded(relay.tls(), &config).await;
    let longest = [&[0x80, 0, 1, 0, 0x20][..], &[7; 65_568]].concat();
    let unknown = [&[0x7f, 0, 0, 0, 3][..], b"new", &longest, &[0x13, 0, 0, 0, 1, 9]].concat();
    stream.write_all(&[&client_info(&key)[..], &unknown].concat()).await.expect("the relay takes the bytes");
    stream.flush().await.expect("the relay takes the bytes");
    relay.wait("those behind the login are counted", |relay| relay.metric("derp_unknown_frames") == 3);
    // Before one that closes the connection, too.
    stream.write_all(&[&unknown[..], &[7, 0, 0, 0, 0]].concat()).await.expect("the relay takes the bytes");
    stream.flush().await.expect("the relay takes the bytes");
    relay.wait("those before the last are counted", |relay| {
        relay.metric("derp_unknown_frames") == 6
            && relay.metric("towpath_closed_total{reason=\"bad_frame\"}") == 1
    });
}

#[tokio::test]
async fn what_is_not_tls_or_not_http_is_refused_and_counted() {
    let relay = Relay::start("");
    let mut socket = TcpStream::connect(relay.tls()).await.expect("the relay accepts");
    socket.write_all(b"no TLS\r\n").await.expect("the relay takes the bytes");
    let mut answer = Vec::new();
    timeout(PATIENCE, socket.read_to_end(&mut answer)).await.expect("closed").expect("closed");
    assert_eq!(answer.first(), Some(&21), "an alert");
    relay.wait("it is counted", |relay| relay.metric("towpath_refused_total{reason=\"handshake\"}") == 1);

    let stream = secured(relay.tls(), &Arc::new(trusting_anyone())).await;
    expect_close(stream, b"\x00\x01\x02 this is no request\r\n\r\n", "no HTTP").await;
    relay.wait("it is counted", |relay| relay.metric("towpath_refused_total{reason=\"http\"}") == 1);
}

#[tokio::test]
async fn a_request_with_a_head_of_more_than_16_kib_is_refused() {
    let relay = Relay::start("");
    let config = Arc::new(trusting_anyone());
    let request = |head: usize| format!("GET /derp/probe HTTP/1.1\r\nHost: x\r\nX: {:head$}\r\n\r\n", "");
    for (head, status) in [(15 << 10, "HTTP/1.1 200 "), (17 << 10, "HTTP/1.1 431 ")] {
        let mut stream = secured(relay.tls(), &config).await;
        stream.write_all(request(head).as_bytes()).await.expect("the relay takes the bytes");
        stream.flush().await.expect("the relay takes the bytes");
        let mut answer = [0; 13];
        timeout(PATIENCE, stream.read_exact(&mut answer)).await.expect("an answer").expect("an answer");
        assert_eq!(std::str::from_utf8(&answer), Ok(status));
    }
    relay.wait("it is counted", |relay| relay.metric("towpath_refused_total{reason=\"http\"}") == 1);
}
