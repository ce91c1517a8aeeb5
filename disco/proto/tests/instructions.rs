//! How many instructions a node spends on its peers and on packets, counted by callgrind: the same on a busy machine as on an
//! idle one.
//!
//! The test runs itself under valgrind, once for each budget, and counts what runs inside of [`counted`]: the node, and neither
//! the peers that answer it nor the packets that they make. It counts release builds only (`make budgets` makes one): anything
//! else is another program.

#![allow(clippy::print_stdout, reason = "a test without a harness says itself what it found")]

mod common;

use std::fs;
use std::hint::black_box;
use std::process::Command;
use std::time::Duration;

use towpath_disco::Node;
use towpath_disco::datagram::{Received, Transmit};
use towpath_wire::time::Instant;

use common::{Puppet, at, direct_peers, pongs};

/// Beyond this much a change is a regression, or an improvement to record, and not noise.
const TOLERANCE: f64 = 0.03;
/// The environment variable that says which budget a process under valgrind counts.
const PROBE: &str = "TOWPATH_TEST_BUDGET";

/// Peers of the node, in each budget.
const PEERS: u32 = 1000;
/// The time over which idle peers are counted. An idle path is kept alive for ten minutes.
const IDLE: Duration = Duration::from_secs(500);
/// Packets that are counted.
const PACKETS: u32 = 20_000;
/// Bytes of a packet.
const PACKET: usize = 1400;
/// The time between two packets: 100,000 in a second, more than are remembered.
const BETWEEN: Duration = Duration::from_micros(10);

/// What may cost so many instructions.
struct Budget {
    name: &'static str,
    what: &'static str,
    instructions: f64,
    /// What the instructions are divided by.
    times: f64,
    run: fn(),
}

/// Recorded with rustc 1.95 and valgrind 3.19, whose synthetic processor has AVX2 and not AVX-512.
const BUDGETS: [Budget; 3] = [
    Budget {
        name: "idle",
        what: "a second of 1,000 peers that are direct and idle",
        instructions: 897_000.0,
        times: IDLE.as_secs() as f64,
        run: idle,
    },
    Budget {
        name: "route",
        what: "the route of a packet to a direct peer",
        instructions: 1_617.0,
        times: PACKETS as f64,
        run: route,
    },
    Budget {
        name: "receive",
        what: "a packet of 1,400 bytes from a direct peer",
        instructions: 491.0,
        times: PACKETS as f64,
        run: receive,
    },
];

impl Budget {
    /// Counts, and says whether it is within the budget.
    fn is_kept(&self) -> bool {
        let (each, budget) = (count(self.name) as f64 / self.times, self.instructions);
        println!("instructions for {}: {each:.0}, budget {budget:.0}", self.what);
        if each < budget * (1.0 - TOLERANCE) {
            println!("better than the budget: record the new figure");
        }
        each <= budget * (1.0 + TOLERANCE)
    }
}

fn main() {
    if let Ok(name) = std::env::var(PROBE) {
        let budget = BUDGETS.iter().find(|budget| budget.name == name).expect("a budget of this name");
        return (budget.run)();
    }
    if cfg!(debug_assertions) {
        println!("instructions: skipped, counted in release builds only (make budgets)");
        return;
    }
    let kept = BUDGETS.iter().filter(|budget| budget.is_kept()).count();
    assert_eq!(kept, BUDGETS.len(), "a regression");
    println!("test result: ok. {} passed; 0 failed; 0 ignored; 0 measured; 0 filtered out", BUDGETS.len());
}

/// What runs in here is counted.
#[inline(never)]
fn counted<T>(call: impl FnOnce() -> T) -> T {
    black_box(call())
}

/// The instructions that were counted in a process of its own.
fn count(name: &str) -> u64 {
    let dir = tempfile::tempdir().expect("a directory");
    let out = dir.path().join("callgrind.out");
    let output = Command::new("valgrind")
        .arg("--tool=callgrind")
        .arg("--toggle-collect=instructions::counted*")
        .arg(format!("--callgrind-out-file={}", out.display()))
        .arg(std::env::current_exe().expect("this program"))
        .env(PROBE, name)
        // Processors differ in when glibc copies by `rep movsb`, of which callgrind counts each byte.
        .env("GLIBC_TUNABLES", "glibc.cpu.hwcaps=-ERMS,-FSRM")
        .output()
        .unwrap_or_else(|error| panic!("cannot run valgrind (Debian package valgrind): {error}"));
    assert!(output.status.success(), "valgrind failed:\n{}", String::from_utf8_lossy(&output.stderr));
    let profile = fs::read_to_string(&out).expect("a profile");
    let total = profile.lines().find_map(|line| line.strip_prefix("totals: ")).expect("a total");
    total.parse().expect("a number")
}

/// Takes what is to be sent.
fn take(node: &mut Node) -> Vec<(Transmit, Vec<u8>)> {
    let (mut all, mut packet) = (Vec::new(), Vec::new());
    while let Some(transmit) = counted(|| node.poll_transmit(&mut packet)) {
        all.push((transmit, packet.clone()));
    }
    all
}

/// Lets time pass until `end`, with peers that answer each ping after 20 ms. Returns how many packets were sent.
fn pass(node: &mut Node, peers: &[Puppet], end: Instant) -> usize {
    let mut count = 0;
    while let Some(due) = counted(|| node.poll_timeout()).filter(|due| *due <= end) {
        counted(|| node.handle_timeout(due));
        let packets = take(node);
        count += packets.len();
        for (remote, pong) in pongs(peers, &packets) {
            let now = due + Duration::from_millis(20);
            counted(|| node.handle_packet(now, Received::Udp { remote }, &pong));
        }
    }
    count
}

fn idle() {
    let (mut node, peers) = direct_peers(PEERS);
    let count = pass(&mut node, &peers, at(0) + IDLE);
    let each = count as f64 / f64::from(PEERS);
    assert!(
        (13.0..=20.0).contains(&each),
        "every 25 s, or every 32 s where the peer has the lower key: {each}"
    );
    assert!(peers.iter().all(|peer| node.direct(&peer.key) == Some(peer.address)));
}

fn route() {
    let (mut node, peers) = direct_peers(PEERS);
    let peer = &peers[500];
    for number in 0..PACKETS {
        let now = at(20) + BETWEEN * number;
        let route = counted(|| node.route(now, &peer.key, 100));
        assert_eq!(route.direct, Some(peer.address));
        // Pings to the path, four in 250 ms.
        for (remote, pong) in pongs(&peers, &take(&mut node)) {
            counted(|| node.handle_packet(now, Received::Udp { remote }, &pong));
        }
    }
}

fn receive() {
    let (mut node, peers) = direct_peers(PEERS);
    let peer = &peers[500];
    let received = Received::Udp { remote: peer.address };
    let mut packet = vec![4; PACKET];
    // As many packets are remembered from the start on as can be.
    for number in 0..2 * PACKETS {
        packet[8..12].copy_from_slice(&number.to_le_bytes());
        let now = at(20) + BETWEEN * number;
        let mut call = || node.handle_packet(now, received, &packet);
        let of = if number < PACKETS { call() } else { counted(call) };
        assert_eq!(of, Some(peer.key));
    }
}
