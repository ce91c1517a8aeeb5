//! Connections until no more files can be opened, against the real program.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use towpath_relay_client::{Client, Dialer, TlsVersions, Trust};
use towpath_wire::key::NodePrivate;

use crate::alone;
use crate::common::{MeshFiles, PATIENCE, Relay};

/// Files that the program may open.
const FILES: u32 = 300;
/// Connections that it has room for by default: half, since less than 256 would be left to the rest.
const ROOM: usize = 150;
/// More lines than any start and any attack may cost.
const LINES: usize = 20;

/// The relay in a process of its own, killed when dropped.
struct Process {
    child: Child,
    listen: SocketAddr,
    admin: SocketAddr,
    log: Option<JoinHandle<usize>>,
}

impl Process {
    fn start(settings: &str) -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let file = dir.path().join("relay.toml");
        let text =
            format!("listen = '127.0.0.1:0'\nstun.listen = []\nadmin.listen = '127.0.0.1:0'\n{settings}");
        std::fs::write(&file, text).expect("a file");
        let mut child = Command::new("sh")
            .args(["-c", "ulimit -n \"$0\" && exec \"$@\"", &FILES.to_string()])
            .args([env!("CARGO_BIN_EXE_towpath-relay"), "--dev", "--config"])
            .arg(file)
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the program starts");
        let mut lines = BufReader::new(child.stderr.take().expect("a pipe")).lines().map_while(Result::ok);
        let listening = lines.find(|line| line.contains("listening")).expect("the log says where it listens");
        let address = |name: &str| {
            let field = listening.split(' ').find_map(|field| field.strip_prefix(name)?.strip_prefix('='));
            field.expect("an address").parse().expect("an address")
        };
        let (listen, admin) = (address("listen"), address("admin"));
        let log = std::thread::spawn(move || lines.count());
        Self { child, listen, admin, log: Some(log) }
    }

    /// Logs in with a key made from a number; `None` if the relay refuses it.
    async fn log_in(&self, number: u64) -> Option<Client> {
        let mut bytes = [0x51; 32];
        bytes[..8].copy_from_slice(&number.to_be_bytes());
        let dialer = Dialer::tls("localhost", self.listen.port(), &Trust::Anyone, TlsVersions::Both);
        dialer.expect("a dialer").at(self.listen).connect(&NodePrivate::from_random(bytes)).await.ok()
    }

    fn get(&self, path: &str) -> String {
        let mut stream = TcpStream::connect(self.admin).expect("the admin listener accepts");
        stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        write!(stream, "GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n").expect("a request");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("an answer");
        answer
    }

    fn metric(&self, sample: &str) -> u64 {
        let page = self.get("/metrics");
        let value = page.lines().find_map(|line| line.strip_prefix(sample)?.strip_prefix(' '));
        value.unwrap_or_else(|| panic!("no {sample}:\n{page}")).parse().expect("a number")
    }

    fn wait(&self, what: &str, fact: impl Fn(&Self) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !fact(self) {
            assert!(Instant::now() < deadline, "not in time: {what}\n{}", self.get("/metrics"));
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Ends the process and returns how many lines it has logged.
    fn lines(mut self) -> usize {
        self.child.kill().expect("it runs");
        self.log.take().expect("a log").join().expect("no panic")
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Opens silent connections.
fn silent(at: SocketAddr, count: usize) -> Vec<TcpStream> {
    (0..count).map(|_| TcpStream::connect(at).expect("the kernel accepts")).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_that_take_every_connection_leave_files_for_health_and_the_mesh() {
    let _alone = alone().await;
    let (files_of_attacked, files_of_other) = (MeshFiles::new(51), MeshFiles::new(52));
    let reserved = TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("an address");
    let settings = files_of_attacked.settings(&[files_of_other.peer(reserved)]);
    let settings = format!("login.max_connections_per_host = 100_000\n{settings}");
    let relay = Process::start(&settings);
    let mut clients = Vec::new();
    for number in 0..2 * ROOM as u64 {
        let Some(client) = relay.log_in(number).await else { break };
        clients.push(client);
    }
    assert_eq!(clients.len(), ROOM);
    let _silent = silent(relay.listen, 2 * ROOM);
    assert!(relay.get("/healthz").starts_with("HTTP/1.1 200"));
    relay.wait("the rest is refused with a label", |relay| {
        relay.metric("towpath_refused_total{reason=\"connection_limit\"}") > 2 * ROOM as u64
    });
    assert_eq!(relay.metric("towpath_accept_errors_total"), 0);
    // The mesh dials when all this is so.
    let _other = Relay::start_at(&format!("listen = \"{reserved}\"\n{}", files_of_other.settings(&[])));
    relay.wait("the link is up", |relay| relay.get("/metrics").contains("\ntowpath_mesh_links 1\n"));
    let lines = relay.lines();
    assert!(lines <= LINES, "{lines} lines");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn health_answers_when_the_settings_let_clients_take_every_file() {
    let _alone = alone().await;
    let relay = Process::start(
        "login.max_connections = 100_000\nlogin.max_connections_per_host = 100_000\nlogin.first_byte_timeout = '60s'",
    );
    let _silent = silent(relay.listen, 2 * FILES as usize);
    relay.wait("files have run out", |relay| relay.metric("towpath_accept_errors_total") > 0);
    for _ in 0..10 {
        assert!(relay.get("/healthz").starts_with("HTTP/1.1 200"));
    }
    assert!(relay.metric("towpath_refused_total{reason=\"open_files\"}") > 0);
    let mut client = None;
    for number in 0..20 {
        client = relay.log_in(number).await;
        if client.is_some() {
            break;
        }
    }
    assert!(client.is_some(), "silent connections make room for a client");
    let lines = relay.lines();
    assert!(lines <= LINES, "{lines} lines");
}
