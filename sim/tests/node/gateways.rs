//! Gateways that forward a port on request, by PCP and NAT-PMP.

use std::net::SocketAddr;
use std::time::Duration;

use towpath_disco::{PortMapping, Why};
use towpath_sim::{Action, Class, Direct, Flow, FlowId, Gateway, Nat, NatId, Place, Via, sweep};
use towpath_wire::time::Instant;

use super::driver::{START, flow, millis, seeds};
use super::lab::Lab;

const CLASSES: [Class; 3] = [Class::P, Class::S, Class::R];
const SPEAKING: [Gateway; 3] = [Gateway::Pcp, Gateway::NatPmp, Gateway::Both];

fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

/// Two hosts behind NATs of these classes with these gateways.
fn lab(seed: u64, classes: [Class; 2], gateways: [Option<Gateway>; 2]) -> (Lab, [NatId; 2]) {
    let mut nats = Vec::new();
    let lab = Lab::new(seed, |world, side, site| {
        let nat = Nat { gateway: gateways[side], ..classes[side].nat().unwrap() };
        nats.push(world.add_nat(Place::Internet(site), nat));
        Place::Behind(nats[side])
    });
    (lab, nats.try_into().unwrap())
}

fn why(lab: &Lab, side: usize) -> Why {
    let host = lab.world.machine(lab.hosts[side]);
    host.node.why(&host.peer, lab.world.now()).unwrap()
}

fn are_direct(lab: &Lab) -> bool {
    lab.hosts.iter().all(|host| lab.world.machine(*host).is_direct())
}

/// The packets that a host has sent to the gateway of its NAT.
fn asked(lab: &Lab, side: usize, nat: NatId) -> u64 {
    let gateway = lab.world.gateway(nat).unwrap();
    lab.world.sent(lab.hosts[side]).probes_to(|to| to == gateway).packets
}

/// Data both ways each 20 ms from the start on.
fn both_ways(lab: &mut Lab, lasts: Duration) -> [FlowId; 2] {
    let hosts = lab.hosts;
    [(0, 1), (1, 0)].map(|(from, to)| flow(&mut lab.world, hosts[from], hosts[to], lasts))
}

#[test]
fn a_port_that_one_of_two_gateways_forwards_makes_any_pair_direct() {
    for one in CLASSES {
        for other in CLASSES {
            for (side, gateway) in [0, 1].into_iter().flat_map(|side| SPEAKING.map(|gateway| (side, gateway)))
            {
                let mut gateways = [None; 2];
                gateways[side] = Some(gateway);
                let what = format!("{one} {other}, {gateway:?} at {side}");
                let runs = sweep(seeds().div_ceil(2), |seed| {
                    let (mut lab, _) = lab(seed as u64, [one, other], gateways);
                    let flow = lab.send(millis(2900));
                    lab.world.run_until(Instant::from(START) - millis(1));
                    let PortMapping::Granted { external, .. } = why(&lab, side).port_mapping else {
                        panic!("{what}: {:?}", why(&lab, side).port_mapping)
                    };
                    assert_eq!(lab.world.verdict(lab.hosts[0], lab.hosts[1]).direct, Direct::Must, "{what}");
                    let direct = lab.until_direct().unwrap_or_else(|| panic!("{what}, seed {seed}"));
                    if [one, other].iter().all(|class| *class != Class::P) {
                        let peer = lab.world.machine(lab.hosts[1 - side]);
                        assert_eq!(peer.node.direct(&peer.peer), Some(SocketAddr::V4(external)), "{what}");
                    }
                    lab.world.run_until(Instant::from(START) + secs(4));
                    let account = lab.world.account(flow);
                    assert_eq!((account.missing(), account.doubles), (0, 0), "{what}");
                    direct
                });
                let slowest = runs.into_iter().max().unwrap();
                println!("{what}: {slowest:?}");
                // R + D, half of D where the port of a side is learnt from its first probe, and the time until that probe
                // is sent.
                assert!(slowest <= millis(80 + 40 + 20 + 20), "{what}: {slowest:?}");
            }
        }
    }
}

