//! How the real program ends: it closes its clients, whatever they are doing, and exits with 0 if that was asked for by
//! SIGTERM, and with the reason if it cannot go on.

use std::io::{BufRead, BufReader};
use std::net::{SocketAddr, UdpSocket};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Resource, Rlimit, Signal, kill_process, prlimit};
use tokio::time::timeout;
use towpath_relay_client::{Client, Dialer, Event, RecvError, TlsVersions, Trust};
use towpath_wire::key::NodePrivate;

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

/// What the program logs after it has said where it listens.
type Log = std::thread::JoinHandle<Vec<String>>;

/// Starts the real program. Returns the line of its log that says where it listens, and those that will follow.
fn start(args: &[&str]) -> (Process, String, Log) {
    let mut child = Command::new(env!("CARGO_BIN_EXE_towpath-relay"))
        .args(args)
        .env("TOWPATH_ADMIN_LISTEN", "")
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program starts");
    let mut lines = BufReader::new(child.stderr.take().expect("a pipe")).lines().map_while(Result::ok);
    let listening = lines.find(|line| line.contains("listening")).expect("the log says where it listens");
    // It shall not fill the pipe.
    let log = std::thread::spawn(move || lines.collect());
    (Process(child), listening, log)
}

/// The address behind `name=` in a line of the log.
fn address(line: &str, name: &str) -> SocketAddr {
    let field = line.split(' ').find_map(|field| field.strip_prefix(name)?.strip_prefix('='));
    field.expect("an address").trim_matches(['[', ']']).parse().expect("an address")
}

fn dialer(address: SocketAddr) -> Dialer {
    Dialer::tls("localhost", address.port(), &Trust::Anyone, TlsVersions::Both).expect("a dialer").at(address)
}

/// Reads until the relay has closed the connection, with a close_notify.
async fn expect_closed(client: &mut Client) {
    let ended = timeout(PATIENCE, async {
        loop {
            match client.recv().await {
                Ok(Event::KeepAlive) => {}
                other => break other,
            }
        }
    });
    let ended = ended.await.expect("the client is closed");
    assert!(matches!(ended, Err(RecvError::Closed)), "closed with a close_notify: {ended:?}");
}

/// Waits until the program has ended, and says how.
async fn status_of(mut relay: Process) -> ExitStatus {
    let pid = Pid::from_child(&relay.0);
    let ended = tokio::task::spawn_blocking(move || relay.0.wait());
    let Ok(ended) = timeout(PATIENCE, ended).await else {
        kill_process(pid, Signal::KILL).expect("a signal");
        panic!("the relay does not end");
    };
    ended.expect("no panic").expect("a status")
}

#[tokio::test]
async fn sigterm_closes_idle_busy_and_deaf_clients_and_exits_with_0() {
    let (relay, listening, _) = start(&["--dev", "--listen", "127.0.0.1:0", "--stun-listen", ""]);
    let dialer = dialer(address(&listening, "listen"));
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
    expect_closed(&mut idle).await;
    timeout(PATIENCE, flooding).await.expect("the busy client is closed").expect("no panic");
    assert!(timeout(PATIENCE, told.recv()).await.expect("closed").is_err());
    let status = status_of(relay).await;
    assert!(status.success(), "{status}");
}

/// poll(2) fails when it is to look at more descriptors than a process may open. That is how it is made to fail here: the
/// program had them open before it lost the right to.
#[tokio::test]
async fn a_stun_server_that_fails_ends_the_relay_with_the_reason() {
    let (relay, listening, log) =
        start(&["--dev", "--listen", "127.0.0.1:0", "--stun-listen", "127.0.0.1:0"]);
    let key = NodePrivate::from_random([1; 32]);
    let mut client = dialer(address(&listening, "listen")).connect(&key).await.expect("a login");
    let one = Rlimit { current: Some(1), maximum: Some(1) };
    prlimit(Some(Pid::from_child(&relay.0)), Resource::Nofile, one).expect("a limit");
    // STUN waits for this without end, and fails when it is to wait for the next.
    let asking = UdpSocket::bind("127.0.0.1:0").expect("a socket");
    asking.send_to(b"no request", address(&listening, "stun")).expect("sent");
    expect_closed(&mut client).await;
    assert_eq!(status_of(relay).await.code(), Some(1));
    let log = log.join().expect("the log is read to its end");
    let reason = "towpath-relay: the STUN server failed: Invalid argument (os error 22)";
    assert_eq!(log.last().map(String::as_str), Some(reason), "{log:#?}");
}
