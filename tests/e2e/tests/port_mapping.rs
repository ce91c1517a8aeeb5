//! A port that a real router forwards, miniupnpd, by each protocol. These tests need root, and say `skipped` without.

use std::fs;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use tempfile::TempDir;
use towpath::{Path, PortMapping, PortProtocol};
use towpath_e2e::{Impostor, Kind, Peers, Programs, Router, Speaks, turn};
use towpath_lab::{Class, Pair, Timing};

/// How long a pair may take.
const LIMIT: Duration = Duration::from_secs(3);
/// How long a router may take to do what it was asked for.
const PATIENCE: Duration = Duration::from_secs(5);

/// A pair that is never direct without a port: both NATs map by destination, to any port.
fn hard_pair(programs: &Programs, seed: u64) -> Peers {
    Peers::start(Kind::Towpath, programs, &Pair::new(Class::R, Class::R, Timing::NEAR, seed))
}

fn port_mapping(peers: &Peers) -> PortMapping {
    peers.endpoint(0).why(&peers.endpoint(1).key()).expect("a peer").port_mapping
}

fn close(peers: &Peers) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(peers.endpoint(0).close());
}

/// What `towpath netcheck --json` says of the port, on the first host.
fn netcheck(peers: &Peers, programs: &Programs) -> String {
    let files = TempDir::new().expect("a temporary directory");
    let map = files.path().join("map.json");
    fs::write(&map, peers.relay_map()).expect("a file");
    let mut command = peers.stage.hosts[0].namespace().command(&programs.towpath);
    let output = command.args(["netcheck", "--json"]).arg(&map).output().expect("it runs");
    assert!(output.status.success(), "{output:?}");
    let said: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    said["port_mapping"].as_str().expect("a text").to_owned()
}

#[test]
fn a_port_that_the_router_of_one_side_forwards_makes_the_hardest_pair_direct_and_is_given_back() {
    let Some((programs, _turn)) = turn() else { return };
    if !Router::is_there() {
        return;
    }
    for (seed, speaks, expected) in [
        (1, Speaks::Pcp, PortProtocol::Pcp),
        (2, Speaks::NatPmp, PortProtocol::NatPmp),
        (3, Speaks::Upnp, PortProtocol::Upnp),
    ] {
        let mut peers = hard_pair(programs, seed);
        let host = peers.stage.hosts[0].address();
        let router = Router::start(&peers.stage.nats[0], speaks);
        peers.start_endpoints();
        let took = peers.become_direct(LIMIT);
        println!("{speaks:?}: {took:?}");
        let said = port_mapping(&peers);
        let PortMapping::Granted { protocol, external } = said else { panic!("{speaks:?}: {said}") };
        assert_eq!((protocol, IpAddr::V4(*external.ip())), (expected, peers.stage.nats[0].address()));
        assert!(took.is_some(), "{speaks:?}: {:?}", peers.endpoint(0).why(&peers.endpoint(1).key()));
        let path = peers.endpoint(1).watch_path(&peers.endpoint(0).key()).expect("a peer").path();
        assert_eq!(path, Path::Direct { address: external.into() }, "{speaks:?}");
        assert!(router.wait_until_it_forwards(host, true, Duration::ZERO), "{}", router.rules());

        let said = netcheck(&peers, programs);
        let (begins, ends) = (format!("the gateway forwards {}:", external.ip()), expected.label());
        assert!(said.starts_with(&begins) && said.ends_with(&format!(" by {ends}")), "{said}");

        close(&peers);
        assert!(router.wait_until_it_forwards(host, false, PATIENCE), "{speaks:?}: {}", router.rules());
    }
}

#[test]
fn a_host_that_gets_another_address_has_the_port_forwarded_to_that_one() {
    let Some((programs, _turn)) = turn() else { return };
    if !Router::is_there() {
        return;
    }
    let mut peers = hard_pair(programs, 4);
    let router = Router::start(&peers.stage.nats[0], Speaks::Upnp);
    peers.start_endpoints();
    let host = peers.stage.hosts[0].address();
    assert!(router.wait_until_it_forwards(host, true, PATIENCE), "{}", router.rules());
    let stage = &mut peers.stage;
    stage.hosts[0].plug(&stage.nats[0]).expect("a host");
    let host = stage.hosts[0].address();
    assert!(router.wait_until_it_forwards(host, true, PATIENCE), "{}", router.rules());
}

/// A device that answers faster than the router does, with a whole gateway of its own, or with the address of another host.
#[test]
fn a_device_that_is_not_the_gateway_is_asked_for_no_port() {
    let Some((programs, _turn)) = turn() else { return };
    let mut peers = hard_pair(programs, 5);
    let stage = &peers.stage;
    let other = stage.lab.add_host(&stage.nats[0]).expect("a host");
    let device = Impostor::start(other.namespace(), other.address(), other.address());
    let gateway = stage.nats[0].gateway();
    let liar = Impostor::start(stage.nats[0].namespace(), gateway, other.address());
    peers.start_endpoints();
    let begun = Instant::now();
    while device.searches() == 0 || liar.searches() == 0 {
        assert!(begun.elapsed() < PATIENCE, "both are found: {device:?}, {liar:?}");
        std::thread::sleep(Duration::from_millis(20));
    }
    // The search takes three seconds.
    let begun = Instant::now();
    while port_mapping(&peers) == PortMapping::Pending && begun.elapsed() < Duration::from_secs(12) {
        std::thread::sleep(Duration::from_millis(20));
    }
    assert_eq!(port_mapping(&peers), PortMapping::Silent);
    let (asked, lied) = (device.requests(), liar.requests());
    assert!(
        asked.iter().all(|line| line.starts_with("GET ")) && !asked.is_empty(),
        "it is described: {asked:?}"
    );
    assert!(lied.is_empty(), "{lied:?}");
}
