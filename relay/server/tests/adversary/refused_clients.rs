//! Clients that are refused and dial again at once, with one key and with many.

#![allow(clippy::print_stdout, reason = "a figure is for a person to read")]

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval};
use towpath_wire::key::NodePrivate;

use crate::alone;
use crate::attacker::{log_in, log_in_at, private, refused, secured_at};
use crate::common::process::{Process, key};
use crate::common::{Relay, trusting_anyone};
use crate::honest::Pair;

/// The key of the client that the relay admits, beside those of the honest pair.
const ADMITTED: u64 = 1 << 32;

#[tokio::test(flavor = "multi_thread")]
async fn refused_clients_that_hammer_disturb_no_pair_and_keep_no_client_out() {
    let _alone = alone().await;
    let folder = tempfile::tempdir().expect("a folder");
    let pair = [0xa1, 0xa2].map(|seed| NodePrivate::from_random([seed; 32]));
    let list = allow_list(folder.path(), pair.into_iter().chain([private(ADMITTED)]));
    let relay = Arc::new(Relay::start(&format!("allow_list.file = '{}'", list.display())));
    let mut pair = Pair::new(&relay).await;
    let config = Arc::new(trusting_anyone());
    let mut attackers = JoinSet::new();
    for attacker in 0..8_u64 {
        let (relay, config) = (relay.clone(), config.clone());
        attackers.spawn(async move {
            for dial in 0..60 {
                // Half of them have one key each, the others a new one for each dial.
                let key = if attacker < 4 { attacker } else { attacker * 1000 + dial };
                assert!(log_in(9, key, &relay, &config).await.is_none(), "it is refused");
            }
        });
    }
    for _ in 0..10 {
        pair.exchange(50).await;
        assert!(log_in(9, ADMITTED, &relay, &config).await.is_some(), "an admitted client of the same host");
        assert!(log_in(10, ADMITTED, &relay, &config).await.is_some(), "a client of another host");
    }
    attackers.join_all().await;
    pair.exchange(50).await;
    relay.wait("the last is closed", |relay| relay.metric("towpath_pending_connections") == 0);
    let [asked, before, rate] =
        ["not_admitted", "refused_before", "refusal_rate"].map(|why| refused(&relay, why));
    assert_eq!(asked + before + rate, 480, "each dial is counted under its reason");
    assert!(before >= 120, "the same key is not asked about within 5 s: {before}");
}

/// Dials from one host at 1,000 a second for 5 s, and returns the CPU time of the control plane for a second of it.
async fn cost_of_dials(relay: &Process, log_in: bool) -> Duration {
    const SECONDS: u32 = 5;
    let config = Arc::new(trusting_anyone());
    let mut ticks = interval(Duration::from_millis(1));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let (before, begin) = (relay.cpu("control"), Instant::now());
    let mut dials = JoinSet::new();
    for dial in 0..u64::from(1000 * SECONDS) {
        ticks.tick().await;
        let (to, config): (SocketAddr, _) = (relay.listen, config.clone());
        dials.spawn(async move {
            if log_in {
                assert!(log_in_at(9, dial % 3, to, &config).await.is_none(), "it is refused");
            } else {
                let _secured = secured_at(9, to, &config).await;
            }
        });
    }
    let took = begin.elapsed();
    dials.join_all().await;
    println!("  5,000 dials in {took:?}");
    (relay.cpu("control") - before) / SECONDS
}

fn allow_list(folder: &Path, keys: impl Iterator<Item = NodePrivate>) -> PathBuf {
    let list = folder.join("allowed");
    fs::write(&list, keys.map(|key| format!("{}\n", key.public())).collect::<String>()).expect("a file");
    list
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "make figures"]
async fn a_thousand_refused_dials_a_second_cost_a_tenth_of_a_core_beyond_their_handshakes() {
    let _alone = alone().await;
    let folder = tempfile::tempdir().expect("a folder");
    let list = allow_list(folder.path(), [key(1)].into_iter());
    let relay = Process::start("ulimit -n 20000", &format!("allow_list.file = '{}'", list.display()));
    let handshakes = cost_of_dials(&relay, false).await;
    let admitted = async {
        tokio::time::sleep(Duration::from_secs(2)).await;
        let begin = Instant::now();
        relay.log_in(1).await.expect("an admitted client of the same host");
        begin.elapsed()
    };
    let (refused, took) = tokio::join!(cost_of_dials(&relay, true), admitted);
    let beyond = refused.saturating_sub(handshakes);
    println!(
        "1,000 refused dials a second from one host: {:.1} % of a core, {:.1} % of it for TLS handshakes alone, {:.1} % beyond \
         (goal 10); an admitted client of the same host logs in within {took:?} (goal 1 s)",
        refused.as_secs_f64() * 100.0,
        handshakes.as_secs_f64() * 100.0,
        beyond.as_secs_f64() * 100.0,
    );
    assert!(beyond <= Duration::from_millis(100) && took <= Duration::from_secs(1));
}
