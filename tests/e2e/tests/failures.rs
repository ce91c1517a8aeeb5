//! A tunnel of WireGuard lives through what breaks its path, as it is carried by `towpath proxy`. These tests need root, and say `skipped`
//! without.

use std::fmt::Write as _;
use std::time::Duration;

use towpath_e2e::{Kind, Pings, Programs, Tunnel, millis, runs, turn, write_part};
use towpath_lab::{Class, Nat, Pair, Rebinding, Spread, Timing};

/// How long anything may take that takes milliseconds.
const PATIENCE: Duration = Duration::from_secs(10);
/// A round trip that is no longer than this is not one over the relay.
const DIRECT: Duration = Duration::from_millis(70);
/// How long the tunnel is looked at after something has broken its path.
const WATCHED: Duration = Duration::from_secs(2);
/// How long nothing may come.
const GAP: Duration = Duration::from_millis(500);

/// What the tunnel goes over before something breaks.
#[derive(Clone, Copy, Debug)]
enum Before {
    Direct,
    /// The NATs let it be no more.
    Relayed,
}

/// Prepares a stage, and returns what breaks its path. What that holds is there until the run is over.
type Prepare = fn(&mut Tunnel) -> Box<dyn FnMut(&mut Tunnel)>;

const FAULTS: [(&str, Before, Prepare); 5] = [
    ("the relay is killed, the tunnel is direct", Before::Direct, |_| Box::new(Tunnel::kill_relay)),
    ("the relay is killed, the tunnel is relayed", Before::Relayed, |_| Box::new(Tunnel::kill_relay)),
    ("all UDP of one side is blocked", Before::Direct, |_| Box::new(|tunnel| tunnel.stage.block_udp(0))),
    ("both sides switch their uplinks", Before::Direct, switch),
    ("both NATs rebind", Before::Direct, |_| {
        Box::new(|tunnel| {
            for nat in &tunnel.stage.nats {
                nat.rebind(Rebinding::NewPorts).expect("a NAT");
            }
        })
    }),
];

fn switch(tunnel: &mut Tunnel) -> Box<dyn FnMut(&mut Tunnel)> {
    let sites = tunnel.stage.sites;
    let nats: [Nat; 2] = sites.map(|site| tunnel.stage.lab.add_nat(Class::P, site).expect("a NAT"));
    Box::new(move |tunnel| {
        for (host, nat) in tunnel.stage.hosts.iter_mut().zip(&nats) {
            host.switch(nat).expect("an uplink");
        }
    })
}

/// The longest time without an answer after something has broken the path. The last answers are of pings that were sent well after that.
#[expect(clippy::print_stdout, reason = "the times are what a failed test shows")]
fn gap(programs: &Programs, (name, before, prepare): (&str, Before, Prepare), seed: u64) -> Duration {
    let class = match before {
        Before::Direct => Class::P,
        Before::Relayed => Class::R,
    };
    let mut tunnel =
        Tunnel::start_with_standby(Kind::Towpath, programs, &Pair::new(class, class, Timing::NEAR, seed));
    let mut breaks = prepare(&mut tunnel);
    let pings = Pings::start(&tunnel.machines[0], "dev");
    let is_settled = match before {
        Before::Direct => pings.wait_for(PATIENCE, |reply| reply.took < DIRECT),
        // Until both have tried in vain.
        Before::Relayed => {
            let first = pings.wait_for(PATIENCE, |_| true).expect("an answer");
            pings.wait_for(PATIENCE, |reply| reply.sent() > first.came + Duration::from_secs(1))
        }
    };
    assert!(is_settled.is_some(), "{name}: {:?}\n{}", pings.replies(), tunnel.machines[0].log());
    let began = Pings::now();
    breaks(&mut tunnel);
    let broken = Pings::now();
    let lives = pings.wait_for(PATIENCE, |reply| reply.sent() > broken + WATCHED);
    let gap = pings.gap(began);
    println!("{name}: {} ms without an answer, wire {:?}", gap.as_millis(), tunnel.stage.lab.lateness());
    let logs = || tunnel.machines.each_ref().map(|machine| machine.log()).join("\n\n");
    assert!(lives.is_some(), "{name}: no answer after it\n{}", logs());
    gap
}

#[test]
fn a_tunnel_lives_through_what_breaks_its_path() {
    let Some((programs, _turn)) = turn() else { return };
    for (seed, fault) in (20..).zip(FAULTS) {
        gap(programs, fault, seed);
    }
}

#[test]
#[ignore = "measures milliseconds and writes docs/nat.md: make lab"]
fn the_gap_of_a_tunnel_after_each_thing_that_breaks_its_path_is_measured() {
    let Some((programs, _turn)) = turn() else { return };
    let (goal, mut over) = (GAP.as_millis(), Vec::new());
    let mut table =
        String::from("| what happens | runs | median | longest | goal |\n|---|---|---|---|---|\n");
    for fault in FAULTS {
        let gaps: Spread = (0..runs() as u64).map(|seed| gap(programs, fault, seed)).collect();
        let longest = gaps.per_mille(1000);
        let (name, count, median) = (fault.0, gaps.len(), millis(gaps.median()));
        writeln!(table, "| {name} | {count} | {median} | {} | ≤ {goal} |", millis(longest)).expect("a row");
        if longest > Some(GAP) {
            over.push(name);
        }
    }
    write_part("lab tunnel gaps", &table);
    assert!(over.is_empty(), "longer than {GAP:?}: {over:?}");
}
