//! WireGuard, as wireguard-go has it, between two machines behind NATs, carried by `towpath proxy`. These tests need root, and say
//! `skipped` without.
//!
//! `LAB_RUNS` is the number of runs of the case that measures time, 3 unless it is set.

use std::time::Duration;

use towpath_e2e::{Kind, Machine, Tunnel, runs, turn};
use towpath_lab::{Class, Pair, Timing};

const PATIENCE: Duration = Duration::from_secs(10);
/// The round trip over the relay, and what a first reply may take beyond it where both sides begin at once, in milliseconds.
const RELAY: f64 = 80.0;
const BEYOND: f64 = 250.0;

/// What `wg` says of the one peer.
fn endpoint(machine: &Machine) -> String {
    machine.run("wg show towpath endpoints").split_whitespace().nth(1).expect("an endpoint").to_owned()
}

#[test]
fn a_tunnel_works_from_the_first_second_by_name_and_becomes_direct() {
    let Some((programs, _turn)) = turn() else { return };
    for (seed, kind, classes) in
        [(1, Kind::Towpath, [Class::P, Class::P]), (2, Kind::Derper, [Class::S, Class::A])]
    {
        let tunnel = Tunnel::start(kind, programs, &Pair::new(classes[0], classes[1], Timing::NEAR, seed));
        let [laptop, dev] = &tunnel.machines;
        let times = laptop.ping("-c 20 -i 0.1 -w 10 dev");
        println!("{kind:?}, {classes:?}: {times:.0?}");
        assert_eq!(times.len(), 20, "no packet is lost");
        let last = times.last().copied().unwrap_or_default();
        assert!(last < RELAY, "the last reply came directly: {times:?}");
        assert!(endpoint(laptop).starts_with("127.0.0.1:") && endpoint(dev).starts_with("127.0.0.1:"));
        dev.start_script("cd /etc/wireguard && exec python3 -m http.server 3000");
        let page = laptop.run("curl -sS --retry 20 --retry-connrefused --retry-delay 1 http://dev:3000/");
        assert!(page.contains("towpath.conf"), "{page}");
    }
}

#[test]
fn both_sides_that_begin_at_once_have_their_first_reply_at_once() {
    let Some((programs, _turn)) = turn() else { return };
    let tunnel = Tunnel::start(Kind::Towpath, programs, &Pair::new(Class::P, Class::P, Timing::NEAR, 3));
    let mut slow = Vec::new();
    for run in 0..runs() {
        if run > 0 {
            tunnel.both(|_, machine| machine.run("wg-quick down towpath && wg-quick up towpath"));
            tunnel.both(|_, machine| {
                machine.wait_for_log("the packets of towpath are carried", run + 1, PATIENCE);
            });
        }
        let times = tunnel.both(|at, machine| machine.ping(&format!("-c 1 -w 10 {}", ["dev", "laptop"][at])));
        println!("run {run}: {times:.0?} ms");
        let first = times.concat().into_iter().fold(0.0, f64::max);
        if first > RELAY + BEYOND {
            slow.push(first);
        }
    }
    assert!(slow.is_empty(), "{slow:?} ms: above {RELAY} + {BEYOND}");
}

#[test]
fn everything_is_put_back_at_the_end_and_after_a_kill() {
    let Some((programs, _turn)) = turn() else { return };
    let tunnel = Tunnel::start(Kind::Towpath, programs, &Pair::new(Class::O, Class::O, Timing::NEAR, 4));
    let [laptop, dev] = &tunnel.machines;
    laptop.run("ping -n -c 1 -w 10 dev");
    assert!(laptop.run("cat /etc/hosts").contains("\tdev\n"));
    laptop.run("pkill -TERM -x towpath");
    laptop.wait_for_log("stopped: towpath is as it was found", 1, PATIENCE);
    assert_eq!(endpoint(laptop), "(none)");
    assert_eq!(laptop.run("cat /etc/hosts; ls /var/lib/towpath"), "127.0.0.1\tlocalhost\n");

    dev.run("pkill -KILL -x towpath");
    assert!(endpoint(dev).starts_with("127.0.0.1:") && dev.run("cat /etc/hosts").contains("\tlaptop\n"));
    // What was found is put back also where the file of wg-quick is gone.
    dev.run("rm /etc/wireguard/towpath.conf");
    let said = dev.run("towpath proxy --restore --config /etc/wireguard/towpath.toml");
    assert_eq!(said, "towpath is as it was found\n");
    assert_eq!(endpoint(dev), "(none)");
    assert_eq!(dev.run("cat /etc/hosts; ls /var/lib/towpath"), "127.0.0.1\tlocalhost\n");
    let said = dev.run("towpath proxy --restore --config /etc/wireguard/towpath.toml");
    assert_eq!(said, "nothing to put back: no proxy has changed towpath\n");
}

#[test]
fn an_interface_that_goes_and_one_that_others_change_are_followed() {
    let Some((programs, _turn)) = turn() else { return };
    let tunnel = Tunnel::start(Kind::Towpath, programs, &Pair::new(Class::O, Class::P, Timing::NEAR, 5));
    let [laptop, dev] = &tunnel.machines;
    laptop.run("ping -n -c 1 -w 10 dev");
    laptop.run("wg-quick down towpath");
    laptop.wait_for_log("towpath has gone: waiting until it is back", 1, PATIENCE);
    laptop.run("wg-quick up towpath");
    laptop.wait_for_log("the packets of towpath are carried", 2, PATIENCE);
    laptop.run("ping -n -c 1 -w 10 dev");

    let own = endpoint(dev);
    dev.run("wg set towpath peer $(wg show towpath peers) endpoint 192.0.2.7:51820");
    dev.wait_for_log("was set by another program", 1, PATIENCE);
    laptop.run("ping -n -c 1 -w 10 dev");
    assert_eq!(endpoint(dev), own);
    // What the other program has set is what is put back.
    dev.run("pkill -TERM -x towpath");
    dev.wait_for_log("stopped: towpath is as it was found", 1, PATIENCE);
    assert_eq!(endpoint(dev), "192.0.2.7:51820");
}
