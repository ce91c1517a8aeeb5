//! The admin listener over real sockets.

use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::unix::net::UnixStream;
use std::pin::Pin;
use std::sync::{Arc, Mutex, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use prometheus::{IntCounter, Registry};
use towpath_service::admin::{
    Admin, AdminListeners, AdminSocket, Call, OperationAnswer, Operations, Parts, Readiness,
};

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
    let listeners = AdminListeners {
        tcp: Some(TcpListener::bind("127.0.0.1:0").unwrap()),
        hosts: vec!["metrics.example".into()],
        ..AdminListeners::default()
    };
    Admin::start(listeners, registry, readiness, None).unwrap()
}

fn address_of(admin: &Admin) -> SocketAddr {
    admin.local_addr().expect("a TCP listener")
}

#[test]
fn health_is_ok_and_readiness_follows_its_handle() {
    let readiness = Readiness::new();
    let admin = start(Registry::new(), readiness.clone());
    let address = address_of(&admin);
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
    let answer = ask(address_of(&admin), "GET", "/metrics?name=packets_total");
    assert_eq!(answer.status(), "200");
    assert!(answer.has_header("content-type: text/plain; version=0.0.4; charset=utf-8"), "{}", answer.head);
    let expected = "# HELP packets_total Packets.\n# TYPE packets_total counter\npackets_total 7\n";
    assert!(answer.body.starts_with(expected), "{}", answer.body);
}

#[test]
fn everything_else_is_refused() {
    let admin = start(Registry::new(), Readiness::new());
    for path in ["/", "/metrics/", "/debug", "/healthz/x"] {
        assert_eq!(ask(address_of(&admin), "GET", path).status(), "404", "{path}");
    }
    for method in ["POST", "PUT", "DELETE"] {
        let answer = ask(address_of(&admin), method, "/healthz");
        assert_eq!(answer.status(), "405", "{method}");
        assert!(answer.has_header("allow: GET, HEAD, OPTIONS"), "{}", answer.head);
    }
    let head = ask(address_of(&admin), "HEAD", "/healthz");
    assert_eq!((head.status(), &*head.body), ("200", ""));
    assert!(head.has_header("content-length: 3"), "{}", head.head);
}

/// HAProxy checks by OPTIONS, unless told otherwise, also when it is told a path.
#[test]
fn options_is_answered_with_the_methods_and_does_not_hide_that_a_relay_is_not_ready() {
    let readiness = Readiness::new();
    let admin = start(Registry::new(), readiness.clone());
    let expect = |path, status, body| {
        let answer = ask(address_of(&admin), "OPTIONS", path);
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
    assert_eq!(status_of(address_of(&admin), "OPTIONS / HTTP/1.0"), "204", "as HAProxy asks");
    assert_eq!(status_of(address_of(&admin), "OPTIONS / HTTP/1.1\r\nHost: evil.example"), "421");
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
        |host: &str| status_of(address_of(&admin), &format!("GET /metrics HTTP/1.1\r\nHost: {host}"));
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
        assert_eq!(status_of(address_of(&admin), head), expected, "{head}");
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
        assert_eq!(status_of(address_of(&admin), &head), expected, "{origin}");
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
        let silent: Vec<_> = (0..40).map(|_| connect(address_of(&admin))).collect();
        assert_eq!(ask(address_of(&admin), "GET", "/healthz").status(), "200");
        assert!(is_closed(&silent[0]), "the oldest is closed");
        begun.elapsed() < HEAD_DEADLINE
    };
    assert!((0..10).any(|_| proves()), "the oldest are closed at their deadline only");
}

#[test]
fn it_answers_while_the_rest_of_the_process_is_busy() {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let admin = start(Registry::new(), Readiness::new());
    let address = address_of(&admin);
    // The caller's runtime is stuck for as long as the answer takes.
    runtime.block_on(async { assert_eq!(ask(address, "GET", "/healthz").status(), "200") });
}

#[test]
fn it_stops_when_dropped() {
    let admin = start(Registry::new(), Readiness::new());
    let address = address_of(&admin);
    let idle = connect(address);
    drop(admin);
    assert!(TcpStream::connect(address).is_err(), "the listener is closed");
    drop(idle);
    let again = thread::spawn(move || TcpListener::bind(address).map(drop));
    again.join().unwrap().unwrap();
}

/// An address of this machine that is not loopback.
fn own_address() -> IpAddr {
    // Connecting sends nothing. It asks the kernel which address it would send from.
    let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
    socket.connect("192.0.2.1:9").expect("a network: without a route there is no address but loopback");
    socket.local_addr().unwrap().ip()
}

