//! A region of relays on the servers of a stage.

use std::fs::{self, File};
use std::net::{IpAddr, TcpStream};
use std::path::Path;
use std::process::{Child, Command};
use std::thread::{panicking, sleep};
use std::time::{Duration, Instant};

use sha2::{Digest, Sha256};
use tempfile::TempDir;
use towpath::RelayMap;
use towpath_lab::{Namespace, Server, Stage};
use towpath_wire::map::{DerpMap, DerpNode, DerpRegion, NO_ADDRESS, RegionId};
use towpath_wire::pin::CertificatePin;
use towpath_wire::ports;

use crate::turn::Programs;

/// The number of the region.
pub const REGION: towpath::Region = towpath::Region(900);
/// The number of the region that takes its place.
const STANDBY: u16 = 901;
/// The round trip to its relay: no node is to prefer it.
const FAR: Duration = Duration::from_millis(80);
/// How long a relay may take until it serves.
const START_LIMIT: Duration = Duration::from_secs(10);

/// What program the relays are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Ours.
    Towpath,
    /// Tailscale's.
    Derper,
}

/// A region with a relay, which answers STUN too, and STUN servers more, so that a node can tell what its NAT does; perhaps a second one.
/// They end with this value.
#[derive(Debug)]
pub(crate) struct Region {
    map: DerpMap,
    relays: Vec<Relay>,
}

/// A relay process in the namespace of a server.
#[derive(Debug)]
struct Relay {
    process: Child,
    address: IpAddr,
    /// The address of IPv6, if it serves there.
    v6: Option<IpAddr>,
    pin: CertificatePin,
    files: TempDir,
}

impl Region {
    /// Starts a relay on each server of a stage, and returns when all serve.
    pub(crate) fn start(kind: Kind, programs: &Programs, stage: &Stage) -> Self {
        let relays = Self::serve(kind, programs, stage);
        let map = DerpMap { regions: [region(REGION.0, &relays)].into(), ..DerpMap::default() };
        Self { map, relays }
    }

    /// Starts a relay on each server of a stage, of which the last one is farther away and another region's, and returns when all serve.
    pub(crate) fn start_with_standby(kind: Kind, programs: &Programs, stage: &Stage) -> Self {
        for site in stage.sites {
            stage.lab.set_round_trip(site, stage.stuns[1].site(), FAR);
        }
        let relays = Self::serve(kind, programs, stage);
        let (home, standby) = relays.split_at(relays.len() - 1);
        let regions = [region(REGION.0, home), region(STANDBY, standby)].into();
        Self { map: DerpMap { regions, ..DerpMap::default() }, relays }
    }

    fn serve(kind: Kind, programs: &Programs, stage: &Stage) -> Vec<Relay> {
        let servers = [&stage.relay, &stage.stuns[0], &stage.stuns[1]];
        servers.map(|server| Relay::start(kind, programs, server)).into()
    }

    /// Kills the relay, as the kernel does with a program that uses too much memory.
    pub(crate) fn kill(&mut self) {
        self.relays[0].kill();
    }

    /// The DERP map for an endpoint.
    pub(crate) fn map(&self) -> RelayMap {
        RelayMap::try_from(self.map.clone()).expect("a map with a relay")
    }

    /// The DERP map as JSON, for stock clients.
    pub(crate) fn json(&self) -> String {
        self.map.to_json()
    }
}

impl Drop for Region {
    #[expect(clippy::print_stderr, reason = "a failed test shows the relay's side")]
    fn drop(&mut self) {
        if panicking() {
            let log = fs::read_to_string(self.relays[0].files.path().join("log")).unwrap_or_default();
            eprintln!("the relay's log:\n{log}");
        }
    }
}

