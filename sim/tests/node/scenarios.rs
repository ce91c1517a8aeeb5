//! Scenarios that are drawn: whatever happens to a pair, it recovers.
//!
//! `TOWPATH_SIM_SCENARIO="P P 80 40 50 0 udp 7, 3000 kill, 6000 restore"` runs one again with a trace.

use std::time::Duration;

use towpath_sim::{Direct, Fault, Flow, FlowId, Scenario, Stage, Traffic, sweep};
use towpath_wire::time::Instant;

use super::driver::{Host, START, millis, seeds};

/// How long a pair has for its recovery: a NAT remembers an early packet for 30 s, and an address that does not answer gets few
/// probes a minute.
const RECOVERY: Duration = Duration::from_secs(150);

/// The window at the end in which data must arrive.
const WINDOW: Duration = Duration::from_secs(3);

fn built(scenario: &Scenario) -> (Stage<Host>, Vec<FlowId>, Instant) {
    let mut stage = scenario.build(Host::new);
    let end = scenario.last_fault().unwrap_or_default().max(Instant::from(START)) + RECOVERY;
    let (start, interval) = (Instant::from(START), millis(20));
    let count = u64::try_from((end.since(start)).as_millis() / 20).unwrap();
    let [here, there] = stage.hosts;
    let flows = [(here, there), (there, here)]
        .map(|(from, to)| stage.world.add_flow(Flow { from, to, len: 100, start, interval, count }));
    (stage, flows.to_vec(), end)
}

/// What is wrong at the end of a scenario.
fn wrong(scenario: &Scenario) -> Option<String> {
    let (mut stage, flows, end) = built(scenario);
    stage.world.run_until(end);
    let [here, there] = stage.hosts;
    let world = &stage.world;
    // A stream that loses packets may well pause for seconds.
    let pauses = scenario.pair.loss > 0.0 && scenario.pair.lost == Traffic::Everything;
    let sleeps = scenario.faults.iter().any(|(_, fault)| matches!(fault, Fault::Suspend { .. }));
    for flow in &flows {
        let account = world.account(*flow);
        // A copy that waited on a relay, because its receiver slept or its stream lost packets, comes later than doubles are
        // remembered.
        if account.doubles > 0 && !sleeps && !pauses || world.strays() > 0 {
            return Some(format!("{} doubles, {} strays", account.doubles, world.strays()));
        }
    }
    let relay = |(_, fault): &&(u64, Fault)| matches!(fault, Fault::Kill | Fault::Silence | Fault::Restore);
    let last = scenario.faults.iter().rfind(relay);
    if last.is_some_and(|(_, fault)| *fault != Fault::Restore) {
        return None;
    }
    for flow in flows.iter().filter(|_| !pauses) {
        let gap = world.account(*flow).largest_gap(end - WINDOW, end);
        if gap > WINDOW / 2 {
            return Some(format!("a gap of {gap:?} at the end"));
        }
    }
    let direct = [here, there].map(|host| world.machine(host).is_direct());
    // A NAT that takes early packets and forgets its mappings while both sides send has a wrong one for as long as it is used.
    let is_poisoned = scenario.pair.is_poisonable()
        && scenario.faults.iter().any(|(_, fault)| matches!(fault, Fault::Rebind { .. }));
    if is_poisoned {
        return None;
    }
    let must = world.verdict(here, there).direct;
    (must == Direct::Must && direct != [true, true]).then(|| format!("direct: {direct:?}"))
}

#[test]
fn whatever_happens_to_a_pair_it_recovers() {
    let failures: Vec<String> = sweep(2 * seeds(), |seed| {
        let scenario = Scenario::random(seed as u64);
        let reason = wrong(&scenario)?;
        let small = scenario.shrink(|scenario| wrong(scenario).is_some());
        Some(format!("{small}: {}, at first {reason}", wrong(&small).unwrap_or_default()))
    })
    .into_iter()
    .flatten()
    .collect();
    assert!(failures.is_empty(), "{} of {}:\n{}", failures.len(), 2 * seeds(), failures.join("\n"));
}

#[test]
fn one_scenario() {
    let Ok(text) = std::env::var("TOWPATH_SIM_SCENARIO") else { return };
    let scenario: Scenario = text.parse().expect("a scenario as it is printed");
    let (mut stage, _, end) = built(&scenario);
    stage.world.keep_trace();
    stage.world.run_until(end);
    println!("{}\n{}\n{:?}", stage.world.script(), stage.world.trace_text(), wrong(&scenario));
}
