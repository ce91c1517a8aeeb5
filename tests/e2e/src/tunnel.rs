//! Two machines with a tunnel of WireGuard between them, which proxies carry.

use std::time::Duration;
use std::{fs, thread};

use towpath_lab::{Pair, Rebinding, Stage};

use crate::machine::Machine;
use crate::region::{Kind, Region};
use crate::turn::Programs;

/// How long what takes milliseconds may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// The two, and what they run on.
#[derive(Debug)]
pub struct Tunnel {
    // Dropped in this order: what runs in a namespace before the namespace.
    /// The machines.
    pub machines: [Machine; 2],
    /// The relays, which end with this value.
    region: Region,
    /// The NATs and the wire.
    pub stage: Stage,
}

impl Tunnel {
    /// Builds the stage of a pair and starts relays and machines. On the first one is a map of the relays, `derpmap.json`; WireGuard is
    /// not set up yet.
    pub fn prepare(kind: Kind, programs: &Programs, pair: &Pair) -> Self {
        Self::build(programs, pair, |stage| Region::start(kind, programs, stage))
    }

    fn build(programs: &Programs, pair: &Pair, start: impl FnOnce(&Stage) -> Region) -> Self {
        let stage = Stage::build(pair).unwrap_or_else(|error| panic!("{pair:?}: {error}"));
        let region = start(&stage);
        let machines = [0, 1].map(|at| Machine::start(programs, stage.hosts[at].namespace()));
        fs::write(machines[0].files().join("derpmap.json"), region.json()).expect("a file");
        Self { machines, region, stage }
    }

    /// As [`prepare`](Self::prepare), with both machines paired: their files are written, and nothing runs.
    pub fn pair(kind: Kind, programs: &Programs, pair: &Pair) -> Self {
        let tunnel = Self::prepare(kind, programs, pair);
        tunnel.write_files();
        tunnel
    }

    /// As [`pair`](Self::pair), with both interfaces up, and the proxies at home. No packet of WireGuard has been sent.
    pub fn start(kind: Kind, programs: &Programs, pair: &Pair) -> Self {
        let tunnel = Self::pair(kind, programs, pair);
        tunnel.start_all();
        tunnel
    }

    /// As [`start`](Self::start), with the relay of a second region, which is farther away.
    pub fn start_with_standby(kind: Kind, programs: &Programs, pair: &Pair) -> Self {
        let tunnel = Self::build(programs, pair, |stage| Region::start_with_standby(kind, programs, stage));
        tunnel.write_files();
        tunnel.start_all();
        tunnel
    }

    fn write_files(&self) {
        let [first, second] = &self.machines;
        let map = first.files().join("derpmap.json");
        let said = first.run(&format!("towpath pair --relay-map {}", map.display()));
        let line = said.lines().find(|line| line.starts_with("towpath pair ")).expect("a line to paste");
        second.run(line);
    }

    fn start_all(&self) {
        self.both(|_, machine| {
            machine.run("wg-quick up towpath");
            start_proxy(machine);
        });
    }

    /// Starts WireGuard and the proxies anew, behind NATs that have forgotten all. No packet of WireGuard has been sent then.
    pub fn start_again(&self) {
        self.both(|_, machine| {
            machine.run(
                "pkill -TERM -x towpath; while pgrep -x towpath; do sleep 0.02; done; wg-quick down towpath",
            );
        });
        for nat in &self.stage.nats {
            nat.rebind(Rebinding::SamePorts).expect("a NAT");
        }
        self.start_all();
    }

    /// Kills the relay of both.
    pub fn kill_relay(&mut self) {
        self.region.kill();
    }

    /// Does the same on both machines, which are number 0 and 1, at the same time.
    pub fn both<T: Send>(&self, act: impl Fn(usize, &Machine) -> T + Sync) -> [T; 2] {
        let [one, other] = &self.machines;
        thread::scope(|scope| {
            let running = scope.spawn(|| act(1, other));
            let first = act(0, one);
            [first, running.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))]
        })
    }
}

/// Starts the proxy of a machine whose interface is up, and returns when it is at home and carries packets.
pub fn start_proxy(machine: &Machine) {
    let (home, carried) = ("ready: peers reach this one", "the packets of towpath are carried");
    let [homes, carries] = [home, carried].map(|text| machine.log().matches(text).count());
    machine.start_script("exec towpath proxy --config /etc/wireguard/towpath.toml");
    machine.wait_for_log(home, homes + 1, PATIENCE);
    machine.wait_for_log(carried, carries + 1, PATIENCE);
}
