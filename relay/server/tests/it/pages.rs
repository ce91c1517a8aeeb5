//! Pages of the listeners without TLS, asked for as hostile programs ask: what comes from a request is answered with only if it
//! is harmless.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};

use crate::common::{PATIENCE, Relay};

const LISTENERS: &str =
    "hostname = 'relay.example.com'\nhttp.listen = '127.0.0.1:0'\nhttp.redirect_listen = '127.0.0.1:0'";

/// The listeners without TLS.
fn listeners(relay: &Relay) -> [SocketAddr; 2] {
    [relay.addresses.http, relay.addresses.redirect].map(|listener| listener.expect("a listener"))
}

/// Sends the lines of a request, and returns the head and the body of the answer.
fn ask(listener: SocketAddr, lines: &[&str]) -> (String, String) {
    let mut stream = TcpStream::connect(listener).expect("the relay accepts");
    stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    let request = format!("{}\r\nConnection: close\r\n\r\n", lines.join("\r\n"));
    stream.write_all(request.as_bytes()).expect("the relay takes the bytes");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer and an end");
    let (head, body) = answer.split_once("\r\n\r\n").expect("a head");
    (head.into(), body.into())
}

/// The value of a field in the head of an answer.
fn field<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    head.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
}

#[test]
fn a_captive_portal_challenge_is_echoed_if_it_is_short_and_harmless() {
    let relay = Relay::start(LISTENERS);
    let (longest, too_long) = ("a".repeat(64), "a".repeat(65));
    for (challenge, is_echoed) in [
        ("ts_derp.example.com", true),
        ("azAZ09._:-", true),
        (&longest, true),
        (&too_long, false),
        ("", false),
        ("ts derp", false),
        ("ts/derp", false),
        ("<script>", false),
        ("caf\u{e9}", false),
    ] {
        for listener in listeners(&relay) {
            let asked = format!("X-Tailscale-Challenge: {challenge}");
            let (head, _) = ask(listener, &["GET /generate_204 HTTP/1.1", "Host: x", &asked]);
            assert!(head.starts_with("HTTP/1.1 204 "), "{head}");
            let expected = is_echoed.then(|| format!("response {challenge}"));
            assert_eq!(field(&head, "x-tailscale-response"), expected.as_deref(), "{challenge}");
        }
    }
}

#[test]
fn a_request_of_http_1_1_without_a_host_is_refused() {
    let relay = Relay::start(LISTENERS);
    for listener in listeners(&relay) {
        let (head, body) = ask(listener, &["GET /generate_204 HTTP/1.1"]);
        assert!(head.starts_with("HTTP/1.1 400 "), "{head}");
        assert_eq!(body, "missing required Host header\n");
        let (head, _) = ask(listener, &["GET /generate_204 HTTP/1.0"]);
        assert!(head.starts_with("HTTP/1.0 204 "), "{head}");
    }
}

#[test]
fn a_redirect_leads_to_a_page_of_this_relay() {
    let relay = Relay::start(LISTENERS);
    let [_, listener] = listeners(&relay);
    let here = format!("https://relay.example.com:{}", relay.tls().port());
    for (line, target) in [
        ("GET /a?b=c HTTP/1.1", "/a?b=c"),
        ("HEAD / HTTP/1.1", "/"),
        ("GET http://elsewhere.example.com/a HTTP/1.1", "/a"),
        ("GET //elsewhere.example.com/ HTTP/1.1", "//elsewhere.example.com/"),
    ] {
        let (head, _) = ask(listener, &[line, "Host: elsewhere.example.com"]);
        assert!(head.starts_with("HTTP/1.1 302 "), "{line}: {head}");
        assert_eq!(field(&head, "location"), Some(&*format!("{here}{target}")), "{line}");
    }
    // With a target that is no path the name of the relay would go on.
    for line in ["GET * HTTP/1.1", "POST /a HTTP/1.1"] {
        let (head, body) = ask(listener, &[line, "Host: x"]);
        assert!(head.starts_with("HTTP/1.1 400 "), "{line}: {head}");
        assert_eq!((field(&head, "location"), &*body), (None, "Use HTTPS\n"), "{line}");
    }
}
