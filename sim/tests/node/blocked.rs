//! Networks that let no UDP out, and captive portals, which let nothing out until someone has logged in.

use std::time::Duration;

use towpath_sim::{Action, Class, Delivery, FlowId, Link, Pair, Stage, Timing, Traffic, Via, World, sweep};
use towpath_wire::time::Instant;

use super::driver::{Host, START, act, millis, seeds, started, started_in, udp, until_direct_since};

/// Packets of a host besides data, in its first 25 s in a network that lets none out: questions to STUN servers, two rounds of
/// four to each of two, and what the attempts cost.
const FEW: u64 = 40;

/// Two hosts behind home routers, of which one sends. All UDP of the one at `side` is blocked.
fn blocked(pair: &Pair, side: usize) -> (Stage<Host>, FlowId) {
    let mut stage = pair.build(Host::new);
    let actions = udp(&stage, side, true);
    act(&mut stage, actions);
    let (stage, flows) = started_in(stage, Duration::from_secs(65), false);
    (stage, flows[0])
}

fn check_few(stage: &Stage<Host>, pair: &Pair) {
    for host in stage.hosts {
        let sent = stage.world.sent(host);
        let packets = sent.probes_to(|_| true).packets + sent.signalling.packets;
        assert!(packets <= FEW, "{pair}: {host} has sent {sent:?}");
    }
}

/// The time until two peers are direct that can be: a STUN round trip, and hellos in both directions of which the second one
/// is answered.
fn most(timing: Timing) -> Duration {
    timing.stun + 2 * timing.relay + timing.direct + millis(10)
}

fn each_pair(check: impl Fn(&Pair) + Sync) {
    for timing in [Timing::NEAR, Timing::FAR] {
        sweep(seeds().div_ceil(4), |seed| check(&Pair::new(Class::P, Class::P, timing, seed as u64)));
    }
}

/// Data goes over the relay, and the pair is direct when the side that sends makes its next attempt: when a STUN server answers
/// again, which are asked each 23 s, where its own UDP was blocked, and else after 1 s, 10 s, 20 s and 60 s.
#[test]
fn a_pair_of_which_one_side_had_its_udp_blocked_is_direct_at_the_next_attempt() {
    let start = Instant::from(START);
    for (side, attempt) in [(0, Duration::from_secs(23)), (1, Duration::from_secs(31))] {
        each_pair(|pair| {
            let (mut stage, flow) = blocked(pair, side);
            let until = Duration::from_secs(20) + millis(7 * pair.seed);
            assert_eq!(until_direct_since(&mut stage, start, until), None, "{pair}");
            let account = stage.world.account(flow);
            let first = account.first().map(Delivery::delay);
            assert!(
                first.is_some_and(|first| first <= pair.timing.relay / 2 + millis(5)),
                "{pair}: {first:?}"
            );
            assert_eq!(account.delivered(Via::Udp), 0, "{pair}");
            check_few(&stage, pair);
            let actions = udp(&stage, side, false);
            act(&mut stage, actions);
            let took = until_direct_since(&mut stage, start, attempt + Duration::from_secs(3));
            assert!(took.is_some_and(|took| took <= attempt + most(pair.timing)), "{pair}: {took:?}");
        });
    }
}

#[test]
fn a_host_that_moves_to_a_network_with_udp_is_direct_soon() {
    for timing in [Timing::NEAR, Timing::FAR] {
        sweep(seeds().div_ceil(4), |seed| {
            let pair = Pair::new(Class::X, Class::P, timing, seed as u64);
            let (mut stage, _) = started(&pair, Duration::from_secs(15), false);
            let moves = Instant::from(START) + Duration::from_secs(10) + millis(7 * pair.seed);
            stage.world.run_until(moves);
            let (place, _) = stage.add_place(0, Class::P);
            stage.world.act_now(Action::Roam { host: stage.hosts[0], places: vec![place], gap: millis(50) });
            let took = until_direct_since(&mut stage, moves, Duration::from_secs(3));
            // The relay is dialled anew in two round trips to it.
            let most = millis(50) + pair.timing.relay + most(pair.timing);
            assert!(took.is_some_and(|took| took <= most), "{pair}: {took:?}");
        });
    }
}

/// A host behind a captive portal reaches neither its relay nor any other host.
fn portal(stage: &mut Stage<Host>, side: usize, is_closed: bool) {
    let (here, relay) = (stage.sites[side], stage.relay);
    for (from, to) in [(here, relay), (relay, here)] {
        let link = stage.world.link(from, to);
        let applies_to = if is_closed { Traffic::Everything } else { Traffic::Udp };
        let link = Link { blocked: is_closed, applies_to, ..link };
        stage.world.act_now(Action::SetLink { from, to, link });
    }
    let actions = udp(stage, side, is_closed);
    act(stage, actions);
}

#[test]
fn a_pair_behind_a_captive_portal_is_relayed_as_soon_as_the_link_is_up_and_then_direct() {
    for side in [0, 1] {
        each_pair(|pair| {
            let mut stage = pair.build(Host::new);
            portal(&mut stage, side, true);
            let (mut stage, flows) = started_in(stage, Duration::from_secs(25), true);
            let login = Instant::from(START) + Duration::from_secs(20) + millis(7 * pair.seed);
            stage.world.run_until(login);
            check_few(&stage, pair);
            portal(&mut stage, side, false);
            let (host, region) = (stage.hosts[side], stage.region);
            let is_up = |world: &World<Host>| world.is_connected(host, region);
            let up = stage.world.run_until_holds(login + Duration::from_secs(5), is_up).unwrap();
            let took = until_direct_since(&mut stage, up, Duration::from_secs(3));
            assert!(took.is_some_and(|took| took <= most(pair.timing)), "{pair}: {took:?}");
            for flow in flows {
                let first = stage.world.account(flow).first().unwrap();
                assert_eq!(first.via, Via::Relay, "{pair}");
                let after = first.at.since(up);
                assert!(
                    after <= pair.timing.relay / 2 + millis(25),
                    "{pair}: {after:?} after the link is up"
                );
            }
        });
    }
}
