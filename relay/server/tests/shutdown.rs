//! SIGTERM: the relay closes its clients, whatever they are doing, and exits with 0.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use relay_client::{Dialer, Event, RecvError, TlsVersions, Trust};
use rustix::process::{Pid, Signal, kill_process};
use tokio::time::timeout;
use wire::key::NodePrivate;

/// How long anything may take that takes milliseconds.
const PATIENCE: Duration = Duration::from_secs(20);

/// A relay in a process of its own, killed when dropped.
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Starts the real program and returns where it listens.
fn start() -> (Process, SocketAddr) {
    let mut child = Command::new(env!("CARGO_BIN_EXE_towpath-relay"))
        .args(["--dev", "--listen", "127.0.0.1:0", "--stun-listen", ""])
        .env("TOWPATH_ADMIN_LISTEN", "")
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program starts");
    let mut lines = BufReader::new(child.stderr.take().expect("a pipe")).lines();
    let address = lines
        .by_ref()
        .map_while(Result::ok)
        .find_map(|line| line.split("listen=").nth(1)?.split(' ').next()?.parse().ok())
        .expect("the log says where it listens");
    // What it logs further shall not fill the pipe.
    std::thread::spawn(move || lines.count());
    (Process(child), address)
}

#[tokio::test]
async fn sigterm_closes_idle_busy_and_deaf_clients_and_exits_with_0() {
    let (mut relay, address) = start();
    let dialer = Dialer::tls("localhost", address.port(), &Trust::Anyone, TlsVersions::Both)
        .expect("a dialer")
        .at(address);
    let client = async |seed| {
        let key = NodePrivate::from_random([seed; 32]);
        (key.public(), dialer.connect(&key).await.expect("a login"))
    };
    let (_, mut idle) = client(1).await;
    let (deaf, _deaf_client) = client(2).await;
    let (_, busy) = client(3).await;
    let (busy, mut told) = busy.split();
    let packet = [0; 1400];
    // More than the deaf one's socket takes: when this is through, the relay has something in an outbox.
    for _ in 0..200 {
        busy.send_batch(vec![(deaf, &packet[..]); 32]).await.expect("packets go out");
    }
    let flooding =
        tokio::spawn(async move { while busy.send_batch(vec![(deaf, &packet[..]); 32]).await.is_ok() {} });

    let pid = Pid::from_child(&relay.0);
    // Twice, as timeout(1) does to a process that leads its group.
    for _ in 0..2 {
        kill_process(pid, Signal::TERM).expect("a signal");
    }
    let ended = timeout(PATIENCE, async {
        loop {
            match idle.recv().await {
                Ok(Event::KeepAlive) => {}
                other => break other,
            }
        }
    });
    let ended = ended.await.expect("the idle client is closed");
    assert!(matches!(ended, Err(RecvError::Closed)), "closed with a close_notify: {ended:?}");
    timeout(PATIENCE, flooding).await.expect("the busy client is closed").expect("no panic");
    assert!(timeout(PATIENCE, told.recv()).await.expect("closed").is_err());
    let status =
        timeout(PATIENCE, tokio::task::spawn_blocking(move || relay.0.wait().map(|status| (relay, status))));
    let (_relay, status) = status.await.expect("the relay ends").expect("no panic").expect("a status");
    assert!(status.success(), "{status}");
}