impl Relay {
    fn start(kind: Kind, programs: &Programs, server: &Server) -> Self {
        let files = TempDir::new().expect("a temporary directory");
        let address = server.v4();
        let pin = write_certificate(files.path(), address);
        let (namespace, dir) = (server.namespace(), files.path());
        let mut command = match kind {
            Kind::Towpath => towpath(namespace, &programs.relay, dir, [address, server.v6()]),
            Kind::Derper => derper(namespace, &programs.derper, dir, address),
        };
        let log = File::create(dir.join("log")).expect("a log file");
        command.stdout(log.try_clone().expect("a second handle")).stderr(log);
        let process = command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}"));
        // What derper listens to is one address.
        let v6 = (kind == Kind::Towpath).then(|| server.v6());
        let mut relay = Self { process, address, v6, pin, files };
        relay.wait_until_ready(namespace);
        relay
    }

    fn wait_until_ready(&mut self, namespace: &Namespace) {
        let deadline = Instant::now() + START_LIMIT;
        let accepts = || TcpStream::connect((self.address, ports::HTTPS)).is_ok();
        while !namespace.run(accepts) {
            let exited = self.process.try_wait().expect("the relay is our child");
            assert!(exited.is_none(), "the relay exited at start: {exited:?}");
            assert!(Instant::now() < deadline, "the relay was not ready within {START_LIMIT:?}");
            sleep(Duration::from_millis(10));
        }
    }

    fn kill(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A region of the map, by its number. Only the first one is a relay there.
fn region(number: u16, relays: &[Relay]) -> (RegionId, Option<DerpRegion>) {
    let nodes = relays.iter().enumerate().map(|(place, relay)| DerpNode {
        name: format!("{number}{place}"),
        region_id: number.into(),
        host_name: relay.address.to_string(),
        cert_name: relay.pin.to_string(),
        ipv4: relay.address.to_string(),
        ipv6: relay.v6.map_or_else(|| NO_ADDRESS.into(), |address| address.to_string()),
        stun_only: place > 0,
        ..DerpNode::default()
    });
    let (region_code, region_name) = (format!("lab{number}"), format!("Laboratory {number}"));
    let region = DerpRegion {
        region_id: number.into(),
        region_code,
        region_name,
        nodes: nodes.collect(),
        ..DerpRegion::default()
    };
    (number.into(), Some(region))
}

fn towpath(namespace: &Namespace, binary: &Path, dir: &Path, [address, v6]: [IpAddr; 2]) -> Command {
    let config = dir.join("relay.toml");
    let text = format!(
        "hostname = \"{address}\"\nadmission = \"open\"\nlisten = \"[::]:{}\"\ncert = {:?}\nkey = {:?}\nkey_file = {:?}\n\n\
         [stun]\nlisten = [\"{address}:{stun}\", \"[{v6}]:{stun}\"]\n\n[admin]\nlisten = \"\"\n",
        ports::HTTPS,
        dir.join(format!("{address}.crt")),
        dir.join(format!("{address}.key")),
        dir.join("relay.key"),
        stun = ports::STUN,
    );
    fs::write(&config, text).expect("a configuration file");
    let mut command = namespace.command(binary);
    command.arg("--config").arg(config);
    // The relay's settings are in the file alone.
    for (variable, _) in
        std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("TOWPATH_"))
    {
        command.env_remove(variable);
    }
    command
}

fn derper(namespace: &Namespace, binary: &Path, dir: &Path, address: IpAddr) -> Command {
    let mut command = namespace.command(binary);
    command.args(["-hostname", &address.to_string(), "-certmode", "manual", "-http-port", "-1", "-stun"]);
    command.arg("-c").arg(dir.join("relay.key")).arg("-certdir").arg(dir);
    command.arg("-a").arg(format!("{address}:{}", ports::HTTPS));
    command
}

/// Writes a self-signed ECDSA P-256 certificate and its key under the names that derper looks for.
fn write_certificate(dir: &Path, address: IpAddr) -> CertificatePin {
    let made = rcgen::generate_simple_self_signed([address.to_string()]).expect("a valid name");
    fs::write(dir.join(format!("{address}.crt")), made.cert.pem()).expect("a certificate file");
    fs::write(dir.join(format!("{address}.key")), made.signing_key.serialize_pem()).expect("a key file");
    CertificatePin::from_sha256(Sha256::digest(made.cert.der()).into())
}
