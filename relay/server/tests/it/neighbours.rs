//! Connections in a protocol that their listener does not speak: each is told so, counted and closed.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;

use rustls::{AlertDescription, ClientConnection, Error};

use crate::common::{PATIENCE, Relay, trusting_anyone};

const LISTENERS: &str = "http.listen = '127.0.0.1:0'\nhttp.redirect_listen = '127.0.0.1:0'";

/// Sends `bytes` and returns all that the relay answers. A reset would be an error.
fn exchange(address: SocketAddr, bytes: &[u8]) -> Vec<u8> {
    let mut stream = TcpStream::connect(address).expect("the relay accepts");
    stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    stream.write_all(bytes).expect("the kernel takes the bytes");
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).expect("an answer and an end");
    answer
}

fn expect_refused(relay: &Relay, reason: &str, times: u64) {
    let metric = format!("towpath_refused_total{{reason=\"{reason}\"}}");
    relay.wait(reason, |relay| relay.metric(&metric) == times);
}

/// A client, and its first flight.
fn hello() -> (ClientConnection, Vec<u8>) {
    let name = "localhost".try_into().expect("a name");
    let mut client = ClientConnection::new(Arc::new(trusting_anyone()), name).expect("a client");
    let mut flight = Vec::new();
    client.write_tls(&mut flight).expect("bytes");
    (client, flight)
}

/// What TLS makes of an answer.
fn reported(client: &mut ClientConnection, answer: &[u8]) -> Error {
    client.read_tls(&mut &answer[..]).expect("bytes");
    client.process_new_packets().expect_err("no handshake")
}

#[test]
fn http_on_the_listener_for_tls_is_told_so() {
    let relay = Relay::start("");
    let long = [&b"POST /derp HTTP/1.1\r\nHost: x\r\n\r\n"[..], &[b'x'; 200_000]].concat();
    let requests =
        [&b"GET /derp/probe HTTP/1.1\r\nHost: x\r\n\r\n"[..], b"OPTIONS / HTTP/1.0\r\n\r\n", &long];
    for (times, request) in (1..).zip(requests) {
        let answer = String::from_utf8(exchange(relay.tls(), request)).expect("text");
        assert!(answer.starts_with("HTTP/1.1 400 Bad Request\r\n"), "{answer}");
        assert!(answer.ends_with("\r\n\r\nClient sent an HTTP request to an HTTPS server.\n"), "{answer}");
        expect_refused(&relay, "http_on_tls", times);
    }
    assert_eq!(relay.metric("towpath_refused_total"), requests.len() as u64);
}

#[test]
fn tls_on_a_listener_without_it_is_told_so() {
    let relay = Relay::start(LISTENERS);
    for (times, address) in (1..).zip([relay.addresses.http, relay.addresses.redirect]) {
        let (mut client, flight) = hello();
        let answer = exchange(address.expect("a listener"), &flight);
        assert!(answer.starts_with(b"HTTP/1.1 400 Bad Request\r\n"));
        let told = reported(&mut client, &answer);
        assert!(matches!(told, Error::InvalidMessage(_)), "no TLS: {told}");
        expect_refused(&relay, "tls_on_plain", times);
    }
}

#[test]
fn what_is_behind_a_header_of_the_proxy_protocol_is_told_so() {
    let relay = Relay::start(LISTENERS);
    let text = &b"PROXY TCP4 192.0.2.1 192.0.2.2 40000 443\r\n"[..];
    let binary = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\xc0\0\x02\x01\xc0\0\x02\x02\x9c\x40\x01\xbb";
    let mut times = 0;
    for header in [text, binary] {
        let (mut client, flight) = hello();
        let answer = exchange(relay.tls(), &[header, &flight].concat());
        let told = reported(&mut client, &answer);
        assert_eq!(told, Error::AlertReceived(AlertDescription::UnexpectedMessage));
        for address in [relay.addresses.http, relay.addresses.redirect] {
            let request = [header, b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"].concat();
            let answer = exchange(address.expect("a listener"), &request);
            let answer = String::from_utf8(answer).expect("text");
            assert!(answer.starts_with("HTTP/1.1 400 Bad Request\r\n"), "{answer}");
            assert!(answer.contains("PROXY protocol"), "{answer}");
        }
        times += 3;
        expect_refused(&relay, "proxy_header", times);
    }
}

#[test]
fn http2_without_a_question_is_told_to_use_http_1_1() {
    let relay = Relay::start(LISTENERS);
    let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
    let addresses = [Some(relay.tls()), relay.addresses.http, relay.addresses.redirect];
    for (times, address) in (1..).zip(addresses) {
        let answer = exchange(address.expect("a listener"), preface);
        // SETTINGS, then GOAWAY with HTTP_1_1_REQUIRED.
        assert_eq!(answer[..9], [0, 0, 0, 4, 0, 0, 0, 0, 0]);
        assert_eq!((answer[12], &answer[22..26]), (7, &[0, 0, 0, 13][..]));
        assert!(answer.ends_with(b"this relay speaks HTTP/1.1"));
        expect_refused(&relay, "http2", times);
    }
}
