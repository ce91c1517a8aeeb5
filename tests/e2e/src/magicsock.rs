//! A peer on Tailscale's own code for paths, as a process in the namespace of a host.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::process::{Child, ChildStdin, Stdio};
use std::thread;
use std::time::Duration;

use serde::Deserialize;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout};
use towpath::{DiscoPublic, NodePublic};
use towpath_lab::Namespace;

use crate::region::{REGION, Region};
use crate::turn::Programs;

/// How long an event may take that must come.
const PATIENCE: Duration = Duration::from_secs(20);

/// The peer. It ends with this value.
#[derive(Debug)]
pub(crate) struct Magicsock {
    process: Child,
    files: TempDir,
    commands: ChildStdin,
    events: mpsc::UnboundedReceiver<(Instant, Event)>,
    key: NodePublic,
    disco: DiscoPublic,
    endpoints: Vec<SocketAddr>,
}

/// What has happened to it. One field is set.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Event {
    key: Option<String>,
    disco: Option<String>,
    home: Option<u16>,
    endpoints: Option<Vec<SocketAddr>>,
    /// A packet has come.
    pub(crate) received: Option<Received>,
    path: Option<Address>,
    pong: Option<Address>,
}

/// A packet that it has received.
#[derive(Clone, Copy, Debug, Deserialize)]
pub(crate) struct Received {
    /// The number in it.
    pub(crate) number: u32,
    /// Whether it came over UDP, and not over a relay.
    pub(crate) direct: bool,
}

/// An address, or nothing where the way is over a relay.
#[derive(Clone, Debug, Deserialize)]
struct Address {
    address: String,
}

impl Event {
    /// The address to which packets go from now on; within, `None` for the relay. `None` for another event.
    pub(crate) fn path(&self) -> Option<Option<SocketAddr>> {
        self.path.as_ref().map(|path| path.address.parse().ok())
    }
}

impl Magicsock {
    /// Starts the peer, and returns when it is connected to the relay and knows its own addresses. To be called by the thread of a
    /// test: the process is killed when that ends.
    pub(crate) fn start(programs: &Programs, namespace: &Namespace, region: &Region) -> Self {
        let files = TempDir::new().expect("a temporary directory");
        let map = files.path().join("derpmap.json");
        fs::write(&map, region.json()).expect("a map");
        let log = File::create(files.path().join("log")).expect("a log file");
        let mut command = namespace.command(&programs.magicsock);
        command.arg("--derpmap").arg(map).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(log);
        let mut process = command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}"));
        let commands = process.stdin.take().expect("a pipe");
        let mut lines = BufReader::new(process.stdout.take().expect("a pipe")).lines();
        let first = lines.next().expect("an event").expect("it is read");
        let Event { key: Some(key), disco: Some(disco), .. } = parse(&first) else { panic!("{first}") };
        let (key, disco) = (key.parse().expect("a node key"), disco.parse().expect("a disco key"));
        let (mut is_home, mut endpoints) = (false, Vec::new());
        while !is_home || endpoints.is_empty() {
            let event = parse(&lines.next().expect("an event").expect("it is read"));
            is_home |= event.home == Some(REGION.0);
            endpoints = event.endpoints.unwrap_or(endpoints);
        }
        let (emit, events) = mpsc::unbounded_channel();
        // It ends with the process, or with the receiver of its events.
        thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                if emit.send((Instant::now(), parse(&line))).is_err() {
                    return;
                }
            }
        });
        Self { process, files, commands, events, key, disco, endpoints }
    }

    /// Its key.
    pub(crate) const fn key(&self) -> NodePublic {
        self.key
    }

    /// Its disco key.
    pub(crate) const fn disco(&self) -> DiscoPublic {
        self.disco
    }

    /// The addresses at which it may be reached.
    pub(crate) fn endpoints(&self) -> &[SocketAddr] {
        &self.endpoints
    }

    /// Makes a node the one peer of its network map, which says these addresses of it.
    pub(crate) fn set_peer(&mut self, key: &NodePublic, disco: &DiscoPublic, endpoints: &[SocketAddr]) {
        let (key, disco) = (key.to_string(), disco.to_string());
        let peer = json!({ "key": key, "disco": disco, "region": REGION.0, "endpoints": endpoints });
        self.command(&json!({ "peer": peer }));
    }

    /// Sends the packet with a number to the peer.
    pub(crate) fn send(&mut self, number: u32) {
        self.command(&json!({ "send": number }));
    }

    /// The next event, and when it came. Cancel-safe.
    pub(crate) async fn next(&mut self) -> (Instant, Event) {
        self.events.recv().await.expect("magicsock runs")
    }

    /// Asks the peer for an answer as `tailscale ping` does. Returns the address from which it came; `None` for the relay.
    pub(crate) async fn ping(&mut self) -> Option<SocketAddr> {
        self.command(&json!({ "ping": true }));
        let pong = async {
            loop {
                if let Some(pong) = self.next().await.1.pong {
                    return pong.address.parse().ok();
                }
            }
        };
        timeout(PATIENCE, pong).await.expect("a pong comes")
    }

    fn command(&mut self, command: &Value) {
        writeln!(self.commands, "{command}").expect("magicsock runs");
    }
}

impl Drop for Magicsock {
    #[expect(clippy::print_stderr, reason = "a failed test shows the stock peer's side")]
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
        if thread::panicking() {
            let log = fs::read_to_string(self.files.path().join("log")).unwrap_or_default();
            eprintln!("the log of magicsock:\n{log}");
        }
    }
}

fn parse(line: &str) -> Event {
    serde_json::from_str(line).unwrap_or_else(|error| panic!("{line}: {error}"))
}
