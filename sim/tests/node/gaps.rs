//! What a pair that is direct loses when something breaks.

use std::time::Duration;

use towpath_sim::{Action, Class, Flow, Pair, Place, Stage, Timing, sweep};
use towpath_wire::time::Instant;

use super::driver::{Host, START, act, between, millis, seeds, started, udp, until_direct};

/// When something breaks: the pair has been direct for a while.
const BREAK: Duration = Duration::from_secs(6);
/// How long the data lasts, from [`START`] on: for twice the largest gap that is allowed behind the last break.
const LASTS: Duration = millis(2200);

/// The classes whose pairs are checked.
const CLASSES: [Class; 4] = [Class::O, Class::F, Class::A, Class::P];

/// The largest gap that is allowed: the patience of a path, the way over the relay, and some.
fn allowed(timing: Timing) -> Duration {
    (3 * timing.direct).max(millis(250)) + timing.relay / 2 + millis(30)
}

/// What breaks in the world of a pair.
type Breaks<'a> = &'a (dyn Fn(&Pair, &mut Stage<Host>) -> Vec<Action> + Sync);

/// The largest gap in the data of either side, when something breaks.
fn gap(pair: &Pair, breaks: Breaks<'_>) -> Duration {
    let (mut stage, flows) = started(pair, LASTS, true);
    assert!(until_direct(&mut stage).is_some(), "{pair}");
    // At another moment between two probes in each run.
    let at = Instant::from(BREAK) + millis(7 * pair.seed % 180);
    stage.world.run_until(at);
    let actions = breaks(pair, &mut stage);
    act(&mut stage, actions);
    let end = Instant::from(START + LASTS) - millis(20);
    stage.world.run_until(Instant::from(START + LASTS) + millis(500));
    let gaps = flows.iter().map(|flow| {
        let account = stage.world.account(*flow);
        assert_eq!(account.doubles, 0, "{pair}");
        account.largest_gap(at - pair.timing.relay, end)
    });
    gaps.max().unwrap()
}

fn check(breaks: Breaks<'_>) {
    let mut wide = Vec::new();
    for timing in [Timing::NEAR, Timing::FAR] {
        for one in CLASSES {
            for other in CLASSES {
                let gaps = sweep(seeds(), |seed| {
                    let pair = Pair::new(one, other, timing, seed as u64);
                    (gap(&pair, breaks), pair)
                });
                let (gap, pair) = gaps.into_iter().max_by_key(|(gap, _)| *gap).unwrap();
                if gap > allowed(timing) {
                    wide.push(format!("{pair}: a gap of {gap:?}"));
                }
            }
        }
    }
    assert!(wide.is_empty(), "{}", wide.join("\n"));
}

#[test]
fn a_direct_path_that_becomes_a_hole_is_left_in_time() {
    check(&|_, stage| between(stage, true));
}

#[test]
fn a_path_of_which_one_direction_is_blocked_is_left_in_time() {
    check(&|pair, stage| vec![between(stage, true).swap_remove(usize::from(pair.seed % 2 == 0))]);
}

#[test]
fn a_host_whose_udp_is_blocked_costs_a_moment() {
    check(&|_, stage| udp(stage, 0, true));
}

#[test]
fn a_nat_that_loses_its_mappings_costs_a_moment() {
    check(&|_, stage| {
        let nats = stage.nats.iter().flatten();
        nats.map(|nat| Action::Rebind { nat: *nat, new_ports: true }).collect()
    });
}

/// The NAT of one side forgets its mappings and the links to the relay, of which neither end hears. The largest gap in data that the
/// other side sends, or this one.
fn gap_behind_a_nat_that_forgets_all(
    pair: &Pair,
    side: usize,
    is_sender: bool,
    interval: Duration,
) -> Duration {
    let (mut stage, _) = started(pair, Duration::ZERO, false);
    let [here, there] = if is_sender == (side == 0) { stage.hosts } else { [stage.hosts[1], stage.hosts[0]] };
    let count = u64::try_from(LASTS.as_millis() / interval.as_millis()).unwrap();
    let flow = Flow { from: here, to: there, len: 100, start: Instant::from(START), interval, count };
    let flow = stage.world.add_flow(flow);
    assert!(until_direct(&mut stage).is_some(), "{pair}");
    let at = Instant::from(BREAK) + millis(7 * pair.seed % 180);
    stage.world.run_until(at);
    let nat = stage.nats[side].unwrap();
    act(&mut stage, vec![Action::Rebind { nat, new_ports: true }, Action::ForgetStreams { nat }]);
    stage.world.run_until(Instant::from(START + LASTS) + millis(500));
    let account = stage.world.account(flow);
    assert_eq!(account.doubles, 0, "{pair}");
    account.largest_gap(at, Instant::from(START + LASTS) - millis(20))
}

