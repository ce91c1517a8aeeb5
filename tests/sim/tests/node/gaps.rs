//! What a pair that is direct loses when something breaks.

use std::time::Duration;

use towpath_sim::{Action, Class, Pair, Place, Timing, sweep};
use towpath_wire::time::Instant;

use super::driver::{START, millis, seeds, started, until_direct};

/// When something breaks: the pair has been direct for a while.
const BREAK: Duration = Duration::from_secs(9);
const LASTS: Duration = Duration::from_secs(12);

/// The largest gap that is allowed: the patience of a path, the way over the relay, and some.
fn allowed(timing: Timing) -> Duration {
    (3 * timing.direct).max(millis(250)) + timing.relay / 2 + millis(30)
}

fn check(
    what: &str,
    classes: &[Class],
    breaks: impl Fn(&towpath_sim::Stage<super::driver::Host>) -> Vec<Action> + Sync,
) {
    for timing in [Timing::NEAR, Timing::FAR] {
        for one in classes {
            for other in classes {
                let gaps = sweep(seeds().div_ceil(4), |seed| {
                    let pair = Pair::new(*one, *other, timing, seed as u64);
                    let (mut stage, flows) = started(&pair, LASTS, true);
                    assert!(until_direct(&mut stage).is_some(), "{pair}");
                    // At another moment between two probes in each run.
                    let at = Instant::from(BREAK) + millis(7 * seed as u64);
                    stage.world.run_until(at);
                    for action in breaks(&stage) {
                        stage.world.act_now(action);
                    }
                    let end = Instant::from(START + LASTS) - millis(20);
                    stage.world.run_until(Instant::from(START + LASTS) + millis(500));
                    (
                        pair,
                        flows
                            .iter()
                            .map(|flow| {
                                let account = stage.world.account(*flow);
                                assert_eq!(account.doubles, 0, "{pair}");
                                account.largest_gap(at - timing.relay, end)
                            })
                            .max()
                            .unwrap(),
                    )
                });
                for (pair, gap) in gaps {
                    assert!(gap <= allowed(timing), "{what}: {pair}: a gap of {gap:?}");
                }
            }
        }
    }
}

#[test]
fn a_direct_path_that_becomes_a_hole_is_left_in_time() {
    check("black hole", &[Class::O, Class::P], |stage| {
        let [from, to] = stage.sites;
        vec![Action::Block { from, to, blocked: true }, Action::Block { from: to, to: from, blocked: true }]
    });
}

#[test]
fn a_path_of_which_one_direction_is_blocked_is_left_in_time() {
    check("one direction", &[Class::O, Class::P], |stage| {
        let [from, to] = stage.sites;
        vec![Action::Block { from, to, blocked: true }]
    });
}

#[test]
fn a_nat_that_loses_its_mappings_costs_a_moment() {
    check("rebind", &[Class::A, Class::P], |stage| {
        stage.nats.iter().flatten().map(|nat| Action::Rebind { nat: *nat, new_ports: true }).collect()
    });
}

#[test]
fn the_death_of_the_relay_costs_a_direct_pair_nothing() {
    for seed in 0..seeds() {
        let pair = Pair::new(Class::P, Class::P, Timing::NEAR, seed as u64);
        let (mut stage, flows) = started(&pair, LASTS, true);
        until_direct(&mut stage).unwrap();
        stage.world.run_until(Instant::from(BREAK));
        stage.world.act_now(Action::KillRelay(stage.region));
        stage.world.run_until(Instant::from(START + LASTS) + millis(500));
        for flow in flows {
            assert_eq!(stage.world.account(flow).missing(), 0, "{pair}");
        }
    }
}

/// A host that gets another address goes on over the relay as soon as that is dialled, and is direct again soon after.
#[test]
fn a_host_that_moves_becomes_direct_again() {
    for timing in [Timing::NEAR, Timing::FAR] {
        for seed in 0..seeds() {
            let pair = Pair::new(Class::P, Class::P, timing, seed as u64);
            let (mut stage, _) = started(&pair, LASTS, true);
            until_direct(&mut stage).unwrap();
            stage.world.run_until(Instant::from(BREAK));
            let nat = stage.world.add_nat(Place::Internet(stage.sites[0]), Class::P.nat().unwrap());
            let places = vec![Place::Behind(nat)];
            stage.world.act_now(Action::Roam { host: stage.hosts[0], places, gap: Duration::ZERO });
            let [here, there] = stage.hosts;
            let moved = stage.world.machine(there).node.direct(&stage.world.machine(there).peer).unwrap();
            let again = stage.world.run_until_holds(Instant::from(START + LASTS), |world| {
                let [one, other] = [here, there].map(|host| world.machine(host));
                one.is_direct() && other.node.direct(&other.peer).is_some_and(|address| address != moved)
            });
            // The dial of the relay takes two round trips; then the offers go, and the pair is as a cold one with a STUN round trip.
            let took =
                again.unwrap_or_else(|| panic!("{pair} is not direct again")).since(Instant::from(BREAK));
            let most = timing.relay * 2 + timing.stun + timing.direct + millis(300);
            assert!(took <= most, "{pair}: {took:?}");
        }
    }
}
