//! A log that is not read: standard error is a pipe, and its reader has stalled. The relay loses lines, and nothing else.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use towpath_relay_client::{Client, Dialer, TlsVersions, Trust};
use towpath_wire::key::{NodePrivate, NodePublic};

use crate::common::{PATIENCE, packet};

/// Connections until the metrics are asked whether lines are lost.
const ROUND: usize = 500;

struct Process {
    child: Child,
    listen: SocketAddr,
    admin: SocketAddr,
    /// The end of the pipe, from which nothing more is read unless a test does.
    log: Option<BufReader<std::process::ChildStderr>>,
}

impl Process {
    fn start() -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_towpath-relay"))
            .args(["--dev", "--listen", "127.0.0.1:0", "--stun-listen", ""])
            .envs([
                ("TOWPATH_ADMIN_LISTEN", "127.0.0.1:0"),
                ("TOWPATH_LOG_LEVEL", "debug"),
                ("TOWPATH_WORKERS", "1"),
            ])
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the program starts");
        let mut log = BufReader::new(child.stderr.take().expect("a pipe"));
        let mut line = String::new();
        while !line.contains("listening") {
            line.clear();
            assert_ne!(log.read_line(&mut line).expect("UTF-8"), 0, "the log says where it listens");
        }
        let address = |name: &str| {
            let field = line.split(' ').find_map(|field| field.strip_prefix(name)?.strip_prefix('='));
            field.and_then(|field| field.trim().parse().ok()).expect("an address")
        };
        Self { listen: address("listen"), admin: address("admin"), child, log: Some(log) }
    }

    async fn log_in(&self, seed: u8) -> (NodePublic, Client) {
        let key = NodePrivate::from_random([seed; 32]);
        let dialer = Dialer::tls("localhost", self.listen.port(), &Trust::Anyone, TlsVersions::Both);
        let dialer = dialer.expect("a dialer").at(self.listen);
        let client = dialer.connect(&key);
        let client = tokio::time::timeout(PATIENCE, client).await.expect("a login in time").expect("a login");
        (key.public(), client)
    }

    fn get(&self, path: &str) -> String {
        let mut stream = TcpStream::connect(self.admin).expect("the admin listener accepts");
        stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        write!(stream, "GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n").expect("a request");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("an answer");
        answer
    }

    fn lines_dropped(&self) -> u64 {
        let page = self.get("/metrics");
        let value = page.lines().find_map(|line| line.strip_prefix("towpath_log_lines_dropped_total "));
        value.expect("the metric").parse().expect("a number")
    }

    /// Causes lines until some are lost.
    fn fill_log(&self) {
        let begin = Instant::now();
        while self.lines_dropped() == 0 {
            assert!(begin.elapsed() < 6 * PATIENCE, "the log takes more and more");
            for _ in 0..ROUND {
                drop(TcpStream::connect(self.listen).expect("the kernel accepts"));
            }
        }
    }

    /// Waits for the end, and returns whether it was an orderly one.
    fn ends_in_order(&mut self) -> bool {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.child.try_wait().expect("a child") {
                return status.success();
            }
            assert!(Instant::now() < deadline, "the relay does not end");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).expect("a signal");
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn behind_a_stalled_reader_clients_log_in_packets_pass_and_the_relay_ends() {
    let mut relay = Process::start();
    let [(_, mut sender), (to, mut receiver)] = [relay.log_in(1).await, relay.log_in(2).await];
    relay.fill_log();
    sender.send(to, b"established before").await.expect("connected");
    assert_eq!(packet(&mut receiver).await.1, b"established before");
    let (late, mut late_client) = relay.log_in(3).await;
    sender.send(late, b"logged in behind it").await.expect("connected");
    assert_eq!(packet(&mut late_client).await.1, b"logged in behind it");
    assert!(relay.get("/readyz").starts_with("HTTP/1.1 200"));
    relay.signal(Signal::TERM);
    assert!(relay.ends_in_order());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_that_comes_back_reads_how_many_lines_are_missing() {
    let mut relay = Process::start();
    relay.fill_log();
    let mut log = relay.log.take().expect("not taken");
    let (found, missing) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let mut line = String::new();
        while log.read_line(&mut line).expect("UTF-8") > 0 {
            if let Some((missing, _)) = line.split_once(" lines of the log are missing here") {
                found.send(missing.parse::<u64>().expect("a number")).expect("the test waits");
                return;
            }
            line.clear();
        }
    });
    let missing = missing.recv_timeout(PATIENCE).expect("the log says that lines are missing");
    assert!(missing > 0 && missing <= relay.lines_dropped(), "{missing}");
}
