//! What a NAT does, seen from inside and outside of it.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use towpath_wire::time::Instant;

use super::Allocator::{Block, Preserve, Step};
use super::Dependence::{AddressAndPortDependent, AddressDependent, EndpointIndependent};
use super::*;
use crate::random::Random;
use crate::trace::Dropped;

const ALL: [Dependence; 3] = [EndpointIndependent, AddressDependent, AddressAndPortDependent];

fn address(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

fn at(seconds: u64) -> Instant {
    Instant::from_nanos(seconds * 1_000_000_000)
}

fn table_of(nat: Nat, seed: u64) -> Table {
    let addresses = (1..=nat.addresses).map(|last| IpAddr::from([45, 0, 0, last])).collect();
    Table::new(nat, addresses, Random::new(seed))
}

/// An internal endpoint.
fn inner(port: u16) -> SocketAddr {
    SocketAddr::from(([10, 0, 0, 2], port))
}

/// One of two servers, with one of two ports.
fn server(host: u8, port: u16) -> SocketAddr {
    SocketAddr::from(([50, 0, 0, host], port))
}

/// The mapping of a NAT, told from the sources that three remotes see.
fn classify_mapping(table: &mut Table) -> Dependence {
    let mut seen = |remote| table.outbound(at(0), inner(4000), remote).unwrap();
    let [first, other_port, other_host] = [server(1, 1), server(1, 2), server(2, 1)].map(&mut seen);
    assert_eq!(seen(server(1, 1)), first, "a mapping stays");
    match (first == other_port, first == other_host) {
        (true, true) => EndpointIndependent,
        (true, false) => AddressDependent,
        (false, false) => AddressAndPortDependent,
        (false, true) => panic!("no such mapping"),
    }
}

/// The filter of a NAT, told from which of three remotes reach a flow to the first.
fn classify_filter(table: &mut Table) -> Dependence {
    let outer = table.outbound(at(0), inner(4001), server(1, 1)).unwrap();
    let mut reaches = |remote| match table.inbound(at(0), remote, outer) {
        Ok(reached) => {
            assert_eq!(reached, inner(4001));
            true
        }
        Err(why) => {
            assert_eq!(why, Dropped::Filtered);
            false
        }
    };
    assert!(reaches(server(1, 1)));
    match (reaches(server(1, 2)), reaches(server(2, 1))) {
        (true, true) => EndpointIndependent,
        (true, false) => AddressDependent,
        (false, false) => AddressAndPortDependent,
        (false, true) => panic!("no such filter"),
    }
}

#[test]
fn mapping_filter_and_allocator_are_as_promised_in_every_combination() {
    let allocators = [Preserve, Step(1), Step(256), Block { start: 20_000, size: 512 }, Allocator::Random];
    for mapping in ALL {
        for filtering in ALL {
            for allocator in allocators {
                let nat = Nat::new(mapping, filtering, allocator);
                for seed in 0..20 {
                    let case = format!("{nat:?}, seed {seed}");
                    assert_eq!(classify_mapping(&mut table_of(nat, seed)), mapping, "{case}");
                    assert_eq!(classify_filter(&mut table_of(nat, seed)), filtering, "{case}");
                }
            }
        }
    }
}

#[test]
fn classes_are_what_their_letters_say() {
    for class in Class::ALL {
        assert_eq!(class.to_string().parse(), Ok(class));
    }
    assert_eq!("p".parse::<Class>(), Err(UnknownClass));
    let told = |class: Class| {
        let nat = class.nat().unwrap();
        (classify_mapping(&mut table_of(nat, 1)), classify_filter(&mut table_of(nat, 1)))
    };
    assert_eq!(told(Class::F), (EndpointIndependent, EndpointIndependent));
    assert_eq!(told(Class::A), (EndpointIndependent, AddressDependent));
    for easy in [Class::P, Class::Poisonable] {
        assert_eq!(told(easy), (EndpointIndependent, AddressAndPortDependent), "{easy}");
    }
    assert_eq!(told(Class::M), (AddressDependent, AddressAndPortDependent));
    for hard in [Class::S, Class::B, Class::R] {
        assert_eq!(told(hard), (AddressAndPortDependent, AddressAndPortDependent), "{hard}");
    }
    let blocked = table_of(Class::X.nat().unwrap(), 1).outbound(at(0), inner(1), server(1, 1));
    assert_eq!(blocked, Err(Dropped::Egress));
    assert_eq!(Class::O.nat(), None);
}

/// The external ports of flows from one socket to remotes of their own.
fn ports(table: &mut Table, flows: u16) -> Vec<u16> {
    let outer = |port| table.outbound(at(0), inner(4000), server(1, port)).unwrap().port();
    (1..=flows).map(outer).collect()
}

#[test]
fn allocators_give_the_ports_that_they_promise() {
    let strict = |allocator| Nat::new(AddressAndPortDependent, AddressAndPortDependent, allocator);
    for step in [1, 2, 256] {
        let given = ports(&mut table_of(strict(Step(step)), 3), 200);
        let steps = given.windows(2).filter(|pair| pair[1].wrapping_sub(pair[0]) == step).count();
        // All but those around the end, which are few.
        assert!(steps >= 195, "step {step}: {steps}");
        assert!(given.iter().all(|port| *port >= 1024));
    }
    let block = Block { start: 20_000, size: 512 };
    let mut given = ports(&mut table_of(strict(block), 3), 512);
    given.sort_unstable();
    assert_eq!(given, (20_000..20_512).collect::<Vec<_>>(), "each port of the block, once");
    let mut full = table_of(strict(block), 3);
    ports(&mut full, 512);
    assert_eq!(full.outbound(at(0), inner(4000), server(1, 999)), Err(Dropped::NoPort));
    // After the timeout the ports are free again.
    assert!(full.outbound(at(121), inner(4000), server(1, 999)).is_ok());

    let given = ports(&mut table_of(strict(Allocator::Random), 3), 512);
    let octiles: std::collections::BTreeSet<u16> = given.iter().map(|port| port / 8192).collect();
    assert_eq!(octiles.len(), 8, "spread over the whole range");

    let mut preserve = table_of(Nat::new(EndpointIndependent, AddressAndPortDependent, Preserve), 3);
    assert_eq!(preserve.outbound(at(0), inner(4000), server(1, 1)), Ok(address("45.0.0.1:4000")));
    let second = SocketAddr::from(([10, 0, 0, 3], 4000));
    let moved = preserve.outbound(at(0), second, server(1, 1)).unwrap();
    assert_ne!(moved.port(), 4000, "the port is taken");
    // A virgin socket behind a symmetric NAT that preserves ports keeps its port for its first remote.
    let given = ports(&mut table_of(strict(Preserve), 3), 3);
    assert_eq!(given[0], 4000);
    assert!(given[1] != 4000 && given[2] != 4000);
}

#[test]
fn a_quota_bounds_the_mappings() {
    let strict = Nat::new(AddressAndPortDependent, AddressAndPortDependent, Allocator::Random);
    let mut table = table_of(Nat { quota: 64, ..strict }, 1);
    assert_eq!(ports(&mut table, 64).len(), 64);
    assert_eq!(table.outbound(at(0), inner(4000), server(1, 100)), Err(Dropped::NoPort));
    assert!(table.outbound(at(0), inner(4000), server(1, 5)).is_ok(), "a flow that has a mapping");
    assert_eq!((table.mappings(at(0)), table.mappings(at(120))), (64, 0));
    assert!(table.outbound(at(120), inner(4000), server(1, 100)).is_ok());
}

#[test]
fn pools_are_paired_or_arbitrary() {
    let pool = |pooling| {
        let strict = Nat::new(AddressAndPortDependent, AddressAndPortDependent, Allocator::Random);
        let mut table = table_of(Nat { addresses: 4, pooling, ..strict }, 1);
        let outer = |port| table.outbound(at(0), inner(4000), server(1, port)).unwrap().ip();
        (1..=100).map(outer).collect::<std::collections::BTreeSet<_>>().len()
    };
    assert_eq!(pool(Pooling::Paired), 1);
    assert_eq!(pool(Pooling::Arbitrary), 4);
    assert_eq!(pool(Pooling::PerFlow), 4);
}

#[test]
fn flows_that_are_spread_over_nats_keep_their_port_and_change_the_address() {
    let nat = Nat { addresses: 2, pooling: Pooling::PerFlow, ..Class::P.nat().unwrap() };
    let mut table = table_of(nat, 1);
    let mut seen = std::collections::BTreeSet::new();
    for port in 1..=20 {
        let outer = table.outbound(at(0), inner(4000), server(1, port)).unwrap();
        assert_eq!(table.outbound(at(1), inner(4000), server(1, port)), Ok(outer));
        assert_eq!(table.inbound(at(1), server(1, port), outer), Ok(inner(4000)));
        seen.insert(outer);
    }
    assert!(seen.into_iter().eq(["45.0.0.1:4000", "45.0.0.2:4000"].map(address)));
}

/// What a gateway answers to a client inside.
fn ask(table: &mut Table, second: u64, request: &[u8]) -> Option<Vec<u8>> {
    answer(table, at(second), inner(5350), request)
}

fn with_gateway(gateway: Gateway) -> Table {
    table_of(Nat { gateway: Some(gateway), ..Class::P.nat().unwrap() }, 1)
}

/// A request of NAT-PMP for an external port.
fn pmp_request(internal: u16, wanted: u16, lifetime: u32) -> Vec<u8> {
    let [internal, wanted] = [internal, wanted].map(u16::to_be_bytes);
    [&[0, 1, 0, 0][..], &internal, &wanted, &lifetime.to_be_bytes()].concat()
}

/// A request of PCP for an external port, with a nonce of nines.
fn pcp_request(client: [u8; 4], internal: u16, wanted: u16, lifetime: u32) -> Vec<u8> {
    let mut request = [&[2, 1, 0, 0][..], &lifetime.to_be_bytes(), &[0; 10], &[0xff; 2], &client].concat();
    request.extend_from_slice(&[9; 12]);
    request.extend_from_slice(&[17, 0, 0, 0]);
    request.extend_from_slice(&internal.to_be_bytes());
    request.extend_from_slice(&wanted.to_be_bytes());
    request.extend_from_slice(&[0; 16]);
    request
}

#[test]
fn nat_pmp_opens_a_port_for_as_long_as_granted() {
    let mut table = with_gateway(Gateway::NatPmp);
    let external = ask(&mut table, 3, &[0, 0]).unwrap();
    assert_eq!(external, [0, 128, 0, 0, 0, 0, 0, 3, 45, 0, 0, 1]);
    let answer = ask(&mut table, 3, &pmp_request(4000, 0, 9999)).unwrap();
    assert_eq!(
        answer,
        [0, 129, 0, 0, 0, 0, 0, 3, 0x0f, 0xa0, 0x0f, 0xa0, 0, 0, 0x1c, 0x20],
        "two hours at most"
    );
    let outer = address("45.0.0.1:4000");
    assert_eq!(table.inbound(at(7000), server(1, 1), outer), Ok(inner(4000)));
    assert_eq!(table.outbound(at(7000), inner(4000), server(2, 2)), Ok(outer));
    assert_eq!(
        table.inbound(at(7203), server(1, 1), outer),
        Err(Dropped::NoMapping),
        "traffic keeps nothing"
    );
    // The port that the host has by a mapping already is the host's to have.
    table.outbound(at(7500), inner(4000), server(1, 1)).unwrap();
    assert_eq!(ask(&mut table, 7500, &pmp_request(4000, 4000, 60)).unwrap()[10..12], 4000_u16.to_be_bytes());
    assert_eq!(table.inbound(at(7559), server(9, 9), outer), Ok(inner(4000)));
    // A wanted port that another host has is not given.
    let other = SocketAddr::from(([10, 0, 0, 3], 4000));
    table.outbound(at(8000), other, server(1, 1)).unwrap();
    let answer = ask(&mut table, 8000, &pmp_request(4000, 4000, 60)).unwrap();
    assert_ne!(answer[10..12], 4000_u16.to_be_bytes());
    // It is kept when it is asked for again, and given back with a lifetime of zero.
    assert_eq!(ask(&mut table, 8001, &pmp_request(4000, 0, 60)).unwrap()[10..12], answer[10..12]);
    let given = SocketAddr::new(outer.ip(), u16::from_be_bytes([answer[10], answer[11]]));
    assert_eq!(ask(&mut table, 8002, &pmp_request(4000, 0, 0)).unwrap()[8..], [0x0f, 0xa0, 0, 0, 0, 0, 0, 0]);
    assert_eq!(table.inbound(at(8003), server(1, 1), given), Err(Dropped::NoMapping));
    // PCP is answered with an error of NAT-PMP.
    assert_eq!(ask(&mut table, 9, &pcp_request([10, 0, 0, 2], 1, 0, 60)).unwrap()[..4], [0, 128, 0, 1]);
    assert_eq!(ask(&mut table, 9, &[0, 7]).unwrap()[..4], [0, 135, 0, 5]);
    assert_eq!(ask(&mut table, 9, &[]), None);
}

#[test]
fn pcp_opens_a_port_and_repeats_the_nonce() {
    let mut table = with_gateway(Gateway::Pcp);
    let answer = ask(&mut table, 3, &pcp_request([10, 0, 0, 2], 4000, 5000, 600)).unwrap();
    let expected = [
        &[2, 129, 0, 0, 0, 0, 2, 0x58, 0, 0, 0, 3][..],
        &[0; 12],
        &[9; 12],
        &[17, 0, 0, 0, 0x0f, 0xa0, 0x13, 0x88],
        &[0; 10],
        &[0xff, 0xff, 45, 0, 0, 1],
    ];
    assert_eq!(answer, expected.concat());
    assert_eq!(table.inbound(at(602), server(1, 1), address("45.0.0.1:5000")), Ok(inner(4000)));
    assert!(table.inbound(at(603), server(1, 1), address("45.0.0.1:5000")).is_err());
    let refused = |table: &mut Table, request: &[u8]| ask(table, 3, request).map(|answer| answer[3]);
    assert_eq!(refused(&mut table, &pcp_request([10, 0, 0, 3], 1, 0, 60)), Some(12), "of another address");
    assert_eq!(refused(&mut table, &pcp_request([10, 0, 0, 2], 1, 0, 60)[..56]), Some(3));
    assert_eq!(refused(&mut table, &[0, 0]), Some(1), "NAT-PMP");
    assert_eq!(refused(&mut table, &answer), None, "an answer is not answered");
    // A reboot loses what was granted.
    ask(&mut table, 700, &pcp_request([10, 0, 0, 2], 4000, 5000, 600)).unwrap();
    table.restart(false, at(700));
    assert!(table.inbound(at(701), server(1, 1), address("45.0.0.1:5000")).is_err());
    let answer = ask(&mut table, 703, &pcp_request([10, 0, 0, 2], 4000, 5000, 600)).unwrap();
    assert_eq!(answer[8..12], [0, 0, 0, 3], "seconds since then");
}

#[test]
fn a_gateway_may_refuse_or_be_silent() {
    let mut table = with_gateway(Gateway::Refusing);
    let request = pcp_request([10, 0, 0, 2], 4000, 5000, 600);
    let answer = ask(&mut table, 3, &request).unwrap();
    assert_eq!((answer[3], &answer[24..]), (2, &request[24..]));
    assert_eq!(ask(&mut table, 3, &pmp_request(4000, 0, 60)).unwrap(), [0, 129, 0, 2, 0, 0, 0, 3]);
    assert_eq!(ask(&mut table, 3, &[0, 0]).unwrap()[3], 0, "it tells its address");
    let mut table = with_gateway(Gateway::Silent);
    for request in [&[0, 0][..], &pmp_request(4000, 0, 60), &request] {
        assert_eq!(ask(&mut table, 3, request), None);
    }
}

#[test]
fn an_early_packet_moves_the_later_mapping_where_it_is_accepted_and_only_there() {
    for (class, poisoned) in [(Class::P, false), (Class::Poisonable, true)] {
        let mut table = table_of(class.nat().unwrap(), 1);
        let usual = table.outbound(at(0), inner(4000), server(1, 1)).unwrap();
        let peer = server(9, 4000);
        assert_eq!(table.inbound(at(1), peer, usual), Err(Dropped::Filtered), "{class}");
        let toward_peer = table.outbound(at(2), inner(4000), peer).unwrap();
        assert_eq!(toward_peer != usual, poisoned, "{class}");
        // Only the flow that collides is moved.
        assert_eq!(table.outbound(at(2), inner(4000), server(2, 1)), Ok(usual), "{class}");
        // The peer's packets to the advertised port stay out, and keep the bad entry; those to the new one come in.
        for second in [20, 45, 70] {
            assert_eq!(table.inbound(at(second), peer, usual).is_err(), poisoned, "{class}");
            assert_eq!(table.inbound(at(second), peer, toward_peer), Ok(inner(4000)), "{class}");
            assert_eq!(table.early(at(second + 29)), usize::from(poisoned), "{class}");
        }
        assert_eq!(table.early(at(100)), 0, "{class}");
    }
}

#[test]
fn an_early_packet_before_the_first_mapping_moves_only_the_flow_to_its_sender() {
    let mut table = table_of(Class::Poisonable.nat().unwrap(), 1);
    let peer = server(9, 4000);
    assert_eq!(table.inbound(at(0), peer, address("45.0.0.1:4000")), Err(Dropped::NoMapping));
    assert_ne!(table.outbound(at(1), inner(4000), peer).unwrap().port(), 4000);
    assert_eq!(table.outbound(at(1), inner(4000), server(1, 1)).unwrap().port(), 4000);
    // A mapping that was opened first is safe.
    let mut table = table_of(Class::Poisonable.nat().unwrap(), 1);
    let outer = table.outbound(at(0), inner(4000), peer).unwrap();
    assert_eq!(table.inbound(at(1), peer, outer), Ok(inner(4000)));
    assert_eq!((outer.port(), table.early(at(1))), (4000, 0));
}

#[test]
fn mappings_end_unless_the_right_packets_refresh_them() {
    for (refresh, lives) in [(Refresh::Both, true), (Refresh::Outbound, false)] {
        let usual = Nat::new(EndpointIndependent, AddressAndPortDependent, Preserve);
        let nat = Nat { timeout: Duration::from_secs(10), refresh, ..usual };
        let mut table = table_of(nat, 1);
        let outer = table.outbound(at(0), inner(4000), server(1, 1)).unwrap();
        assert!(table.inbound(at(9), server(1, 1), outer).is_ok());
        assert_eq!(table.inbound(at(15), server(1, 1), outer).is_ok(), lives, "{refresh:?}");
        table.outbound(at(15), inner(4000), server(1, 1)).unwrap();
        assert!(table.inbound(at(24), server(1, 1), outer).is_ok(), "{refresh:?}");
        assert_eq!(table.inbound(at(35), server(1, 1), outer), Err(Dropped::NoMapping), "{refresh:?}");
    }
    // A permit ends by itself, also when other flows keep the mapping alive.
    let mut table = table_of(Class::P.nat().unwrap(), 1);
    let outer = table.outbound(at(0), inner(4000), server(1, 1)).unwrap();
    table.outbound(at(100), inner(4000), server(2, 1)).unwrap();
    assert_eq!(table.inbound(at(130), server(1, 1), outer), Err(Dropped::Filtered));
    assert!(table.inbound(at(130), server(2, 1), outer).is_ok());
}

#[test]
fn a_rebind_loses_mappings_and_takes_other_ports_if_asked_to() {
    for new_ports in [false, true] {
        let mut table = table_of(Class::P.nat().unwrap(), 1);
        let outer = table.outbound(at(0), inner(4000), server(1, 1)).unwrap();
        let forwarded = address("45.0.0.1:80");
        table.forward(forwarded, inner(80), None);
        table.restart(new_ports, at(1));
        assert_eq!(table.inbound(at(1), server(1, 1), outer), Err(Dropped::NoMapping));
        let again = table.outbound(at(1), inner(4000), server(1, 1)).unwrap();
        assert_eq!(again != outer, new_ports);
        assert_eq!(table.inbound(at(1), server(3, 3), forwarded), Ok(inner(80)), "set up by hand");
    }
}

#[test]
fn a_forwarded_port_is_open_to_all_and_answers_leave_by_it() {
    let strict = Nat::new(AddressAndPortDependent, AddressAndPortDependent, Allocator::Random);
    let mut table = table_of(strict, 1);
    let outer = address("45.0.0.1:41641");
    table.forward(outer, inner(41641), None);
    assert_eq!(table.inbound(at(500), server(1, 1), outer), Ok(inner(41641)));
    assert_eq!(table.outbound(at(501), inner(41641), server(1, 1)), Ok(outer));
    assert_ne!(table.outbound(at(501), inner(41641), server(1, 2)), Ok(outer), "a flow from inside");
}

#[test]
fn a_firewall_translates_nothing_and_lets_in_what_was_asked_for() {
    let mut table = Table::new(Nat::firewall(), Vec::new(), Random::new(1));
    let inside = address("[2600:1::2]:41641");
    let [peer, other] = [address("[2600:2::2]:41641"), address("[2600:2::2]:41642")];
    assert_eq!(table.inbound(at(0), peer, inside), Err(Dropped::NoMapping));
    assert_eq!(table.outbound(at(0), inside, peer), Ok(inside));
    assert_eq!(table.inbound(at(0), peer, inside), Ok(inside));
    assert_eq!(table.inbound(at(0), other, inside), Err(Dropped::Filtered));
}

#[test]
fn egress_may_be_restricted_to_a_port() {
    let nat = Nat { egress: Egress::Port(443), ..Class::P.nat().unwrap() };
    let mut table = table_of(nat, 1);
    assert_eq!(table.outbound(at(0), inner(4000), server(1, 3478)), Err(Dropped::Egress));
    assert!(table.outbound(at(0), inner(4000), server(1, 443)).is_ok());
}

#[test]
fn dead_mappings_are_cleared_away() {
    let strict = Nat::new(AddressAndPortDependent, AddressAndPortDependent, Allocator::Random);
    let mut table = table_of(Nat { timeout: Duration::from_secs(1), ..strict }, 1);
    for second in 0..5000 {
        let port = u16::try_from(second + 1).unwrap();
        let outer = table.outbound(at(second), inner(4000), server(1, port)).unwrap();
        assert_eq!(table.inbound(at(second), server(1, port), outer), Ok(inner(4000)));
    }
    assert!(table.len() <= 128, "{}", table.len());
}

/// The share of runs in which one of so many mappings toward a peer is met by one of so many probes of the peer.
fn birthday(allocator: Allocator, range: (u16, u16), mappings: u16, probes: u16) -> f64 {
    const RUNS: u32 = 2000;
    let hits = (0..RUNS).filter(|run| {
        let nat = Nat::new(AddressAndPortDependent, AddressAndPortDependent, allocator);
        let mut table = table_of(nat, u64::from(*run));
        let peer = server(9, 41641);
        for port in 0..mappings {
            table.outbound(at(0), inner(10_000 + port), peer).unwrap();
        }
        let mut random = Random::stream(u64::from(*run), 1);
        let mut probed = std::collections::BTreeSet::new();
        while probed.len() < usize::from(probes) {
            probed.insert(random.port(range.0, range.1));
        }
        probed
            .into_iter()
            .any(|port| table.inbound(at(0), peer, SocketAddr::from(([45, 0, 0, 1], port))).is_ok())
    });
    f64::from(u32::try_from(hits.count()).unwrap()) / f64::from(RUNS)
}

#[test]
fn guessed_ports_are_met_as_often_as_theory_says() {
    let full = (1024, 65_535);
    for (mappings, probes, theory) in [(211, 211, 0.500), (256, 256, 0.639), (64, 512, 0.400)] {
        let share = birthday(Allocator::Random, full, mappings, probes);
        assert!((share - theory).abs() < 0.05, "{mappings} and {probes}: {share}, not {theory}");
    }
    let block = Block { start: 20_000, size: 512 };
    let share = birthday(block, (20_000, 20_511), 32, 64);
    assert!((share - 0.988).abs() < 0.01, "{share}");
}