#[test]
fn a_nat_that_forgets_the_links_to_relays_as_well_costs_half_a_second() {
    for is_sender in [true, false] {
        for interval in [5, 20].map(millis) {
            let gap = largest_gap_behind_a_nat_that_forgets_all(is_sender, interval);
            assert!(gap <= millis(500), "sender: {is_sender}, {interval:?}: a gap of {gap:?}");
        }
    }
}

/// Fewer packets are missed later: one that is late may come yet.
#[test]
fn a_nat_that_forgets_the_links_to_relays_as_well_costs_few_packets_of_those_that_are_sent_seldom() {
    for is_sender in [true, false] {
        for interval in [100, 300].map(millis) {
            let gap = largest_gap_behind_a_nat_that_forgets_all(is_sender, interval);
            assert!(gap <= millis(300) + 3 * interval, "sender: {is_sender}, {interval:?}: a gap of {gap:?}");
        }
    }
}

fn largest_gap_behind_a_nat_that_forgets_all(is_sender: bool, interval: Duration) -> Duration {
    let gaps = sweep(seeds(), |seed| {
        let pair = Pair::new(Class::P, Class::P, Timing::NEAR, seed as u64);
        gap_behind_a_nat_that_forgets_all(&pair, seed % 2, is_sender, interval)
    });
    let gap = gaps.into_iter().max().unwrap();
    println!("is sender: {is_sender}, a packet each {interval:?}: {gap:?}");
    gap
}

/// To a network of each class. The data goes over the relay as soon as that is dialled, within the patience of the other host.
#[test]
fn a_host_that_moves_costs_a_moment() {
    check(&|pair, stage| {
        let class = CLASSES[usize::try_from(pair.seed % 4).unwrap()];
        let (place, _) = stage.add_place(0, class);
        vec![Action::Roam { host: stage.hosts[0], places: vec![place], gap: Duration::ZERO }]
    });
}

#[test]
fn the_death_of_the_relay_costs_a_direct_pair_nothing() {
    sweep(seeds(), |seed| {
        let pair = Pair::new(Class::P, Class::P, Timing::NEAR, seed as u64);
        let (mut stage, flows) = started(&pair, LASTS, true);
        until_direct(&mut stage).unwrap();
        stage.world.run_until(Instant::from(BREAK));
        stage.world.act_now(Action::KillRelay(stage.region));
        stage.world.run_until(Instant::from(START + LASTS) + millis(500));
        for flow in flows {
            assert_eq!(stage.world.account(flow).missing(), 0, "{pair}");
        }
    });
}

/// A host that gets another address goes on over the relay as soon as that is dialled, and is direct again soon after.
#[test]
fn a_host_that_moves_becomes_direct_again() {
    for timing in [Timing::NEAR, Timing::FAR] {
        sweep(seeds(), |seed| {
            let pair = Pair::new(Class::P, Class::P, timing, seed as u64);
            let (mut stage, _) = started(&pair, Duration::from_secs(4), true);
            until_direct(&mut stage).unwrap();
            stage.world.run_until(Instant::from(BREAK));
            let nat = stage.world.add_nat(Place::Internet(stage.sites[0]), Class::P.nat().unwrap());
            let places = vec![Place::Behind(nat)];
            stage.world.act_now(Action::Roam { host: stage.hosts[0], places, gap: Duration::ZERO });
            let [here, there] = stage.hosts;
            let moved = stage.world.machine(there).node.direct(&stage.world.machine(there).peer).unwrap();
            let again = stage.world.run_until_holds(Instant::from(BREAK) + Duration::from_secs(3), |world| {
                let [one, other] = [here, there].map(|host| world.machine(host));
                one.is_direct() && other.node.direct(&other.peer).is_some_and(|address| address != moved)
            });
            // The dial of the relay takes two round trips; then the offers go, and the pair is as a cold one with a STUN round trip.
            let took =
                again.unwrap_or_else(|| panic!("{pair} is not direct again")).since(Instant::from(BREAK));
            let most = timing.relay * 2 + timing.stun + timing.direct + millis(300);
            assert!(took <= most, "{pair}: {took:?}");
        });
    }
}
