//! Pairs that know each other's disco key and addresses from a control plane, as stock clients do. No hello is sent.

use std::time::Duration;

use towpath_disco::PeerConfig;
use towpath_disco::datagram::Region;
use towpath_sim::{Class, Direct, Pair, Stage, Timing, sweep};
use towpath_wire::time::Instant;

use super::driver::{Host, START, flow, millis, seeds, until_direct};

/// A pair to which a control plane has told keys and addresses, a second before the first packet.
fn introduced(pair: &Pair) -> Stage<Host> {
    let mut stage = pair.build(Host::alone);
    stage.world.run_until(Instant::from(START) - Duration::from_secs(1));
    let known = stage.hosts.map(|host| {
        let node = &stage.world.machine(host).node;
        PeerConfig {
            key: stage.world.key(host),
            region: Some(Region(1)),
            disco: Some(node.disco_key()),
            addresses: node.endpoints(),
            is_relay_only: false,
        }
    });
    for side in 0..2 {
        stage.world.with(stage.hosts[side], |host, now| host.node.set_peer(&known[1 - side], now));
    }
    stage
}

#[test]
fn pairs_of_a_control_plane_become_direct_without_a_hello() {
    for timing in [Timing::NEAR, Timing::FAR] {
        for one in [Class::O, Class::F, Class::A, Class::P] {
            for other in [Class::O, Class::F, Class::A, Class::P] {
                let runs = sweep(seeds().div_ceil(4), |seed| {
                    let pair = Pair::new(one, other, timing, seed as u64);
                    let mut stage = introduced(&pair);
                    let [here, there] = stage.hosts;
                    let flows = [(here, there), (there, here)]
                        .map(|(from, to)| flow(&mut stage.world, from, to, millis(2900)));
                    let direct = until_direct(&mut stage);
                    stage.world.run_until(Instant::from(START) + Duration::from_secs(4));
                    for flow in flows {
                        assert_eq!(stage.world.account(flow).missing(), 0, "{pair}");
                    }
                    assert_eq!(stage.world.verdict(here, there).direct, Direct::Must);
                    (pair, direct)
                });
                for (pair, direct) in runs {
                    // Both begin at once, so each CallMeMaybe finds the NAT of its sender open.
                    let most = timing.relay / 2 + timing.direct + millis(20);
                    assert!(direct.is_some_and(|took| took <= most), "{pair}: {direct:?}");
                }
            }
        }
    }
}
