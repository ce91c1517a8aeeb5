//! Each scenario against the relay: it ends, and its counts are right.

use towpath_loadtest::scenario::fan_in::FanInReport;
use towpath_loadtest::scenario::latency::LatencyReport;
use towpath_loadtest::scenario::own_flood::OwnFloodReport;
use towpath_loadtest::scenario::pairs::PairsReport;
use towpath_loadtest::scenario::stun::StunReport;
use towpath_loadtest::{Arrivals, PacketDamage};

use crate::support::{RelayUnderTest, assert_success};

const SHORT: [&str; 4] = ["--warm-up", "100ms", "--duration", "1s"];

#[test]
fn every_round_trip_is_completed() {
    let relay = RelayUnderTest::start();
    let load = relay.load("latency", "ping").args(["--probes", "200"]).args(SHORT).output().unwrap();
    assert_success(&load);
    let ping: LatencyReport = relay.report("ping");
    assert_eq!((ping.offered, ping.completed, ping.damage), (200, 200, PacketDamage::default()));
    assert!(ping.round_trip.count == 200 && ping.round_trip.p50 > 1000, "{:?}", ping.round_trip);
    let before = relay.counter("derp_packets_received");

    let load = relay
        .load("latency", "peer")
        .args(["--probes", "200", "--peer", "300", "--pairs", "2", "--rate", "1000", "--batch", "1"])
        .args(SHORT)
        .output()
        .unwrap();
    assert_success(&load);
    let peer: LatencyReport = relay.report("peer");
    assert_eq!((peer.offered, peer.completed, peer.damage), (200, 200, PacketDamage::default()));
    let background = peer.background.unwrap();
    assert_eq!((background.offered, background.lost()), (1000, 0));
    // A round trip by a peer goes through the relay as two packets, and a ping as none.
    let through = relay.counter("derp_packets_received");
    assert!(before == 0 && through >= 2 * 200 + 1000, "{before} and {through} packets");
}

#[test]
fn packets_of_a_flood_and_of_strangers_are_counted_separately() {
    let relay = RelayUnderTest::start();
    let load = relay
        .load("own-flood", "flood")
        .args(["--strangers", "2", "--rate", "400", "--size", "300"])
        .args(SHORT)
        .output()
        .unwrap();
    assert_success(&load);
    let OwnFloodReport { rest, flood, .. } = relay.report("flood");
    assert_eq!(
        (rest.flood, rest.damage, flood.damage),
        (0, PacketDamage::default(), PacketDamage::default())
    );
    assert!(flood.flood > 1000, "{}", flood.flood);
    for delivery in [&rest.flooder, &rest.listener, &flood.flooder, &flood.listener] {
        assert_eq!(delivery.offered, 200);
        assert!(delivery.received > 100, "{delivery:?}");
    }
    assert_eq!((rest.flooder.received, rest.listener.received), (200, 200));
}

#[test]
fn drops_for_a_receiver_that_never_reads_are_listed_by_reason() {
    let relay = RelayUnderTest::start();
    let load = relay
        .load("fan-in", "fan-in")
        .args(["--senders", "6", "--receivers", "3", "--size", "1400", "--metrics", &relay.metrics()])
        .args(SHORT)
        .output()
        .unwrap();
    assert_success(&load);
    let report: FanInReport = relay.report("fan-in");
    assert_eq!(report.damage, PacketDamage::default());
    assert_eq!(report.delivered_to.keys().copied().collect::<Vec<_>>(), [1, 2]);
    assert!(report.delivered_to.values().all(|packets| *packets > 100), "{:?}", report.delivered_to);
    // The queue of the receiver that never reads is bounded, so packets were dropped. Each reason has its own metric.
    let drops = report.drops.unwrap();
    assert!(drops.iter().any(|(name, count)| name.contains("reason=") && *count > 0.0), "{drops:?}");
}

#[test]
fn stun_answers_are_counted() {
    let relay = RelayUnderTest::start();
    let load =
        relay.load_stun("stun").args(["--sockets", "10", "--window", "2"]).args(SHORT).output().unwrap();
    assert_success(&load);
    let report: StunReport = relay.report("stun");
    assert!(report.answers > 100, "{}", report.answers);
    assert_eq!((report.wrong, report.latency.count), (0, report.answers));
    assert!(report.server.unwrap().cpu > 0);
}

#[test]
fn a_closed_loop_loses_nothing_within_or_across_workers() {
    for placement in ["within", "across"] {
        let relay = RelayUnderTest::start();
        let load = relay
            .load("pairs", "pairs")
            .args(["--pairs", "4", "--batch", "4", "--window", "8", "--placement", placement])
            .args(SHORT)
            .output()
            .unwrap();
        assert_success(&load);
        let report: PairsReport = relay.report("pairs");
        assert!(report.closed && report.delivered > 100, "{report:?}");
        assert_eq!((report.lost(), report.damage), (0, PacketDamage::default()));
    }
}

#[test]
fn a_seed_of_poisson_arrivals_repeats_a_load() {
    let relay = RelayUnderTest::start();
    let offered = [7, 7, 8].map(|seed| {
        let load = relay
            .load("pairs", "pairs")
            .args(["--pairs", "4", "--batch", "1", "--rate", "1000", "--senders", "2"])
            .args(["--arrivals", "poisson", "--seed", &seed.to_string()])
            .args(SHORT)
            .output()
            .unwrap();
        assert_success(&load);
        let table = String::from_utf8(load.stdout).unwrap();
        assert!(table.contains(&format!("Poisson, seed {seed}\n")), "{table}");
        let report: PairsReport = relay.report("pairs");
        assert_eq!(report.arrivals, Some(Arrivals::Poisson { seed }));
        assert_eq!((report.lost(), report.damage), (0, PacketDamage::default()));
        report.offered
    });
    assert!(offered[0] == offered[1] && offered[0] != offered[2], "{offered:?}");
    // Five standard deviations of a Poisson process of 1,000 packets.
    assert!(offered.iter().all(|offered| offered.abs_diff(1000) < 158), "{offered:?}");
}
