//! Peers that met before: their path was given up, and the NATs still hold the mappings of both.

use std::time::Duration;

use towpath_sim::{Class, Pair, Spread, Timing, sweep};
use towpath_wire::time::Instant;

use super::driver::{act, between, flow_since, millis, seeds, started, until_direct, until_direct_since};

/// When nothing passes between the two any more.
const BLOCKED: Duration = Duration::from_secs(7);
/// How long the first data lasts: the path is suspected by then, and is given up while nothing is sent.
const LASTS: Duration = millis(2500);
/// When packets pass again.
const UNBLOCKED: Duration = Duration::from_secs(13);
/// When data is sent again.
const AGAIN: Duration = Duration::from_secs(15);

/// The time from the first packet after a while until the pair is direct again.
fn again(pair: &Pair) -> Duration {
    let (mut stage, _) = started(pair, LASTS, true);
    assert!(until_direct(&mut stage).is_some(), "{pair}");
    for (at, blocked) in [(BLOCKED, true), (UNBLOCKED, false)] {
        stage.world.run_until(Instant::from(at));
        let actions = between(&stage, blocked);
        act(&mut stage, actions);
    }
    // At another moment of what the nodes do by themselves in each run.
    let begin = Instant::from(AGAIN) + millis(7 * pair.seed);
    stage.world.run_until(begin - millis(1));
    let [here, there] = stage.hosts;
    for host in stage.hosts {
        assert!(!stage.world.machine(host).is_direct(), "{pair}: {host} has given the path up");
    }
    for nat in stage.nats.into_iter().flatten() {
        assert!(stage.world.mappings(nat) > 0, "{pair}: {nat} holds the mapping");
    }
    let flow = flow_since(&mut stage.world, here, there, begin, Duration::from_secs(1));
    let direct = until_direct_since(&mut stage, begin, Duration::from_secs(3));
    stage.world.run_until(begin + Duration::from_secs(2));
    let account = stage.world.account(flow);
    assert_eq!((account.missing(), account.doubles), (0, 0), "{pair}");
    direct.unwrap_or_else(|| panic!("{pair} is not direct again"))
}

#[test]
fn peers_that_met_before_are_direct_after_a_direct_round_trip_and_half_a_relayed_one() {
    for timing in [Timing::NEAR, Timing::FAR] {
        for one in [Class::O, Class::F, Class::A, Class::P] {
            for other in [Class::O, Class::F, Class::A, Class::P] {
                let pair = |seed| Pair::new(one, other, timing, seed as u64);
                let times: Spread = sweep(seeds(), |seed| again(&pair(seed))).into_iter().collect();
                let median = times.median().unwrap();
                let most = timing.relay / 2 + timing.direct + millis(10);
                assert!(median <= most, "{}: median {median:?}", pair(0));
            }
        }
    }
}
