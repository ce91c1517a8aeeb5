//! A tunnel that takes all traffic of a machine, as wg-quick makes it: a firewall mark, and routing rules that keep what has it out of the
//! tunnel. These tests need root, and say `skipped` without.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use towpath_e2e::{Kind, Machine, Tunnel, start_proxy, turn};
use towpath_lab::{Class, Pair, Timing};

const PATIENCE: Duration = Duration::from_secs(10);
/// An address that is only at the other end of the tunnel.
const BEYOND: &str = "203.0.113.7";
/// The round trip over the relay in milliseconds.
const RELAY: f64 = 80.0;
const ANEW: &str = "another key or firewall mark: starting anew";
const CARRIED: &str = "the packets of towpath are carried";

/// Two machines, of which the first has files that send all its traffic into the tunnel, and the second takes it.
fn tunnel(seed: u64, peer_lines: &str) -> Option<(Tunnel, impl Drop)> {
    let (programs, turn) = turn()?;
    let pair = Pair::new(Class::P, Class::P, Timing::NEAR, seed);
    let tunnel = Tunnel::pair(Kind::Towpath, programs, &pair);
    let [laptop, dev] = &tunnel.machines;
    // The network of the laboratory has no IPv6; the tunnel takes it all the same.
    laptop.run("sysctl -qw net.ipv6.conf.all.disable_ipv6=0 net.ipv6.conf.default.disable_ipv6=0");
    laptop.run(&format!(
        "sed -i 's|^AllowedIPs.*|AllowedIPs = 0.0.0.0/0, ::/0{peer_lines}|' /etc/wireguard/towpath.conf"
    ));
    dev.run(&format!("ip address add {BEYOND}/32 dev lo"));
    dev.run("wg-quick up towpath");
    start_proxy(dev);
    Some((tunnel, turn))
}

/// Pings until replies come directly, and through the tunnel.
#[expect(clippy::print_stdout, reason = "the times are what a failed test shows")]
fn becomes_direct(laptop: &Machine) {
    let times = laptop.ping(&format!("-c 10 -i 0.1 -w 10 {BEYOND}"));
    println!("{times:.0?}");
    assert!(times.last().is_some_and(|time| *time < RELAY), "the last reply came directly: {times:?}");
    assert!(laptop.run(&format!("ip route get {BEYOND}")).contains("dev towpath"));
}

#[test]
fn a_tunnel_that_takes_all_traffic_does_not_take_that_of_its_proxy() {
    let Some((tunnel, _turn)) = tunnel(7, r"\n# towpath = yes\nEndpoint = 203.0.113.9:51820") else { return };
    let [laptop, _] = &tunnel.machines;
    laptop.run("wg-quick up towpath");
    assert!(laptop.run("wg show towpath fwmark").starts_with("0x"), "wg-quick has set a mark");
    start_proxy(laptop);
    becomes_direct(laptop);
    // The proxy comes back while all routes lead into the tunnel that it has to carry.
    for signal in ["TERM", "KILL"] {
        laptop.run(&format!("pkill -{signal} -x towpath; while pgrep -x towpath; do sleep 0.05; done"));
        start_proxy(laptop);
        becomes_direct(laptop);
    }
    assert_eq!(laptop.log().matches(ANEW).count(), 0, "{}", laptop.log());
}

/// wg-quick tells resolvconf of the servers for names before it sets the mark.
const RESOLVCONF: &str = r#"#!/bin/sh
test "$1" = -a || exit 0
until wg show towpath endpoints | grep -q 127.0.0.1; do sleep 0.01; done
"#;

#[test]
fn a_proxy_that_serves_the_interface_before_it_has_a_mark_takes_the_mark_once() {
    let Some((tunnel, _turn)) = tunnel(8, "") else { return };
    let [laptop, _] = &tunnel.machines;
    laptop.run("sed -i '/^Address/a DNS = 192.0.2.53' /etc/wireguard/towpath.conf");
    let resolvconf = laptop.files().join("bin/resolvconf");
    fs::write(&resolvconf, RESOLVCONF).expect("a program");
    fs::set_permissions(&resolvconf, Permissions::from_mode(0o755)).expect("a program");
    laptop.start_script("exec towpath proxy --config /etc/wireguard/towpath.toml");
    laptop.wait_for_log("there is no WireGuard interface towpath yet", 1, PATIENCE);
    for round in 1..=2 {
        laptop.run("wg-quick up towpath");
        // Without the mark of the round before and without any, and then with one.
        laptop.wait_for_log(CARRIED, 2 * round, PATIENCE);
        becomes_direct(laptop);
        laptop.run("wg-quick down towpath");
        laptop.wait_for_log("towpath has gone", round, PATIENCE);
        assert_eq!(laptop.log().matches(ANEW).count(), 2 * round - 1, "{}", laptop.log());
    }
}

#[test]
fn a_kernel_that_would_drop_what_relays_send_is_told_of_with_what_to_do() {
    let Some((tunnel, _turn)) = tunnel(9, "") else { return };
    let [laptop, _] = &tunnel.machines;
    laptop.run("sysctl -qw net.ipv4.conf.all.rp_filter=1");
    laptop.run("wg-quick up towpath");
    laptop.start_script("exec towpath proxy --config /etc/wireguard/towpath.toml");
    laptop.wait_for_log("rp_filter is 1", 1, PATIENCE);
    let log = laptop.log();
    let (_, command) = log.split_once("run `sysctl ").expect("a command");
    let (arguments, _) = command.split_once('`').expect("the end of the command");
    laptop.run(&format!("sysctl {arguments}"));
    laptop.wait_for_log("ready: peers reach this one", 1, PATIENCE);
    becomes_direct(laptop);
}
