//! The admin listener over real sockets.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use prometheus::{IntCounter, Registry};
use towpath_service::admin::{Admin, Readiness};

/// Bounds every read, so that a listener that does not answer fails the test instead of hanging it.
const PATIENCE: Duration = Duration::from_secs(20);

struct Answer {
    head: String,
    body: String,
}

impl Answer {
    fn status(&self) -> &str {
        self.head.split(' ').nth(1).unwrap()
    }

    fn has_header(&self, header: &str) -> bool {
        self.head.lines().any(|line| line.eq_ignore_ascii_case(header))
    }
}

fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
}

fn ask(address: SocketAddr, method: &str, path: &str) -> Answer {
    let mut stream = connect(address);
    write!(stream, "{method} {path} HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    Answer { head: head.into(), body: body.into() }
}

fn start(registry: Registry, readiness: Readiness) -> Admin {
    Admin::start(
        TcpListener::bind("127.0.0.1:0").unwrap(),
        registry,
        readiness,
        vec!["metrics.example".into()],
    )
    .unwrap()
}

#[test]
fn health_is_ok_and_readiness_follows_its_handle() {
    let readiness = Readiness::new();
    let admin = start(Registry::new(), readiness.clone());
    let address = admin.local_addr();
    let ready = || {
        let answer = ask(address, "GET", "/readyz");
        (answer.status().to_owned(), answer.body)
    };
    assert_eq!(ready(), ("503".into(), "starting\n".into()));
    readiness.ready();
    assert_eq!(ready(), ("200".into(), "ready\n".into()));
    readiness.draining();
    assert_eq!(ready(), ("503".into(), "draining\n".into()));

    let health = ask(address, "GET", "/healthz");
    assert_eq!((health.status(), &*health.body), ("200", "ok\n"));
    assert!(health.has_header("content-type: text/plain; charset=utf-8"), "{}", health.head);
}

#[test]
fn metrics_are_prometheus_text() {
    let registry = Registry::new();
    let packets = IntCounter::new("packets_total", "Packets.").unwrap();
    registry.register(Box::new(packets.clone())).unwrap();
    let admin = start(registry, Readiness::new());
    packets.inc_by(7);
    let answer = ask(admin.local_addr(), "GET", "/metrics?name=packets_total");
    assert_eq!(answer.status(), "200");
    assert!(answer.has_header("content-type: text/plain; version=0.0.4; charset=utf-8"), "{}", answer.head);
    assert_eq!(answer.body, "# HELP packets_total Packets.\n# TYPE packets_total counter\npackets_total 7\n");
}

#[test]
fn everything_else_is_refused() {
    let admin = start(Registry::new(), Readiness::new());
    for path in ["/", "/metrics/", "/debug", "/healthz/x"] {
        assert_eq!(ask(admin.local_addr(), "GET", path).status(), "404", "{path}");
    }
    for method in ["POST", "PUT", "DELETE"] {
        let answer = ask(admin.local_addr(), method, "/healthz");
        assert_eq!(answer.status(), "405", "{method}");
        assert!(answer.has_header("allow: GET, HEAD, OPTIONS"), "{}", answer.head);
    }
    let head = ask(admin.local_addr(), "HEAD", "/healthz");
    assert_eq!((head.status(), &*head.body), ("200", ""));
    assert!(head.has_header("content-length: 3"), "{}", head.head);
}

/// HAProxy checks by OPTIONS, unless told otherwise, also when it is told a path.
#[test]
fn options_is_answered_with_the_methods_and_does_not_hide_that_a_relay_is_not_ready() {
    let readiness = Readiness::new();
    let admin = start(Registry::new(), readiness.clone());
    let expect = |path, status, body| {
        let answer = ask(admin.local_addr(), "OPTIONS", path);
        assert_eq!((answer.status(), &*answer.body), (status, body), "{path}");
        assert!(answer.has_header("allow: GET, HEAD, OPTIONS"), "{}", answer.head);
    };
    expect("/readyz", "503", "starting\n");
    readiness.ready();
    for path in ["/", "*", "/readyz", "/healthz", "/metrics", "/nowhere"] {
        expect(path, "204", "");
    }
    readiness.draining();
    expect("/readyz", "503", "draining\n");
    expect("/healthz", "204", "");
    assert_eq!(status_of(admin.local_addr(), "OPTIONS / HTTP/1.0"), "204", "as HAProxy asks");
    assert_eq!(status_of(admin.local_addr(), "OPTIONS / HTTP/1.1\r\nHost: evil.example"), "421");
}

/// Sends this head and returns the status of the answer.
fn status_of(address: SocketAddr, head: &str) -> String {
    let mut stream = connect(address);
    write!(stream, "{head}\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer.split(' ').nth(1).unwrap().into()
}

#[test]
fn a_page_whose_name_is_made_to_resolve_here_reads_nothing() {
    let admin = start(Registry::new(), Readiness::new());
    let status =
        |host: &str| status_of(admin.local_addr(), &format!("GET /metrics HTTP/1.1\r\nHost: {host}"));
    for host in [
        "localhost",
        "LocalHost.:9090",
        "127.0.0.1:9090",
        "127.0.0.1",
        "[::1]:9090",
        "10.1.2.3:9090",
        "metrics.example",
        "METRICS.example:80",
    ] {
        assert_eq!(status(host), "200", "{host}");
    }
    for host in
        ["attacker.example:9090", "localhost.attacker.example", "127.0.0.1.attacker.example", "", "a b"]
    {
        assert_eq!(status(host), "421", "{host}");
    }
    for (head, expected) in [
        ("GET /metrics HTTP/1.0", "200"),
        ("GET /metrics HTTP/1.1", "421"),
        ("GET /metrics HTTP/1.1\r\nHost: localhost\r\nHost: attacker.example", "421"),
        ("GET http://attacker.example/metrics HTTP/1.1\r\nHost: localhost", "421"),
        ("GET /healthz HTTP/1.1\r\nHost: attacker.example", "421"),
    ] {
        assert_eq!(status_of(admin.local_addr(), head), expected, "{head}");
    }
}

#[test]
fn a_page_of_another_site_is_refused() {
    let admin = start(Registry::new(), Readiness::new());
    for (origin, expected) in [
        ("http://localhost:9090", "200"),
        ("https://localhost:9090", "200"),
        ("http://localhost:8080", "403"),
        ("http://attacker.example", "403"),
        ("null", "403"),
    ] {
        let head = format!("GET /metrics HTTP/1.1\r\nHost: localhost:9090\r\nOrigin: {origin}");
        assert_eq!(status_of(admin.local_addr(), &head), expected, "{origin}");
    }
}

/// Whether the listener closes the connection without an answer.
fn is_closed(mut stream: impl Read) -> bool {
    match stream.read(&mut [0; 64]) {
        Ok(read) => read == 0,
        Err(error) => error.kind() == ErrorKind::ConnectionReset,
    }
}

#[test]
fn a_probe_does_not_wait_for_clients_that_send_nothing() {
    /// After this a connection that sends nothing is closed in any case.
    const HEAD_DEADLINE: Duration = Duration::from_secs(1);
    let admin = start(Registry::new(), Readiness::new());
    // On a machine that is busy for a second, an attempt proves nothing.
    let proves = || {
        let begun = Instant::now();
        // More than are served at a time. The oldest lose their places.
        let silent: Vec<_> = (0..40).map(|_| connect(admin.local_addr())).collect();
        assert_eq!(ask(admin.local_addr(), "GET", "/healthz").status(), "200");
        assert!(is_closed(&silent[0]), "the oldest is closed");
        begun.elapsed() < HEAD_DEADLINE
    };
    assert!((0..10).any(|_| proves()), "the oldest are closed at their deadline only");
}

#[test]
fn it_answers_while_the_rest_of_the_process_is_busy() {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let admin = start(Registry::new(), Readiness::new());
    let address = admin.local_addr();
    // The caller's runtime is stuck for as long as the answer takes.
    runtime.block_on(async { assert_eq!(ask(address, "GET", "/healthz").status(), "200") });
}

#[test]
fn it_stops_when_dropped() {
    let admin = start(Registry::new(), Readiness::new());
    let address = admin.local_addr();
    let idle = connect(address);
    drop(admin);
    assert!(TcpStream::connect(address).is_err(), "the listener is closed");
    drop(idle);
    let again = thread::spawn(move || TcpListener::bind(address).map(drop));
    again.join().unwrap().unwrap();
}