#[test]
fn a_gateway_that_refuses_or_is_silent_leaves_a_hard_pair_relayed_and_why_says_what_would_help() {
    for (gateway, said, remedy) in [
        (
            Gateway::Refusing,
            "the gateway refuses by NAT-PMP with result 2, not authorized",
            "refuses to forward a port",
        ),
        (
            Gateway::Silent,
            "the gateway answers neither PCP, NAT-PMP nor UPnP",
            "enable PCP, NAT-PMP or UPnP on it",
        ),
    ] {
        let (mut lab, _) = lab(1, [Class::R, Class::S], [Some(gateway), None]);
        let flow = lab.send(secs(8));
        lab.world.run_until(Instant::from(START) + secs(9));
        assert!(!are_direct(&lab), "{gateway:?}");
        assert_eq!(lab.world.account(flow).missing(), 0);
        let text = why(&lab, 0).to_string();
        assert!(text.contains(said) && text.contains(remedy), "{text}");
        let other = why(&lab, 1).to_string();
        assert!(!other.contains("gateway") && other.contains("both NATs map by destination"), "{other}");
    }
}

#[test]
fn a_silent_gateway_costs_a_few_packets_and_then_none_for_ten_minutes() {
    let (mut lab, nats) = lab(1, [Class::R, Class::P], [Some(Gateway::Silent), None]);
    lab.send(secs(700));
    lab.world.run_until(Instant::from(secs(10)));
    assert_eq!(asked(&lab, 0, nats[0]), 9);
    lab.world.run_until(Instant::from(secs(608)));
    assert_eq!(asked(&lab, 0, nats[0]), 9);
    lab.world.run_until(Instant::from(secs(620)));
    assert_eq!(asked(&lab, 0, nats[0]), 18);
}

#[test]
fn a_lease_is_renewed_for_hours_while_data_is_sent_every_minute() {
    for gateway in SPEAKING {
        let (mut lab, nats) = lab(1, [Class::R, Class::S], [None, Some(gateway)]);
        let [from, to] = lab.hosts;
        let (start, interval) = (Instant::from(START), secs(60));
        let flow = lab.world.add_flow(Flow { from, to, len: 100, start, interval, count: 480 });
        lab.world.run_until(start + secs(8 * 3600));
        let account = lab.world.account(flow);
        assert_eq!(
            (account.missing(), account.delivered(Via::Relay)),
            (0, 1),
            "{gateway:?}: all but the first"
        );
        assert!(are_direct(&lab));
        let asked = asked(&lab, 1, nats[1]);
        println!("{gateway:?}: {asked} packets in 8 hours");
        assert!(asked <= 40, "{gateway:?}: {asked}");
    }
}

#[test]
fn a_gateway_that_starts_anew_is_asked_for_the_port_again_as_soon_as_the_path_fails() {
    for gateway in SPEAKING {
        for (side, new_ports) in [(0, false), (0, true), (1, false), (1, true)] {
            let mut gateways = [None; 2];
            gateways[side] = Some(gateway);
            let slowest = sweep(seeds().div_ceil(4), |seed| {
                let (mut lab, nats) = lab(seed as u64, [Class::R, Class::R], gateways);
                let flows = both_ways(&mut lab, secs(30));
                assert!(lab.until_direct().is_some());
                let restart = Instant::from(START) + secs(15) + millis(7 * seed as u64);
                lab.world.run_until(restart);
                lab.world.act_now(Action::Rebind { nat: nats[side], new_ports });
                lab.world.run_until(restart + secs(10));
                assert!(are_direct(&lab), "{gateway:?} at {side}, {new_ports}");
                assert!(matches!(why(&lab, side).port_mapping, PortMapping::Granted { .. }));
                let by_relay = |lab: &Lab| flows.map(|flow| lab.world.account(flow).delivered(Via::Relay));
                let relayed = by_relay(&lab);
                lab.world.run_until(restart + secs(12));
                assert_eq!(by_relay(&lab), relayed, "no data goes over the relay any more");
                flows
                    .map(|flow| lab.world.account(flow).largest_gap(restart, restart + secs(12)))
                    .into_iter()
                    .max()
            });
            let slowest = slowest.into_iter().flatten().max().unwrap();
            println!("{gateway:?} at {side}, {new_ports}: a gap of {slowest:?}");
            assert!(slowest <= millis(250 + 40 + 30), "{gateway:?} at {side}: a gap of {slowest:?}");
        }
    }
}

