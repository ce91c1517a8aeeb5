//! The admin listener over real sockets.

use std::io::{Read, Write};
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
    write!(stream, "{method} {path} HTTP/1.1\r\nHost: admin\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    Answer { head: head.into(), body: body.into() }
}

fn start(registry: Registry, readiness: Readiness) -> Admin {
    Admin::start(TcpListener::bind("127.0.0.1:0").unwrap(), registry, readiness).unwrap()
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
    for method in ["POST", "PUT", "DELETE", "OPTIONS"] {
        let answer = ask(admin.local_addr(), method, "/healthz");
        assert_eq!(answer.status(), "405", "{method}");
        assert!(answer.has_header("allow: GET, HEAD"), "{}", answer.head);
    }
    let head = ask(admin.local_addr(), "HEAD", "/healthz");
    assert_eq!((head.status(), &*head.body), ("200", ""));
    assert!(head.has_header("content-length: 3"), "{}", head.head);
}

#[test]
fn clients_that_send_nothing_are_closed_and_then_others_are_served() {
    let admin = start(Registry::new(), Readiness::new());
    // More than are served at a time, so that only their end makes room.
    let silent: Vec<_> = (0..40)
        .map(|_| {
            let mut stream = connect(admin.local_addr());
            stream.write_all(b"GET /healthz HTTP/1.1\r\n").unwrap();
            stream
        })
        .collect();
    let start = Instant::now();
    let mut first = &silent[0];
    assert_eq!(first.read(&mut [0; 64]).unwrap(), 0, "closed without an answer");
    assert!(start.elapsed() < PATIENCE);
    drop(silent);
    assert_eq!(ask(admin.local_addr(), "GET", "/healthz").status(), "200");
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
