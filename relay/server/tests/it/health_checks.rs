//! Health checks of load balancers, as they come out of the box.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;

use rustls::{ClientConnection, StreamOwned};

use crate::common::{PATIENCE, Relay, trusting_anyone};

fn ask(mut stream: impl Read + Write, request: &str) -> String {
    stream.write_all(request.as_bytes()).expect("the relay takes the bytes");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer and an end");
    answer
}

fn expect_methods(answer: &str, what: &str) {
    assert!(answer.starts_with("HTTP/1.0 204 ") || answer.starts_with("HTTP/1.1 204 "), "{what}: {answer}");
    assert!(answer.to_ascii_lowercase().contains("\r\nallow: get, head, options\r\n"), "{what}: {answer}");
}

/// `option httpchk` of HAProxy asks so, without `Host`.
#[test]
fn options_is_answered_on_every_path_of_every_listener() {
    let relay = Relay::start("http.listen = '127.0.0.1:0'\nhttp.redirect_listen = '127.0.0.1:0'");
    let addresses = &relay.addresses;
    let config = Arc::new(trusting_anyone());
    for path in
        ["/", "*", "/derp", "/derp/probe", "/generate_204", "/bootstrap-dns", "/robots.txt", "/nowhere"]
    {
        let request = format!("OPTIONS {path} HTTP/1.0\r\n\r\n");
        for listener in [addresses.http, addresses.redirect, addresses.admin] {
            let stream = TcpStream::connect(listener.expect("a listener")).expect("the relay accepts");
            stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
            expect_methods(&ask(stream, &request), &format!("{path} of {listener:?}"));
        }
        let stream = TcpStream::connect(addresses.tls.expect("TLS is on")).expect("the relay accepts");
        stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        let tls = ClientConnection::new(config.clone(), "localhost".try_into().expect("a name"));
        let stream = StreamOwned::new(tls.expect("a client"), stream);
        expect_methods(&ask(stream, &request), path);
    }
}

#[test]
fn a_method_that_a_page_does_not_have_is_refused_with_those_that_it_has() {
    let relay = Relay::start("http.listen = '127.0.0.1:0'");
    for path in ["/", "/derp/probe"] {
        let stream =
            TcpStream::connect(relay.addresses.http.expect("a listener")).expect("the relay accepts");
        let answer = ask(stream, &format!("POST {path} HTTP/1.0\r\n\r\n"));
        assert!(answer.starts_with("HTTP/1.0 405 "), "{path}: {answer}");
        assert!(answer.contains("\r\nallow: GET, HEAD, OPTIONS\r\n"), "{path}: {answer}");
    }
}

/// The method of an upgrade is not looked at, so that a client with an odd one is served.
#[test]
fn an_upgrade_by_options_is_an_upgrade_where_derp_is_spoken() {
    let relay = Relay::start("http.listen = '127.0.0.1:0'\nhttp.redirect_listen = '127.0.0.1:0'");
    for (listener, expected) in
        [(relay.addresses.http, "HTTP/1.1 101 "), (relay.addresses.redirect, "HTTP/1.1 204 ")]
    {
        let mut stream = TcpStream::connect(listener.expect("a listener")).expect("the relay accepts");
        stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        stream
            .write_all(b"OPTIONS /derp HTTP/1.1\r\nHost: x\r\nUpgrade: DERP\r\n\r\n")
            .expect("the relay takes the bytes");
        let mut answer = vec![0; expected.len()];
        stream.read_exact(&mut answer).expect("an answer");
        assert_eq!(String::from_utf8_lossy(&answer), expected);
    }
}
