//! Two machines with stock tailscaled on a TUN interface, under Headscale, with stock derper as the relay.

use std::fs::{self, File};
use std::net::IpAddr;
use std::process::{Child, Command};
use std::thread::sleep;
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;
use towpath_lab::{Pair, Rebinding, Stage};

use crate::machine::Machine;
use crate::region::{Kind, Region};
use crate::turn::Programs;

/// How long programs may take until they serve, and nodes until they know each other.
const START_LIMIT: Duration = Duration::from_secs(30);
/// The port of Headscale.
const PORT: u16 = 8080;
/// How a machine runs tailscaled. It writes below its home as well.
const DAEMON: &str = "HOME=FILES exec tailscaled --no-logs-no-support --state=FILES/state --socket=/run/tailscaled.sock >>FILES/daemon 2>&1";

/// The two, and what they run on.
#[derive(Debug)]
pub struct Tailnet {
    // Dropped in this order: what runs in a namespace before the namespace.
    /// The machines.
    pub machines: [Machine; 2],
    _headscale: Headscale,
    _region: Region,
    /// The NATs and the wire.
    pub stage: Stage,
}

/// A control server with one user. It ends with this value.
#[derive(Debug)]
struct Headscale {
    process: Child,
    files: TempDir,
    url: String,
}

impl Tailnet {
    /// Builds the stage of a pair, and registers the machines as nodes.
    pub fn start(programs: &Programs, pair: &Pair) -> Self {
        let stage = Stage::build(pair).unwrap_or_else(|error| panic!("{pair:?}: {error}"));
        let region = Region::start(Kind::Derper, programs, &stage);
        let headscale = Headscale::start(programs, &stage, &region);
        let key = headscale.key(programs);
        let machines = [0, 1].map(|at| Machine::start(programs, stage.hosts[at].namespace()));
        for (machine, name) in machines.iter().zip(["laptop", "dev"]) {
            start_daemon(machine);
            machine.run(&format!(
                "tailscale --socket=/run/tailscaled.sock up --login-server={} --auth-key={key} --hostname={name} \
                 --accept-dns=false --netfilter-mode=off --timeout=20s",
                headscale.url
            ));
        }
        let tailnet = Self { machines, _headscale: headscale, _region: region, stage };
        tailnet.wait_until_ready();
        tailnet
    }

    /// Starts both daemons anew, behind NATs that have forgotten all, and waits until they know each other.
    pub fn start_again(&self) {
        for machine in &self.machines {
            machine.run("pkill -TERM -x tailscaled; while pgrep -x tailscaled; do sleep 0.02; done");
        }
        for nat in &self.stage.nats {
            nat.rebind(Rebinding::SamePorts).expect("a NAT");
        }
        self.machines.iter().for_each(start_daemon);
        self.wait_until_ready();
    }

    /// The address of the second machine in the tailnet.
    pub fn address(&self) -> IpAddr {
        let said = self.machines[1].run("tailscale --socket=/run/tailscaled.sock ip -4");
        said.trim().parse().expect("an address")
    }

    fn wait_until_ready(&self) {
        for machine in &self.machines {
            let deadline = Instant::now() + START_LIMIT;
            while !is_ready(machine) {
                let log = || fs::read_to_string(machine.files().join("daemon")).unwrap_or_default();
                assert!(Instant::now() < deadline, "the node is not ready:\n{}", log());
                sleep(Duration::from_millis(50));
            }
        }
    }
}

fn start_daemon(machine: &Machine) {
    machine.start_script(&DAEMON.replace("FILES", &machine.files().display().to_string()));
    machine.run("timeout 20 sh -c 'until test -S /run/tailscaled.sock; do sleep 0.02; done'");
}

/// Whether a node is in its tailnet, has a home relay, and knows that of its peer.
fn is_ready(machine: &Machine) -> bool {
    let output = machine.try_run("tailscale --socket=/run/tailscaled.sock status --json");
    let Ok(status) = serde_json::from_slice::<Value>(&output.stdout) else { return false };
    let has_relay = |node: &Value| node["Relay"].as_str().is_some_and(|relay| !relay.is_empty());
    let mut peers = status["Peer"].as_object().into_iter().flat_map(|peers| peers.values()).peekable();
    status["BackendState"] == "Running"
        && has_relay(&status["Self"])
        && peers.peek().is_some()
        && peers.all(has_relay)
}

impl Headscale {
    fn start(programs: &Programs, stage: &Stage, region: &Region) -> Self {
        let files = TempDir::new().expect("a temporary directory");
        let server = &stage.stuns[1];
        let url = format!("http://{}:{PORT}", server.v4());
        let (json, yaml) = (files.path().join("derpmap.json"), files.path().join("derpmap.yaml"));
        fs::write(&json, region.json()).expect("a file");
        let mut convert = Command::new(&programs.relay);
        convert.args(["derpmap", "--format", "headscale", "--from"]).arg(&json);
        fs::write(&yaml, stdout(&mut convert)).expect("a file");
        let dir = files.path().display();
        let text = format!(
            "server_url: {url}\nlisten_addr: 0.0.0.0:{PORT}\nmetrics_listen_addr: 127.0.0.1:9090\ngrpc_listen_addr: 127.0.0.1:50443\n\
             unix_socket: {dir}/headscale.sock\nnoise: {{ private_key_path: {dir}/noise.key }}\n\
             database: {{ type: sqlite, sqlite: {{ path: {dir}/db.sqlite }} }}\nprefixes: {{ v4: 100.64.0.0/10 }}\n\
             derp: {{ server: {{ enabled: false }}, urls: [], paths: [ {dir}/derpmap.yaml ], auto_update_enabled: false }}\n\
             dns: {{ magic_dns: false, base_domain: tailnet.test, override_local_dns: false, nameservers: {{ global: [] }} }}\n\
             disable_check_updates: true\nlogtail: {{ enabled: false }}\nlog: {{ level: info, format: text }}\n"
        );
        fs::write(files.path().join("config.yaml"), text).expect("a file");
        let log = File::create(files.path().join("log")).expect("a log file");
        let mut command = server.namespace().command(&programs.headscale);
        command.arg("-c").arg(files.path().join("config.yaml")).arg("serve");
        command.stdout(log.try_clone().expect("a second handle")).stderr(log);
        let process = command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}"));
        let mut headscale = Self { process, files, url };
        let deadline = Instant::now() + START_LIMIT;
        while !headscale.files.path().join("headscale.sock").exists() {
            let exited = headscale.process.try_wait().expect("it is our child");
            assert!(exited.is_none() && Instant::now() < deadline, "{}", headscale.log());
            sleep(Duration::from_millis(50));
        }
        headscale
    }

    /// A key with which nodes register.
    fn key(&self, programs: &Programs) -> String {
        let command = |arguments: &[&str]| {
            let mut command = Command::new(&programs.headscale);
            command.arg("-c").arg(self.files.path().join("config.yaml")).args(arguments);
            stdout(&mut command)
        };
        command(&["users", "create", "tester"]);
        let made = command(&["preauthkeys", "create", "--user", "1", "--reusable", "-o", "json"]);
        let made: Value =
            serde_json::from_slice(&made).unwrap_or_else(|error| panic!("{error}: {}", self.log()));
        made["key"].as_str().expect("a key").to_owned()
    }

    fn log(&self) -> String {
        fs::read_to_string(self.files.path().join("log")).unwrap_or_default()
    }
}

impl Drop for Headscale {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn stdout(command: &mut Command) -> Vec<u8> {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}
