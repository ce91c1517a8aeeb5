//! Figures in milliseconds and bytes, which depend on the machine. They are printed by `make figures`, and asserted
//! against the goals in the name of each.

#![allow(clippy::print_stdout, reason = "a figure is for a person to read")]

use std::fs;
use std::hint::black_box;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use tokio::net::TcpStream;
use towpath_relay_client::{Client, Dialer, Event};
use towpath_relay_proto::token::{Claims, SigningKey, TokenError, TokenKeys};
use towpath_wire::key::{NodePrivate, NodePublic};

use crate::alone;
use crate::attacker::connect;
use crate::common::process::Process;
use crate::common::websocket::PLAIN;
use crate::common::{Relay, event, packet};
use crate::gulps::gulp;

/// A value below which `part` of `values` lie.
fn quantile(values: &mut [Duration], part: f64) -> Duration {
    values.sort_unstable();
    values[((values.len() - 1) as f64 * part) as usize]
}

/// A client of `process` without TLS, with a key made from a number.
async fn plain_client(process: &Process, number: u64) -> (NodePublic, Client) {
    let mut bytes = [0x52; 32];
    bytes[..8].copy_from_slice(&number.to_be_bytes());
    let (key, http) = (NodePrivate::from_random(bytes), process.http.expect("a plain listener"));
    let client = Dialer::plain("localhost", http.port()).at(http).connect(&key).await;
    (key.public(), client.expect("a login"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "make figures"]
async fn beside_4096_silent_connections_a_login_takes_2_s() {
    let _alone = alone().await;
    let relay = Process::start("ulimit -n 20000", PLAIN);
    let mut silent: Vec<TcpStream> = Vec::new();
    for number in 0..4_096 {
        silent.push(connect(2 + (number % 8) as u8, relay.listen).await);
    }
    let begin = Instant::now();
    relay.log_in(1).await.expect("a login in TLS");
    let in_tls = begin.elapsed();
    let begin = Instant::now();
    plain_client(&relay, 2).await;
    let plain = begin.elapsed();
    println!(
        "a login beside 4,096 silent connections of 8 addresses: {in_tls:?}, on http.listen {plain:?} (goal 2 s)"
    );
    assert!(in_tls.max(plain) < Duration::from_secs(2));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "make figures"]
async fn packets_of_a_sender_to_others_pass_a_gulping_destination_in_3_ms() {
    let _alone = alone().await;
    let relay = Relay::start("");
    let (to, destination) = relay.client(1).await;
    let (other, mut receiver) = relay.client(2).await;
    let (_, sender) = relay.client(3).await;
    let gulping = tokio::spawn(gulp(destination));
    let (sender, _events) = sender.split();
    // 40 MB a second to the one, and a packet a millisecond to the other.
    let sending = tokio::spawn(async move {
        let mut ticks = tokio::time::interval(Duration::from_millis(1));
        let begin = Instant::now();
        loop {
            ticks.tick().await;
            let sent = (begin.elapsed().as_nanos() as u64).to_be_bytes();
            let mut batch = vec![(to, &[0; 1_400][..]); 28];
            batch.push((other, &sent[..]));
            if sender.send_batch(batch).await.is_err() || begin.elapsed() > Duration::from_secs(10) {
                return begin;
            }
        }
    });
    let mut arrivals = Vec::new();
    let late = Duration::from_secs(1);
    while let Ok((_, sent)) = tokio::time::timeout(late, packet(&mut receiver)).await {
        arrivals.push((Instant::now(), u64::from_be_bytes(*sent.first_chunk().expect("a time"))));
    }
    let begin = sending.await.expect("no panic");
    let mut waits: Vec<_> = arrivals
        .iter()
        .map(|(at, sent)| at.duration_since(begin).saturating_sub(Duration::from_nanos(*sent)))
        .collect();
    let (p50, p90, most) = (quantile(&mut waits, 0.5), quantile(&mut waits, 0.9), quantile(&mut waits, 1.0));
    println!(
        "{} packets of a sender past a gulping destination: p50 {p50:?}, p90 {p90:?}, max {most:?} (goal p90 3 ms)",
        waits.len()
    );
    gulping.abort();
    assert!(p90 <= Duration::from_millis(3));
}

/// A flood at ten times what its receiver drains, and beside it an honest sender at a tenth, whose packets carry the time.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "make figures"]
async fn beside_a_flood_to_the_same_key_an_honest_sender_waits_a_quarter_of_the_age() {
    const DRAINED: u32 = 4_000;
    let _alone = alone().await;
    let relay = Relay::start("");
    let (to, mut receiver) = relay.client(1).await;
    let (honest, honest_client) = relay.client(2).await;
    let (_, flooder) = relay.client(3).await;
    let ((honest_sender, _honest_events), (flooder, _events)) = (honest_client.split(), flooder.split());
    let begin = Instant::now();
    let every =
        |rate: u32| tokio::time::interval(Duration::from_millis(10).max(Duration::from_secs(1) / rate));
    let flooding = tokio::spawn(async move {
        let mut ticks = every(10 * DRAINED);
        loop {
            ticks.tick().await;
            let batch = vec![(to, &[0; 1_400][..]); 10 * DRAINED as usize / 100];
            if flooder.send_batch(batch).await.is_err() {
                return;
            }
        }
    });
    let sending = tokio::spawn(async move {
        let (mut ticks, mut sent) = (every(DRAINED / 10), 0_u32);
        while begin.elapsed() < Duration::from_secs(15) {
            ticks.tick().await;
            for _ in 0..DRAINED / 10 / 100 {
                let mut packet = [0; 1_400];
                packet[..8].copy_from_slice(&(begin.elapsed().as_nanos() as u64).to_be_bytes());
                honest_sender.send(to, &packet).await.expect("connected");
                sent += 1;
            }
        }
        sent
    });
    let (mut waits, mut ticks) = (Vec::new(), every(DRAINED));
    while begin.elapsed() < Duration::from_secs(17) {
        ticks.tick().await;
        for _ in 0..DRAINED / 100 {
            let (from, packet) = packet(&mut receiver).await;
            if from == honest {
                let due = Duration::from_nanos(u64::from_be_bytes(*packet.first_chunk().expect("a time")));
                waits.push(begin.elapsed().saturating_sub(due));
            }
        }
    }
    flooding.abort();
    let (sent, arrived) = (sending.await.expect("no panic"), waits.len());
    let (p50, p99) = (quantile(&mut waits, 0.5), quantile(&mut waits, 0.99));
    println!(
        "an honest sender beside a flood to a key that drains {DRAINED} packets a second: {arrived} of {sent} packets arrived, \
         wait p50 {p50:?}, p99 {p99:?} (goal 250 ms, with what the kernel holds)"
    );
    assert_eq!(arrived, sent as usize);
    assert!(p99 <= Duration::from_millis(250));
}

/// The folder of a cgroup that is removed when dropped.
struct Cgroup(PathBuf);

impl Cgroup {
    fn with_memory(bytes: usize) -> Self {
        let name = format!("towpath-figures-{}", std::process::id());
        let (root, file) = if PathBuf::from("/sys/fs/cgroup/memory").is_dir() {
            ("/sys/fs/cgroup/memory", "memory.limit_in_bytes")
        } else {
            ("/sys/fs/cgroup", "memory.max")
        };
        let folder = PathBuf::from(root).join(name);
        fs::create_dir_all(&folder).expect("root, and a hierarchy for memory");
        fs::write(folder.join(file), bytes.to_string()).expect("a limit");
        Self(folder)
    }

    /// The command by which a shell enters it.
    fn enter(&self) -> String {
        format!("echo $$ > {}/cgroup.procs", self.0.display())
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        let _ = fs::remove_dir(&self.0);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "make figures"]
async fn ten_thousand_receivers_that_do_not_read_fit_into_256_mib() {
    let _alone = alone().await;
    const RECEIVERS: u64 = 9_000;
    const DROPPED: &str = "derp_packets_dropped{kind=\"other\",reason=\"memory\"}";
    let cgroup = Cgroup::with_memory(256 << 20);
    let settings = format!(
        "{PLAIN}\nlogin.max_connections_per_host = 100_000\noutbox.write_timeout = '60s'\noutbox.age = '60s'"
    );
    let relay = Process::start(&format!("ulimit -n 20000 && {}", cgroup.enter()), &settings);
    let mut pair = [plain_client(&relay, 1).await, plain_client(&relay, 2).await];
    let mut deaf = Vec::new();
    for number in 0..RECEIVERS {
        deaf.push(plain_client(&relay, 100 + number).await);
    }
    let (_, mut flooder) = plain_client(&relay, 3).await;
    // Each receiver's kernel takes some 300 KiB at first. Then the flood goes on for as long again.
    let (begin, mut full, mut most, mut exchanged) = (Instant::now(), None, 0, 0u64);
    while full.is_none_or(|full| begin.elapsed() < 2 * full) {
        assert!(begin.elapsed() < Duration::from_secs(300), "the bound is not reached: {} MiB", most >> 20);
        for some in deaf.chunks(1_000) {
            for few in some.chunks(100) {
                let batch = few.iter().flat_map(|(key, _)| vec![(*key, &[0; 1_400][..]); 64]);
                flooder.send_batch(batch).await.expect("the flooder is connected");
            }
            let [(from, sender), (to, receiver)] = &mut pair;
            sender.send(*to, &exchanged.to_be_bytes()).await.expect("the honest sender is connected");
            assert_eq!(packet(receiver).await, (*from, exchanged.to_be_bytes().to_vec()));
            exchanged += 1;
        }
        most = most.max(relay.metric("towpath_frame_memory_bytes"));
        if full.is_none() && relay.metric(DROPPED) > 0 {
            full = Some(begin.elapsed());
        }
    }
    let (resident, dropped) = (relay.resident(), relay.metric(DROPPED));
    println!(
        "{RECEIVERS} receivers that do not read, in 256 MiB: frames {} MiB at most (bound 64), resident {} MiB, {dropped} \
         packets dropped for memory, {exchanged} packets of a pair beside it and none lost",
        most >> 20,
        resident >> 20
    );
    assert!(most <= 66 << 20);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "make figures"]
async fn a_slow_watcher_of_19000_keys_costs_a_twentieth_of_a_core() {
    let _alone = alone().await;
    const KEYS: u64 = 19_000;
    let dir = tempfile::tempdir().expect("a directory");
    let key_file = dir.path().join("prober.key");
    fs::write(&key_file, "ab".repeat(32)).expect("a file");
    fs::set_permissions(&key_file, std::os::unix::fs::PermissionsExt::from_mode(0o600)).expect("a mode");
    // The kernel opens a receive window on loopback in steps of two segments of 64 KiB, which last two seconds here.
    let settings = format!(
        "{PLAIN}\nworkers = 1\noutbox.write_timeout = '20s'\nlogin.max_connections_per_host = 100_000\nlogin.max_connections = 19_700\nmesh.prober_key_file = '{}'",
        key_file.display()
    );
    let relay = Process::start("ulimit -n 20000", &settings);
    let mut keys = Vec::new();
    for number in 0..KEYS {
        keys.push(plain_client(&relay, number).await);
    }
    let http = relay.http.expect("a plain listener");
    let info = towpath_wire::derp::info::ClientInfo {
        mesh_key: Some(towpath_wire::derp::mesh::MeshKey::from_bytes([0xab; 32])),
        version: 2,
        ..Default::default()
    };
    let dialer = Dialer::plain("localhost", http.port()).at(http).with_info(info);
    let mut watcher = dialer.connect(&NodePrivate::from_random([0xf1; 32])).await.expect("a login");
    let (resting, before, begin) = (relay.resident(), relay.cpu("forward-0"), Instant::now());
    watcher.watch().await.expect("a request goes out");
    let (mut told, mut most) = (0, 0);
    // 70 KiB a second: 32 announcements of 56 bytes each 25 ms.
    while told < KEYS && begin.elapsed() < Duration::from_secs(30) {
        for _ in 0..32.min(KEYS - told) {
            told += u64::from(matches!(event(&mut watcher).await, Event::PeerPresent { .. }));
        }
        most = most.max(relay.resident());
        tokio::time::sleep(Duration::from_millis(25)).await;
    }
    let spent = relay.cpu("forward-0") - before;
    let (part, grown) = (spent.as_secs_f64() / begin.elapsed().as_secs_f64(), most.saturating_sub(resting));
    println!(
        "a watcher of {KEYS} keys that reads 70 KiB a second: {:.1} % of a core (goal 5), {} KiB more memory (goal 4,096)",
        part * 100.0,
        grown >> 10
    );
    assert!(part <= 0.05 && grown <= 4 << 20);
}

/// What a login that presents a token costs the control plane beyond its box. The worst is a forgery, for which each key is tried.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "make figures"]
async fn a_token_is_checked_in_100_us_whatever_is_wrong_with_it() {
    const NOW: i64 = 1_800_000_000;
    const CHECKS: u32 = 20_000;
    let _alone = alone().await;
    let [present, next, other] = [1, 2, 3].map(|seed| SigningKey::from_random(&[seed; 32]));
    let keys = TokenKeys::parse(&format!("{}\n{}", next.public(), present.public())).expect("keys");
    let [client, relay] = [1, 2].map(|seed| NodePublic::from_bytes([seed; 32]));
    let good = Claims { client, relay: Some(relay), expires: NOW + 1, not_before: None, issued: Some(NOW) };
    let mut worst = Duration::ZERO;
    for (what, signer, claims, expected) in [
        ("good", &present, good, None),
        ("forged", &other, good, Some(TokenError::Forged)),
        ("expired", &present, Claims { expires: NOW, ..good }, Some(TokenError::Expired)),
        ("for another key", &present, Claims { client: relay, ..good }, Some(TokenError::OtherKey)),
        ("for another relay", &present, Claims { relay: Some(client), ..good }, Some(TokenError::OtherRelay)),
    ] {
        let token = signer.issue(&claims).expect("a token");
        let begin = Instant::now();
        for _ in 0..CHECKS {
            assert_eq!(black_box(&keys).check(&token, &client, &relay, NOW).err(), expected);
        }
        let each = begin.elapsed() / CHECKS;
        println!(
            "a token that is {what}, {} characters, two keys: {each:?} (goal 100 us)",
            token.as_str().len()
        );
        worst = worst.max(each);
    }
    assert!(worst <= Duration::from_micros(100));
}
