//! What the sockets of an endpoint survive: that another program destroys them, as Android does when a network goes, and that interfaces
//! and addresses go and come. These tests need root, and say `skipped` without.

use std::time::Duration;

use tokio::time::Instant;
use towpath_e2e::{Kind, Peers, turn};
use towpath_lab::{Class, Pair, Timing};

/// How long a pair may take.
const LIMIT: Duration = Duration::from_secs(3);

#[test]
fn a_pair_stays_direct_when_the_udp_sockets_of_either_side_are_destroyed() {
    let Some((programs, _turn)) = turn() else { return };
    let peers = Peers::start(Kind::Towpath, programs, &Pair::new(Class::P, Class::P, Timing::NEAR, 1));
    assert!(peers.become_direct(LIMIT).is_some());
    for side in [0, 1] {
        let before = peers.endpoint(side).local_addresses();
        let flowing = peers.flow(0, Duration::from_millis(1), 1);
        std::thread::sleep(Duration::from_millis(200));
        let mut destroy = peers.stage.hosts[side].namespace().command("ss");
        let destroyed = destroy.args(["-u", "-a", "-K"]).output().expect("ss, of iproute2");
        assert!(destroyed.status.success(), "{destroyed:?}");
        let text = String::from_utf8_lossy(&destroyed.stdout).into_owned();
        for address in &before {
            assert!(text.contains(&format!(":{} ", address.port())), "{address} is not destroyed: {text}");
        }
        std::thread::sleep(Duration::from_millis(300));
        let flow = peers.end(flowing);
        println!("side {side}: {} packets, {} lost", flow.sent, flow.lost());
        assert!(flow.came.last().is_some_and(|(_, _, is_direct)| *is_direct), "side {side}");
        assert_eq!(peers.endpoint(side).local_addresses(), before, "side {side}: the same ports");
    }
}

/// The host gets another address, so that its links to relays break without a word as well.
#[test]
fn packets_come_again_after_the_cable_of_either_side_was_out() {
    let Some((programs, _turn)) = turn() else { return };
    for side in [0, 1] {
        let mut peers =
            Peers::start(Kind::Towpath, programs, &Pair::new(Class::P, Class::P, Timing::NEAR, 2));
        assert!(peers.become_direct(LIMIT).is_some());
        let before = peers.endpoint(side).local_addresses();
        let flowing = peers.flow(0, Duration::from_millis(5), 1);
        std::thread::sleep(Duration::from_millis(300));
        peers.stage.hosts[side].unplug().expect("a host");
        std::thread::sleep(Duration::from_millis(300));
        let plugged = Instant::now();
        let stage = &mut peers.stage;
        stage.hosts[side].plug(&stage.nats[side]).expect("a host");
        std::thread::sleep(LIMIT);
        let flow = peers.end(flowing);
        let again = flow.came.iter().map(|(_, at, _)| *at).find(|at| *at > plugged);
        println!("side {side}: packets come again {:?} after the cable is in", again.map(|at| at - plugged));
        assert!(again.is_some(), "side {side}");
        assert_eq!(peers.endpoint(side).local_addresses(), before, "side {side}: the same ports");
    }
}