#[test]
fn a_host_that_moves_asks_the_gateway_of_the_next_network() {
    for seed in 0..seeds() as u64 {
        let (mut lab, nats) = lab(seed, [Class::R, Class::R], [Some(Gateway::Pcp), None]);
        both_ways(&mut lab, secs(12));
        assert!(lab.until_direct().is_some());
        lab.world.run_until(Instant::from(START) + secs(4));
        let next = Nat { gateway: Some(Gateway::NatPmp), ..Class::S.nat().unwrap() };
        let next = lab.world.add_nat(Place::Internet(lab.sites[0]), next);
        let places = vec![Place::Behind(next)];
        lab.world.act_now(Action::Roam { host: lab.hosts[0], places, gap: Duration::ZERO });
        assert!(!are_direct(&lab), "seed {seed}");
        let until = lab.world.now() + secs(3);
        let hosts = lab.hosts;
        let there = lab.world.nat_addresses(next)[0];
        let again = lab.world.run_until_holds(until, |world| {
            let peer = world.machine(hosts[1]);
            world.machine(hosts[0]).is_direct()
                && peer.node.direct(&peer.peer).is_some_and(|address| address.ip() == there)
        });
        assert!(again.is_some(), "seed {seed}: {}", why(&lab, 1));
        assert!(asked(&lab, 0, nats[0]) <= 3, "the first one");
    }
}

#[test]
fn a_node_that_ends_gives_its_port_back() {
    for gateway in SPEAKING {
        let (mut lab, nats) = lab(1, [Class::R, Class::P], [Some(gateway), None]);
        lab.world.run_until(Instant::from(START));
        let mappings = lab.world.mappings(nats[0]);
        lab.world.with(lab.hosts[0], |host, _| host.node.close());
        lab.world.run_until(Instant::from(START) + millis(100));
        assert_eq!(lab.world.mappings(nats[0]), mappings - 1, "{gateway:?}");
    }
}

/// The gateway of a home gives out a port of an address between the home and its carrier.
#[test]
fn a_port_behind_another_nat_is_of_use_to_peers_behind_that_one_and_to_no_others() {
    let home = || Nat { gateway: Some(Gateway::Both), ..Class::P.nat().unwrap() };
    let mut carrier = None;
    let mut lab = Lab::new(1, |world, _, site| {
        let carrier =
            *carrier.get_or_insert_with(|| world.add_nat(Place::Internet(site), Class::P.nat().unwrap()));
        Place::Behind(world.add_nat(Place::Behind(carrier), home()))
    });
    lab.send(millis(2900));
    assert!(lab.until_direct().is_some(), "the carrier does not hairpin");

    let mut lab = Lab::new(1, |world, side, site| {
        let nat = world.add_nat(Place::Internet(site), Class::R.nat().unwrap());
        if side == 0 { Place::Behind(world.add_nat(Place::Behind(nat), home())) } else { Place::Behind(nat) }
    });
    lab.send(millis(2900));
    assert_eq!(lab.until_direct(), None);
    let text = why(&lab, 0).to_string();
    assert!(text.contains(", behind another NAT; "), "{text}");
    assert!(text.contains("forward a UDP port on that one"), "{text}");
    let PortMapping::Inner { external, .. } = why(&lab, 0).port_mapping else { panic!("{text}") };
    let tried = why(&lab, 1).tried;
    assert!(tried.iter().all(|(address, _)| *address != SocketAddr::V4(external)), "{tried:?}");
}
