//! What a pair sends when it has nothing to send, and that equal seeds lead to equal runs.

use std::time::Duration;

use towpath_sim::{Class, Pair, Timing, Traffic, sweep};
use towpath_wire::time::Instant;

use super::driver::{START, millis, started, until_direct};

#[test]
fn an_idle_pair_sends_a_packet_each_way_in_20_seconds_at_most_and_stays_direct() {
    for one in [Class::O, Class::A, Class::P] {
        let pair = Pair::new(one, Class::P, Timing::NEAR, 1);
        let (mut stage, _) = started(&pair, Duration::from_secs(1), true);
        until_direct(&mut stage).unwrap();
        let begin = Instant::from(START) + Duration::from_secs(60);
        stage.world.run_until(begin);
        let before = stage.hosts.map(|host| stage.world.sent(host).probes_to(|to| to.port() != 3478).packets);
        stage.world.run_until(begin + Duration::from_secs(300));
        for (host, before) in stage.hosts.into_iter().zip(before) {
            let sent = stage.world.sent(host).probes_to(|to| to.port() != 3478).packets - before;
            assert!((8..=15).contains(&sent), "{pair}: {host} has sent {sent}");
            assert!(stage.world.machine(host).is_direct(), "{pair}: {host}");
        }
    }
}

#[test]
fn the_same_seed_leads_to_the_same_run() {
    let hash = |seed| {
        let pair = Pair::new(Class::P, Class::Poisonable, Timing::FAR, seed).losing(0.05, Traffic::Udp);
        let (mut stage, _) = started(&pair, millis(1000), true);
        stage.world.run_until(Instant::from(START) + Duration::from_secs(3));
        stage.world.trace_hash()
    };
    let hashes = sweep(20, |seed| hash(seed as u64));
    assert_eq!(hashes, sweep(20, |seed| hash(seed as u64)));
    assert!(hashes.windows(2).all(|pair| pair[0] != pair[1]));
}
