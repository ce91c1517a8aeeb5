//! Direct paths that lose packets.

use std::time::Duration;

use towpath_sim::{Action, Class, FlowId, Link, Loss, Pair, Stage, Timing, Traffic, Via, sweep};
use towpath_wire::time::Instant;

use super::driver::{Host, START, seeds, started, until_direct};

/// A pair whose direct link loses this share of the packets in each direction from now on.
fn lose(stage: &mut Stage<Host>, timing: Timing, share: f64) {
    let [here, there] = stage.sites;
    let loss = if share > 0.0 { Loss::Random(share) } else { Loss::Nothing };
    stage.world.set_links(here, there, Link::new(timing.direct / 2).losing(loss, Traffic::Udp));
}

const fn after(seconds: u64) -> Instant {
    Instant::from_nanos((START.as_secs() + seconds) * 1_000_000_000)
}

/// The packets of each flow that were sent between two instants, and how many of them came by this way.
fn delivered(stage: &Stage<Host>, flows: &[FlowId], from: Instant, to: Instant, via: Via) -> Vec<usize> {
    let counted = |flow| {
        let deliveries = stage.world.account(flow).deliveries.iter();
        deliveries.filter(|one| one.via == via && (from..to).contains(&one.sent)).count()
    };
    flows.iter().map(|flow| counted(*flow)).collect()
}

#[test]
fn a_path_that_loses_clearly_more_than_the_relay_is_left_until_it_loses_little() {
    for timing in [Timing::NEAR, Timing::FAR] {
        let runs = sweep(seeds().div_ceil(2), |seed| {
            let pair = Pair::new(Class::P, Class::P, timing, seed as u64);
            let (mut stage, flows) = started(&pair, Duration::from_secs(60), true);
            until_direct(&mut stage).unwrap();
            stage.world.run_until(after(2));
            lose(&mut stage, timing, 0.3);
            stage.world.run_until(after(20));
            lose(&mut stage, timing, 0.0);
            stage.world.run_until(after(61));
            let relayed = delivered(&stage, &flows, after(10), after(20), Via::Relay);
            let direct = delivered(&stage, &flows, after(50), after(60), Via::Udp);
            (pair, relayed, direct)
        });
        for (pair, relayed, direct) in runs {
            // 500 packets were sent in each of the two times.
            assert!(
                relayed.iter().all(|count| *count == 500),
                "{pair}: {relayed:?} of 500 came over the relay"
            );
            assert!(direct.iter().all(|count| *count == 500), "{pair}: {direct:?} of 500 came directly");
        }
    }
}

#[test]
fn a_path_that_loses_one_in_twenty_is_kept() {
    let runs = sweep(seeds(), |seed| {
        let pair = Pair::new(Class::P, Class::P, Timing::NEAR, seed as u64).losing(0.025, Traffic::Udp);
        let (mut stage, flows) = started(&pair, Duration::from_secs(60), true);
        until_direct(&mut stage).unwrap();
        stage.world.run_until(after(61));
        (pair, delivered(&stage, &flows, after(2), after(60), Via::Udp))
    });
    for (pair, direct) in runs {
        // 95 % of 2,900, with room for chance.
        assert!(direct.iter().all(|count| *count > 2600), "{pair}: {direct:?} came directly");
    }
}

#[test]
fn a_path_that_loses_much_stays_in_use_where_no_relay_can_be_reached() {
    let pair = Pair::new(Class::P, Class::P, Timing::NEAR, 1);
    let (mut stage, flows) = started(&pair, Duration::from_secs(20), true);
    until_direct(&mut stage).unwrap();
    stage.world.act_now(Action::KillRelay(stage.region));
    stage.world.run_until(after(2));
    lose(&mut stage, Timing::NEAR, 0.3);
    stage.world.run_until(after(21));
    let direct = delivered(&stage, &flows, after(2), after(20), Via::Udp);
    assert!(direct.iter().all(|count| *count > 500), "{direct:?} of 900 came directly");
}
