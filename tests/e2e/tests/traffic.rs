//! Programs that use a tunnel of WireGuard, as it is carried by `towpath proxy`: ssh, and flows that begin over the relay and go on
//! directly. These tests need root, and say `skipped` without.

use std::fs;
use std::time::{Duration, Instant};

use serde_json::Value;
use towpath_e2e::{Kind, Machine, Tunnel, turn};
use towpath_lab::{Class, Link, Pair, Timing, Traffic};

const PATIENCE: Duration = Duration::from_secs(20);
const DIRECT: &str = "the path is direct";

/// Keys, and the settings with which `ssh dev` needs nothing else. They are in the machine's own /etc.
const SSH: &str = r#"
set -e
mkdir -p /run/sshd
for name in host user; do ssh-keygen -q -t ed25519 -N '' -f FILES/$name; done
cat >FILES/sshd_config <<END
HostKey FILES/host
AuthorizedKeysFile FILES/user.pub
PidFile none
StrictModes no
UsePAM no
PasswordAuthentication no
END
"#;

#[test]
fn ssh_reaches_a_machine_by_its_name() {
    let Some((programs, _turn)) = turn() else { return };
    let tunnel = Tunnel::start(Kind::Towpath, programs, &Pair::new(Class::P, Class::P, Timing::NEAR, 30));
    let [laptop, dev] = &tunnel.machines;
    let files = dev.files().display().to_string();
    dev.run(&SSH.replace("FILES", &files));
    // sshd starts itself again for each connection and demands an absolute path for that.
    dev.start_script(&format!("exec /usr/sbin/sshd -D -e -f {files}/sshd_config"));
    dev.wait_for_log("Server listening on", 1, PATIENCE);
    let host_key = fs::read_to_string(dev.files().join("host.pub")).expect("a key");
    laptop.run(&format!("printf 'dev {}\\n' >/etc/ssh/ssh_known_hosts", host_key.trim()));
    laptop.run(&format!("printf 'Host dev\\nIdentityFile {files}/user\\n' >>/etc/ssh/ssh_config"));
    let said = laptop.run("echo hello through the tunnel | ssh -o BatchMode=yes dev tr a-z A-Z");
    assert_eq!(said, "HELLO THROUGH THE TUNNEL\n");
}

/// Blocks the direct path, or lets it through.
fn block(tunnel: &Tunnel, is_blocked: bool) {
    let [one, other] = tunnel.stage.sites;
    let change = |link: &mut Link| (link.blocked, link.applies_to) = (is_blocked, Traffic::Udp);
    tunnel.stage.lab.change_links(one, other, change);
}

/// What `iperf3 --json` has printed into a file of a machine, when it is all there.
fn report(machine: &Machine, name: &str) -> Value {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let text = fs::read_to_string(machine.files().join(name)).unwrap_or_default();
        match serde_json::from_str(&text) {
            Ok(report) => return report,
            Err(_) if Instant::now() < deadline => std::thread::sleep(Duration::from_millis(50)),
            Err(error) => panic!("{name}: {error}: {text}\n{}", machine.log()),
        }
    }
}

/// The intervals of a report in which this side sent something again: when each began, in seconds, and how often.
fn sent_again(report: &Value) -> Vec<(f64, u64)> {
    let sums = report["intervals"].as_array().expect("intervals").iter().map(|interval| &interval["sum"]);
    let again = sums.filter_map(|sum| Some((sum["start"].as_f64()?, sum["retransmits"].as_u64()?)));
    again.filter(|(_, count)| *count > 0).collect()
}

/// Both ways at once over UDP and over TCP, from before the tunnel is direct until after that.
#[test]
fn flows_both_ways_go_on_while_the_tunnel_becomes_direct() {
    let Some((programs, _turn)) = turn() else { return };
    let tunnel = Tunnel::start(Kind::Towpath, programs, &Pair::new(Class::P, Class::P, Timing::NEAR, 31));
    let [laptop, dev] = &tunnel.machines;
    block(&tunnel, true);
    for port in [5201, 5202] {
        dev.start_script(&format!("exec iperf3 -s -1 -p {port}"));
    }
    dev.run("timeout 10 sh -c 'until test $(ss -Hltn sport ge :5201 and sport le :5202 | wc -l) = 2; do sleep 0.02; done'");
    let files = laptop.files().display().to_string();
    let flow = |name: &str, options: &str| {
        laptop.start_script(&format!(
            "exec iperf3 -c dev --bidir -i 0.1 -t 14 --json {options} >{files}/{name}.json"
        ));
    };
    flow("udp", "-p 5201 -u -b 8M -l 1200");
    flow("tcp", "-p 5202 -b 8M");
    // All four flow, and the first attempts to become direct have failed.
    let flowing =
        "until test $(ss -Htn state established dport = :5202 | wc -l) = 3; do sleep 0.05; done; sleep 1.5";
    laptop.run(&format!("timeout 10 sh -c '{flowing}'"));
    assert!(!laptop.log().contains(DIRECT), "{}", laptop.log());
    block(&tunnel, false);
    tunnel.both(|_, machine| machine.wait_for_log(DIRECT, 1, PATIENCE));
    let [udp, tcp] = ["udp.json", "tcp.json"].map(|name| report(laptop, name));
    let again = ["sum_sent", "sum_sent_bidir_reverse"].map(|sum| tcp["end"][sum]["retransmits"].as_u64());
    println!("TCP sent again: {again:?}, this way in {:?}", sent_again(&tcp));
    println!("{}", laptop.run("nstat -asz TcpExtTCPDSACKRecv TcpExtTCPLostRetransmit TcpExtTCPTimeouts"));
    println!("wire {:?}", tunnel.stage.lab.lateness());
    for sum in ["sum", "sum_bidir_reverse"] {
        let (lost, packets) = (&udp["end"][sum]["lost_packets"], &udp["end"][sum]["packets"]);
        println!("UDP, {sum}: {lost} of {packets} lost");
        assert!(packets.as_u64().is_some_and(|packets| packets > 10_000), "{sum}: {udp}");
        assert_eq!(lost.as_u64(), Some(0), "{sum}");
    }
    for sum in ["sum_received", "sum_received_bidir_reverse"] {
        let rate = tcp["end"][sum]["bits_per_second"].as_f64();
        assert!(rate.is_some_and(|rate| rate > 7.5e6), "{sum}: {rate:?}");
    }
    // What was overtaken at the switch may be sent again, once: docs/wireguard.md has the figures.
    let again = sent_again(&tcp);
    let first = again.first().map_or(0.0, |(start, _)| *start);
    assert!(again.iter().all(|(start, _)| *start < first + 0.5), "there is one switch: {again:?}");
}
