//! Cold pairs: which become direct, in which time, and what that costs.

use std::sync::LazyLock;
use std::time::Duration;

use towpath_sim::{Class, Delivery, Direct, Pair, Spread, Timing, Traffic, Verdict, sweep};
use towpath_wire::time::Instant;

use super::driver::{START, millis, seeds, started, until_direct};

/// What came of a run.
struct Run {
    pair: Pair,
    verdict: Verdict,
    direct: Option<Duration>,
    /// From the first packet to its arrival.
    first: Option<Duration>,
    missing: u64,
    doubles: u64,
    /// Bytes over the relay besides the data, and bytes of probes on UDP to other hosts than STUN servers, of both sides.
    signalling: u64,
    probing: u64,
}

fn run(pair: Pair) -> Run {
    let (mut stage, flows) = started(&pair, millis(2900), false);
    let [here, there] = stage.hosts;
    let verdict = stage.world.verdict(here, there);
    let direct = until_direct(&mut stage);
    // Those on their way arrive.
    stage.world.run_until(stage.world.now() + millis(500));
    let end = Instant::from(START) + millis(3500);
    if direct.is_none() {
        stage.world.run_until(end);
    }
    let account = stage.world.account(flows[0]);
    let in_flight = u64::try_from(pair.timing.relay.as_millis() / 20 + 1).unwrap();
    let sent = stage.hosts.map(|host| stage.world.sent(host).clone());
    Run {
        pair,
        verdict,
        direct,
        first: account.first().map(Delivery::delay),
        missing: account.missing().saturating_sub(if direct.is_some() { in_flight } else { 0 }),
        doubles: account.doubles,
        signalling: sent.iter().map(|sent| sent.signalling.bytes).sum(),
        probing: sent.iter().map(|sent| sent.probes_to(|to| to.port() != 3478).bytes).sum(),
    }
}

/// The runs without loss, which several tests look at.
static CLEAN: LazyLock<Vec<Vec<Run>>> = LazyLock::new(|| all(0.0));

fn all(loss: f64) -> Vec<Vec<Run>> {
    let mut rows = Vec::new();
    for timing in [Timing::NEAR, Timing::FAR] {
        for one in Class::ALL {
            for other in Class::ALL {
                let seeded = |seed| Pair::new(one, other, timing, seed as u64).losing(loss, Traffic::Udp);
                rows.push(sweep(seeds(), |seed| run(seeded(seed))));
            }
        }
    }
    rows
}

fn times(row: &[Run]) -> Spread {
    row.iter().filter_map(|run| run.direct).collect()
}

/// Whether the side that sends first has a port for each destination. The other side learns that port from its first probe, at
/// R + D/2, so that it cannot be direct before R + 3/2 D.
fn begins_hard(pair: &Pair) -> bool {
    [Class::M, Class::S, Class::B, Class::R].contains(&pair.classes[0])
}

#[test]
fn every_pair_that_must_become_direct_does_at_r_plus_d_and_loses_nothing() {
    for row in CLEAN.iter() {
        let Run { pair, verdict, .. } = &row[0];
        let Timing { relay, direct, .. } = pair.timing;
        for run in row {
            assert_eq!(run.direct.is_some(), verdict.direct == Direct::Must, "{}", run.pair);
            assert_eq!((run.missing, run.doubles), (0, 0), "{}", run.pair);
            assert!(run.first.is_some_and(|first| first <= relay / 2 + millis(5)), "{}", run.pair);
        }
        let Some(median) = times(row).median() else { continue };
        let late = if begins_hard(pair) { direct / 2 } else { Duration::ZERO };
        assert!(median <= relay + direct + late + millis(10), "{pair}: median {median:?}");
        let p99 = times(row).p99().unwrap();
        assert!(p99 <= relay + direct + late + millis(60), "{pair}: p99 {p99:?}");
    }
}

#[test]
fn loss_costs_milliseconds() {
    for row in all(0.05) {
        let Run { pair, verdict, .. } = &row[0];
        if verdict.direct != Direct::Must {
            continue;
        }
        for run in &row {
            assert!(run.direct.is_some() && run.doubles == 0, "{}", run.pair);
        }
        let p99 = times(&row).p99().unwrap();
        assert!(p99 <= pair.timing.relay + pair.timing.direct + millis(150), "{pair}: p99 {p99:?}");
    }
}

#[test]
fn a_cold_pair_costs_few_bytes() {
    for row in CLEAN.iter() {
        for run in row {
            assert!(run.signalling <= 900, "{}: {} bytes over the relay", run.pair, run.signalling);
            if run.verdict.direct == Direct::Cannot {
                assert!(run.probing <= 2048, "{}: {} bytes of probes", run.pair, run.probing);
            }
        }
    }
}

/// Runs one pair again, and prints what happened.
#[test]
#[ignore = "needs TOWPATH_SIM_PAIR"]
fn one_pair() {
    let pair: Pair = std::env::var("TOWPATH_SIM_PAIR").unwrap().parse().unwrap();
    let (mut stage, _) = started(&pair, millis(2900), false);
    stage.world.keep_trace();
    let direct = until_direct(&mut stage);
    stage.world.run_until(stage.world.now() + millis(500));
    println!("{}", stage.world.trace_text());
    for host in stage.hosts {
        let Some(why) =
            stage.world.machine(host).node.why(&stage.world.machine(host).peer, stage.world.now())
        else {
            continue;
        };
        println!("{host}: {why}");
    }
    println!("direct after {direct:?}");
}