#[test]
fn an_address_that_is_not_named_is_turned_away_unread_and_counted() {
    // A process of this machine that connects to another of its addresses comes from a third, as a stranger does.
    let start = |clients: &str| {
        let listeners = AdminListeners {
            tcp: Some(TcpListener::bind("0.0.0.0:0").unwrap()),
            clients: vec![clients.parse().unwrap()],
            ..AdminListeners::default()
        };
        Admin::start(listeners, Registry::new(), Readiness::new(), None).unwrap()
    };
    let own = own_address();
    let from_own = |to: SocketAddr| {
        let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
        socket.bind(&SocketAddr::new(own, 0).into()).unwrap();
        socket.connect(&to.into()).unwrap();
        let stream = TcpStream::from(socket);
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream
    };
    let admin = start("198.51.100.0/24");
    let port = address_of(&admin).port();
    // Loopback is asked from the other address of this machine.
    assert!(is_closed(from_own(SocketAddr::new(Ipv4Addr::LOCALHOST.into(), port))), "not named");
    let count = |admin: &Admin| {
        let metrics =
            ask(SocketAddr::new(Ipv4Addr::LOCALHOST.into(), address_of(admin).port()), "GET", "/metrics");
        let line = metrics.body.lines().find(|line| line.starts_with("towpath_admin_turned_away_total "));
        line.expect("the metric").to_owned()
    };
    assert_eq!(count(&admin), "towpath_admin_turned_away_total 1", "loopback itself may ask");
    let mut stream = from_own(SocketAddr::new(own, port));
    write!(stream, "GET /healthz HTTP/1.0\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.0 200"), "the address that is asked is this machine's: {answer}");

    let admin = start(&format!("{own}/32"));
    let mut stream = from_own(SocketAddr::new(Ipv4Addr::LOCALHOST.into(), address_of(&admin).port()));
    write!(stream, "GET /healthz HTTP/1.0\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.0 200"), "named: {answer}");
}

/// Operations that answer with what was asked.
#[derive(Debug)]
struct Echo;

impl Operations for Echo {
    fn answer<'a>(
        &'a self,
        call: &'a Call,
    ) -> Pin<Box<dyn Future<Output = Option<OperationAnswer>> + Send + 'a>> {
        Box::pin(async move {
            let (pieces, parts) = tokio::sync::mpsc::channel(1);
            match &*call.path {
                "/echo" => {
                    let text = format!("{} {} {}", call.method, call.path, call.query);
                    Some(OperationAnswer {
                        status: hyper::StatusCode::OK,
                        parts: Parts::Whole(text),
                        allow: None,
                    })
                }
                "/pieces" => {
                    tokio::spawn(async move {
                        for piece in ["one", " ", "two"] {
                            let _ = pieces.send(Ok(piece.to_owned())).await;
                        }
                    });
                    Some(OperationAnswer {
                        status: hyper::StatusCode::OK,
                        parts: Parts::Stream(parts),
                        allow: None,
                    })
                }
                _ => None,
            }
        })
    }
}

#[test]
fn operations_are_answered_on_the_socket_and_nowhere_else() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("admin.sock");
    let listeners = AdminListeners {
        tcp: Some(TcpListener::bind("127.0.0.1:0").unwrap()),
        socket: Some(AdminSocket::bind(&path).unwrap()),
        ..AdminListeners::default()
    };
    let admin = Admin::start(listeners, Registry::new(), Readiness::new(), Some(Arc::new(Echo))).unwrap();
    let on_socket = |request: &str| {
        let mut stream = UnixStream::connect(&path).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        // Neither of the headers is looked at: no page of the web reaches a socket.
        write!(stream, "{request} HTTP/1.0\r\nHost: evil.example\r\nOrigin: http://evil.example\r\n\r\n")
            .unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        (head.split(' ').nth(1).unwrap().to_owned(), body.to_owned())
    };
    assert_eq!(on_socket("POST /echo?key=1"), ("200".into(), "POST /echo key=1".into()));
    assert_eq!(on_socket("GET /pieces"), ("200".into(), "one two".into()));
    assert_eq!(on_socket("GET /healthz"), ("200".into(), "ok\n".into()));
    assert_eq!(on_socket("GET /nowhere").0, "404");
    assert_eq!(ask(address_of(&admin), "GET", "/echo").status(), "404");
    assert_eq!(ask(address_of(&admin), "POST", "/echo").status(), "405");
    drop(admin);
    assert!(!path.exists(), "the file is removed with the socket");
}

/// Operations whose answer keeps the thread of administration until the test lets it go on.
#[derive(Debug)]
struct Stuck {
    reached: mpsc::Sender<()>,
    go_on: Mutex<mpsc::Receiver<()>>,
}

impl Operations for Stuck {
    fn answer<'a>(
        &'a self,
        _: &'a Call,
    ) -> Pin<Box<dyn Future<Output = Option<OperationAnswer>> + Send + 'a>> {
        Box::pin(async {
            self.reached.send(()).unwrap();
            let _ = self.go_on.lock().unwrap().recv();
            None
        })
    }
}

/// A successor takes a socket that nothing listens on for one that was left behind, and puts its own file there.
#[test]
fn the_file_of_the_socket_is_removed_while_the_listener_is_there() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("admin.sock");
    let listeners =
        AdminListeners { socket: Some(AdminSocket::bind(&path).unwrap()), ..AdminListeners::default() };
    let ((reached, has_reached), (let_go_on, go_on)) = (mpsc::channel(), mpsc::channel());
    let stuck = Arc::new(Stuck { reached, go_on: Mutex::new(go_on) });
    let admin = Admin::start(listeners, Registry::new(), Readiness::new(), Some(stuck)).unwrap();
    let mut stream = UnixStream::connect(&path).unwrap();
    write!(stream, "GET /stuck HTTP/1.0\r\n\r\n").unwrap();
    has_reached.recv_timeout(PATIENCE).unwrap();
    // The thread, and the listener with it, cannot end now.
    let dropping = thread::spawn(move || drop(admin));
    let deadline = Instant::now() + PATIENCE;
    while path.exists() {
        assert!(Instant::now() < deadline, "the file waits for the end of the listener");
        thread::sleep(Duration::from_millis(5));
    }
    assert!(!dropping.is_finished(), "the listener is there");
    let_go_on.send(()).unwrap();
    dropping.join().unwrap();
}
