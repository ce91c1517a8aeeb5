//! How many instructions a forwarded frame costs, counted by callgrind: the same on a busy machine as on an idle one.
//!
//! The test runs itself under valgrind twice, with few and with many batches, and takes the slope, so that logins and
//! warming up do not count. Only what a worker does inside a turn is counted, in user space, system calls not included.
//! It counts release builds only (`make test` makes one): anything else is another program.

#![allow(clippy::print_stdout, reason = "a test without a harness says itself what it found")]

mod common;

use std::collections::HashMap;
use std::fs;
use std::process::Command;

use common::{Relay, packet};

const BATCH: usize = 8;
const PACKET: usize = 1400;

/// Instructions for each frame of 1,400 bytes, in batches of eight, TLS 1.3 with AES-128-GCM on both sides.
///
/// Recorded with rustc 1.95, aws-lc-rs 1.19 and valgrind 3.19, whose synthetic processor has AES-NI and AVX2, but neither
/// VAES nor AVX-512. So it is aws-lc's code for AES-NI that is counted, on every machine.
const ALL: Budget = Budget { what: "in all", instructions: 7_660.0 };
/// Instructions for each frame without cipher and copying, which would hide a regression of the relay's own code.
const LOGIC: Budget = Budget { what: "but for cipher and copies", instructions: 663.0 };

/// Beyond this much a change is a regression, or an improvement to record, and not noise.
const TOLERANCE: f64 = 0.03;

struct Budget {
    what: &'static str,
    instructions: f64,
}

impl Budget {
    fn check(&self, few: u64, many: u64) {
        let frames = f64::from((MANY - FEW) * BATCH as u32);
        let (each, budget) = ((many - few) as f64 / frames, self.instructions);
        println!("instructions for each frame, {}: {each:.0}, budget {budget:.0}", self.what);
        assert!(each <= budget * (1.0 + TOLERANCE), "a regression");
        if each < budget * (1.0 - TOLERANCE) {
            println!("better than the budget: record the new figure");
        }
    }
}

/// Parts of the names of functions of the cipher and of copying. The libraries' own Rust is inlined into `Aead`.
const CIPHER_AND_COPIES: [&str; 6] =
    ["aws_lc", "aesni", "ghash", "towpath_tls::own::aead::Aead", "memcpy", "memmove"];

const PROBE: &str = "TOWPATH_TEST_BATCHES";
const FEW: u32 = 200;
const MANY: u32 = 1200;

fn main() {
    if let Ok(batches) = std::env::var(PROBE) {
        return forward(batches.parse().expect("a number of batches"));
    }
    if cfg!(debug_assertions) {
        println!("instructions: skipped, counted in release builds only (make test)");
        return;
    }
    let (few, many) = (count(FEW), count(MANY));
    ALL.check(few.all, many.all);
    LOGIC.check(few.logic, many.logic);
    println!("test result: ok. 1 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out");
}

/// Forwards `batches`, each when the one before has arrived.
fn forward(batches: u32) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let relay = Relay::start("");
        let (_, mut sender) = relay.client(1).await;
        let (to, mut receiver) = relay.client(2).await;
        let payload = [7; PACKET];
        for _ in 0..batches {
            sender.send_batch(vec![(to, &payload[..]); BATCH]).await.expect("a batch goes out");
            for _ in 0..BATCH {
                assert_eq!(packet(&mut receiver).await.1, payload);
            }
        }
    });
}

/// Instructions that were counted.
#[derive(Default)]
struct Count {
    all: u64,
    logic: u64,
}

/// The instructions that workers spend in turns while `batches` are forwarded.
fn count(batches: u32) -> Count {
    let dir = tempfile::tempdir().expect("a directory");
    let out = dir.path().join("callgrind.out");
    let output = Command::new("valgrind")
        .arg("--tool=callgrind")
        .arg("--toggle-collect=*forward::worker::Worker::turn*")
        .arg(format!("--callgrind-out-file={}", out.display()))
        .arg(std::env::current_exe().expect("this program"))
        .env(PROBE, batches.to_string())
        // Processors differ in when glibc copies by `rep movsb`, of which callgrind counts each byte.
        .env("GLIBC_TUNABLES", "glibc.cpu.hwcaps=-ERMS,-FSRM")
        .output()
        .unwrap_or_else(|error| panic!("cannot run valgrind (Debian package valgrind): {error}"));
    assert!(output.status.success(), "valgrind failed:\n{}", String::from_utf8_lossy(&output.stderr));
    sum(&fs::read_to_string(&out).expect("a profile"))
}

/// Adds up a profile: `fn=(id) name` opens a function, the name only the first time; `line cost` is its own cost; the
/// line behind `calls=` has the cost of what it called, which is counted there.
fn sum(profile: &str) -> Count {
    let mut names: HashMap<&str, &str> = HashMap::new();
    let (mut count, mut logic) = (Count::default(), true);
    let mut lines = profile.lines();
    while let Some(line) = lines.next() {
        if let Some(function) = line.strip_prefix("fn=").or(line.strip_prefix("cfn=")) {
            let (id, name) = function.split_once(' ').unwrap_or((function, ""));
            let name = if name.is_empty() { names[id] } else { names.entry(id).or_insert(name) };
            if line.starts_with("fn=") {
                logic = !CIPHER_AND_COPIES.iter().any(|part| name.contains(part));
            }
        } else if line.starts_with("calls=") {
            lines.next();
        } else if line.starts_with(|first: char| first.is_ascii_digit() || "+-*".contains(first)) {
            let cost: u64 = line.rsplit(' ').next().and_then(|cost| cost.parse().ok()).expect("a cost");
            count.all += cost;
            count.logic += if logic { cost } else { 0 };
        }
    }
    count
}
