//! A peer that starts anew: it has another disco key, and knows nothing of the path.

use std::time::Duration;

use towpath_disco::NodeConfig;
use towpath_disco::datagram::RelayEvent;
use towpath_sim::{Class, Pair, Timing};
use towpath_wire::time::Instant;

use super::driver::{Host, START, config, flow, millis, seeds, until_direct};

const RESTART: Duration = Duration::from_secs(9);
const LASTS: Duration = Duration::from_secs(8);

#[test]
fn a_peer_that_starts_anew_costs_a_moment_and_is_direct_again() {
    for timing in [Timing::NEAR, Timing::FAR] {
        for class in [Class::O, Class::P, Class::Poisonable] {
            for seed in 0..seeds().div_ceil(4) {
                let pair = Pair::new(class, Class::P, timing, seed as u64);
                let mut configs = Vec::new();
                let mut stage = pair.build(|mut seat| {
                    configs.push(config(&seat.private, &mut seat.random, &seat.stun, seat.region));
                    Host::of(configs[configs.len() - 1].clone(), seat.peer)
                });
                let [here, there] = stage.hosts;
                let flows =
                    [(here, there), (there, here)].map(|(from, to)| flow(&mut stage.world, from, to, LASTS));
                assert!(until_direct(&mut stage).is_some(), "{pair}");
                let restart = Instant::from(RESTART);
                stage.world.run_until(restart);
                let (addresses, region) = (stage.world.addresses(there), stage.region);
                let anew = NodeConfig { seed: [9; 32], ..configs.swap_remove(1) };
                stage.world.with(there, |host, now| {
                    *host = Host::of(anew, host.peer);
                    host.node.handle_interfaces(now, &addresses);
                    host.node.handle_relay(now, RelayEvent::Up(region));
                });
                let end = Instant::from(START + LASTS);
                let again = stage.world.run_until_holds(end, |world| {
                    [here, there].iter().all(|host| world.machine(*host).is_direct())
                });
                let took = again.map(|at| at.since(restart));
                let most = timing.relay * 3 / 2 + timing.direct + millis(60);
                assert!(took.is_some_and(|took| took <= most), "{pair}: direct after {took:?}");
                stage.world.run_until(end + millis(500));
                // The hello comes over the relay, and so does what is sent after it.
                let allowed = timing.relay + millis(40);
                for flow in flows {
                    let account = stage.world.account(flow);
                    let gap = account.largest_gap(restart - timing.relay, end - millis(20));
                    assert!(gap <= allowed && account.doubles == 0, "{pair}: a gap of {gap:?}");
                }
                assert!([here, there].iter().all(|host| stage.world.machine(*host).is_direct()), "{pair}");
            }
        }
    }
}
