//! A storm of connects does not disturb established connections.

use std::io::{BufRead, BufReader};
use std::process::Stdio;

use towpath_loadtest::PacketDamage;
use towpath_loadtest::scenario::pairs::PairsReport;
use towpath_loadtest::scenario::storm::StormReport;

use crate::support::{RelayUnderTest, assert_success};

/// Makes 2,000 full handshakes and logins while 10 pairs exchange 20,000 packets a second.
#[test]
#[cfg_attr(debug_assertions, ignore = "a budget of the release build")]
fn no_packet_is_lost_in_a_storm_of_connects() {
    let relay = RelayUnderTest::start();
    let mut pairs = relay
        .load("pairs", "pairs")
        .args(["--pairs", "10", "--rate", "20000", "--batch", "8", "--size", "300"])
        .args(["--warm-up", "1s", "--duration", "20s"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // The storm starts when the progress line shows received packets.
    let mut progress = BufReader::new(pairs.stderr.take().unwrap()).lines();
    let flowing = |line: &String| !line.contains(" 0 received");
    assert!(progress.by_ref().map(Result::unwrap).any(|line| flowing(&line)), "no packet was received");

    let storm = relay.load("storm", "storm").args(["--connections", "2000", "--concurrency", "32"]).output();
    assert_success(&storm.unwrap());
    assert!(pairs.try_wait().unwrap().is_none(), "the storm took longer than the packets");
    let rest: Vec<_> = progress.map(Result::unwrap).collect();
    let output = pairs.wait_with_output().unwrap();
    assert!(output.status.success(), "{rest:?}\n{}", String::from_utf8_lossy(&output.stdout));

    let storm: StormReport = relay.report("storm");
    assert_eq!((storm.connected, storm.failure), (2000, None));
    let pairs: PairsReport = relay.report("pairs");
    assert_eq!(pairs.offered, 400_000);
    assert_eq!((pairs.sent, pairs.lost(), pairs.peers_gone), (400_000, 0, 0));
    assert_eq!(pairs.damage, PacketDamage::default());
}
