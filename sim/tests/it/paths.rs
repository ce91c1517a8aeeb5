//! The ways of datagrams: through NATs that are stacked or shared, with few hops, and back by hairpin.

use std::net::SocketAddr;

use towpath_disco::datagram::Transmit;
use towpath_sim::{
    Allocator, Class, Dependence, Direct, Dropped, Gateway, Happening, HostId, Nat, NatId, Place, World,
};
use towpath_stun_proto::{REQUEST_LEN, Response, TransactionId, write_request};

use crate::puppet::{Puppet, add, heard, key, run, send, send_ttl, world};

/// The address of a host's socket.
fn own(world: &World<Puppet>, host: HostId) -> SocketAddr {
    world.addresses(host)[0]
}

/// Asks a STUN server for the address of a host.
fn reflexive(world: &mut World<Puppet>, host: HostId, server: SocketAddr) -> Option<SocketAddr> {
    let mut request = [0; REQUEST_LEN];
    write_request(&mut request, TransactionId([7; 12]));
    let transmit = Transmit::Udp { src: None, dst: server, ttl: None };
    world.with(host, |puppet, _| puppet.out.push_back((transmit, request.to_vec())));
    run(world, 500);
    let heard = world.with(host, |puppet, _| std::mem::take(&mut puppet.heard));
    heard.iter().find_map(|(.., packet)| Some(Response::parse(packet).ok()?.mapped))
}

fn drops(world: &World<Puppet>) -> Vec<Dropped> {
    let why = |what: &Happening| match what {
        Happening::Dropped { why, .. } => Some(*why),
        _ => None,
    };
    world.trace().iter().filter_map(|(_, what)| why(what)).collect()
}

#[test]
fn hosts_on_the_internet_reach_each_other_after_the_delay() {
    let (mut world, [here, there]) = world(1);
    let [a, b] = [here, there].map(|site| add(&mut world, Place::Internet(site)));
    run(&mut world, 10);
    let dst = own(&world, b);
    send(&mut world, a, dst, "hello");
    run(&mut world, 19);
    assert_eq!(heard(&mut world, b), [""; 0]);
    run(&mut world, 1);
    assert_eq!(world.machine(b).remotes(), [own(&world, a)]);
    assert_eq!(heard(&mut world, b), ["hello"]);
}

#[test]
fn a_stun_server_tells_the_address_behind_all_nats() {
    let (mut world, [here, there]) = world(1);
    let servers = [world.add_stun(there), world.add_stun(there)];
    let cgn = world.add_nat(Place::Internet(here), Class::P.nat().unwrap());
    let home = world.add_nat(Place::Behind(cgn), Class::P.nat().unwrap());
    let host = add(&mut world, Place::Behind(home));
    let expected = SocketAddr::new(world.nat_addresses(cgn)[0], 41641);
    for server in servers {
        assert_eq!(reflexive(&mut world, host, server), Some(expected));
        let other_port = SocketAddr::new(server.ip(), 3479);
        assert_eq!(reflexive(&mut world, host, other_port), Some(expected));
    }
    assert_eq!((world.mappings(home), world.mappings(cgn)), (1, 1));

    let symmetric = world.add_nat(Place::Behind(cgn), Class::R.nat().unwrap());
    let hard = add(&mut world, Place::Behind(symmetric));
    let [one, other] = servers.map(|server| reflexive(&mut world, hard, server).unwrap());
    assert_ne!(one, other);
    assert_eq!(one.ip(), expected.ip());
}

/// Two hosts behind NATs of their own at two sites, and the external endpoints of both.
fn two(seed: u64, classes: [Class; 2]) -> (World<Puppet>, [HostId; 2], [SocketAddr; 2], [NatId; 2]) {
    let (mut world, [here, there, far]) = world(seed);
    let server = world.add_stun(far);
    let nats = [(here, classes[0]), (there, classes[1])]
        .map(|(site, class)| world.add_nat(Place::Internet(site), class.nat().unwrap()));
    let hosts = nats.map(|nat| add(&mut world, Place::Behind(nat)));
    let outer = hosts.map(|host| reflexive(&mut world, host, server).unwrap());
    world.keep_trace();
    (world, hosts, outer, nats)
}

#[test]
fn simultaneous_packets_open_both_filters() {
    let (mut world, [a, b], outer, _) = two(1, [Class::P, Class::P]);
    send(&mut world, a, outer[1], "too early");
    run(&mut world, 100);
    assert_eq!(drops(&world), [Dropped::Filtered]);
    send(&mut world, b, outer[0], "through");
    run(&mut world, 100);
    send(&mut world, a, outer[1], "and back");
    run(&mut world, 100);
    assert_eq!(
        (heard(&mut world, a), heard(&mut world, b)),
        (vec!["through".into()], vec!["and back".into()])
    );
}

#[test]
fn an_early_packet_poisons_the_nat_of_the_peer() {
    let (mut world, [a, b], outer, nats) = two(1, [Class::P, Class::Poisonable]);
    send(&mut world, a, outer[1], "too early");
    run(&mut world, 100);
    assert_eq!(world.early_packets(nats[1]), 1);
    for _ in 0..3 {
        send(&mut world, b, outer[0], "from another port");
        send(&mut world, a, outer[1], "to the old port");
        run(&mut world, 100);
    }
    assert_eq!((heard(&mut world, a).len(), heard(&mut world, b).len()), (0, 0));
    // An opener that dies between the NATs does no harm.
    let (mut world, [a, b], outer, nats) = two(1, [Class::P, Class::Poisonable]);
    send_ttl(&mut world, a, outer[1], "opener", Some(3));
    run(&mut world, 100);
    assert_eq!((world.early_packets(nats[1]), drops(&world)), (0, vec![Dropped::Ttl]));
    send(&mut world, b, outer[0], "through");
    run(&mut world, 100);
    send(&mut world, a, outer[1], "and back");
    run(&mut world, 100);
    assert_eq!((heard(&mut world, a).len(), heard(&mut world, b).len()), (1, 1));
}

#[test]
fn packets_die_at_the_hop_that_their_ttl_says() {
    // Own NAT, two routers, the NAT of the peer. Addressed to the last one, a packet that has one hop left still reaches
    // it, and is not forwarded.
    for (ttl, opens, poisons, arrives) in [
        (1, false, false, false),
        (2, true, false, false),
        (3, true, false, false),
        (4, true, true, false),
        (5, true, true, true),
        (64, true, true, true),
    ] {
        let (mut world, [a, b], outer, nats) = two(1, [Class::P, Class::Poisonable]);
        send_ttl(&mut world, a, outer[1], "early", Some(ttl));
        run(&mut world, 100);
        assert_eq!(world.early_packets(nats[1]), usize::from(poisons), "ttl {ttl}");

        let (mut world2, [a2, b2], outer, _) = two(1, [Class::P, Class::P]);
        send(&mut world2, b2, outer[0], "opens");
        run(&mut world2, 100);
        send_ttl(&mut world2, a2, outer[1], "late", Some(ttl));
        run(&mut world2, 100);
        assert_eq!(heard(&mut world2, b2).len(), usize::from(arrives), "ttl {ttl}");
        // Whether the way back is open.
        send(&mut world, b, outer[0], "back");
        send(&mut world2, b2, outer[0], "back");
        run(&mut world2, 100);
        assert_eq!(heard(&mut world2, a2).len(), usize::from(opens), "ttl {ttl}");
        drop((world, a));
    }
}

#[test]
fn hosts_behind_one_nat_meet_on_the_lan_and_by_hairpin_only_where_it_is_done() {
    for hairpin in [false, true] {
        let (mut world, [here, there]) = world(1);
        let server = world.add_stun(there);
        let usual = Class::F.nat().unwrap();
        let nat = world.add_nat(Place::Internet(here), Nat { hairpin, ..usual });
        let [a, b] = [0, 1].map(|_| add(&mut world, Place::Behind(nat)));
        let outer = [a, b].map(|host| reflexive(&mut world, host, server).unwrap());
        let lan = own(&world, b);
        world.keep_trace();
        send_ttl(&mut world, a, lan, "on the LAN", Some(1));
        run(&mut world, 1);
        assert_eq!(heard(&mut world, b), ["on the LAN"]);
        send(&mut world, a, outer[1], "around");
        run(&mut world, 10);
        assert_eq!(world.machine(b).remotes(), if hairpin { vec![outer[0]] } else { vec![] });
        assert_eq!(drops(&world), if hairpin { vec![] } else { vec![Dropped::Hairpin] });
    }
}

#[test]
fn homes_behind_one_cgn_meet_by_its_hairpin() {
    for hairpin in [false, true] {
        let (mut world, [here, there]) = world(1);
        let server = world.add_stun(there);
        let usual = Class::P.nat().unwrap();
        let cgn = world.add_nat(Place::Internet(here), Nat { hairpin, ..usual });
        let homes = [0, 1].map(|_| world.add_nat(Place::Behind(cgn), usual));
        let [a, b] = homes.map(|home| add(&mut world, Place::Behind(home)));
        let outer = [a, b].map(|host| reflexive(&mut world, host, server).unwrap());
        assert_eq!(outer[0].ip(), outer[1].ip());
        for _ in 0..2 {
            send(&mut world, a, outer[1], "from a");
            send(&mut world, b, outer[0], "from b");
            run(&mut world, 10);
        }
        let expected = if hairpin { 1 } else { 0 };
        // The first of the four opens the way for the others.
        assert!(world.machine(a).heard.len() > expected || !hairpin);
        assert_eq!(world.machine(a).heard.is_empty(), !hairpin);
        assert_eq!(world.machine(b).heard.is_empty(), !hairpin);
        // Next to each other in the network of the CGN, the home NATs filter what was not asked for.
        let wan = SocketAddr::new(world.nat_addresses(homes[1])[0], 41641);
        world.keep_trace();
        send(&mut world, a, wan, "to the home next door");
        run(&mut world, 10);
        assert_eq!(drops(&world), [Dropped::Filtered]);
    }
}

#[test]
fn blocked_udp_lets_nothing_out_or_in() {
    let (mut world, [here, there]) = world(1);
    let nat = world.add_nat(Place::Internet(here), Class::X.nat().unwrap());
    let blocked = add(&mut world, Place::Behind(nat));
    let open = add(&mut world, Place::Internet(there));
    world.keep_trace();
    let dst = own(&world, open);
    send(&mut world, blocked, dst, "out");
    let dst = SocketAddr::new(world.nat_addresses(nat)[0], 41641);
    send(&mut world, open, dst, "in");
    run(&mut world, 100);
    assert_eq!(drops(&world), [Dropped::Egress, Dropped::Egress]);
}

#[test]
fn ipv6_is_routed_to_the_host_and_filtered_on_the_way() {
    let (mut world, [here, there]) = world(1);
    let firewall = world.add_nat(Place::Internet6(here), Class::V6.nat().unwrap());
    let inside = add(&mut world, Place::Behind(firewall));
    let outside = add(&mut world, Place::Internet6(there));
    let old = add(&mut world, Place::Internet(there));
    let [a, b, v4] = [inside, outside, old].map(|host| own(&world, host));
    assert!(a.is_ipv6() && b.is_ipv6());
    world.keep_trace();
    send(&mut world, outside, a, "uninvited");
    send(&mut world, inside, v4, "no IPv4 here");
    run(&mut world, 100);
    assert_eq!(drops(&world), [Dropped::NoAddress, Dropped::NoMapping]);
    send(&mut world, inside, b, "invites");
    run(&mut world, 100);
    send(&mut world, outside, a, "invited");
    run(&mut world, 100);
    assert_eq!(world.machine(outside).remotes(), [a], "nothing is translated");
    assert_eq!(heard(&mut world, inside), ["invited"]);
}

#[test]
fn a_forwarded_port_leads_to_the_host() {
    let (mut world, [here, there]) = world(1);
    let strict = Dependence::AddressAndPortDependent;
    let nat = world.add_nat(Place::Internet(here), Nat::new(strict, strict, Allocator::Random));
    let [inside, outside] = [add(&mut world, Place::Behind(nat)), add(&mut world, Place::Internet(there))];
    let outer = world.forward(nat, 5000, inside).unwrap();
    assert_eq!(world.forward(nat, 5000, outside), None, "not behind it");
    send(&mut world, outside, outer, "in");
    run(&mut world, 100);
    let dst = own(&world, outside);
    send(&mut world, inside, dst, "out");
    run(&mut world, 100);
    assert_eq!(world.machine(outside).remotes(), [outer]);
    assert_eq!(heard(&mut world, inside), ["in"]);
}

#[test]
fn a_host_asks_the_gateway_of_its_nat_for_a_port() {
    let (mut world, [here, there]) = world(1);
    let nat = Nat { gateway: Some(Gateway::Both), ..Class::R.nat().unwrap() };
    let nat = world.add_nat(Place::Internet(here), nat);
    let [inside, outside] = [add(&mut world, Place::Behind(nat)), add(&mut world, Place::Internet(there))];
    let strict = world.add_nat(Place::Internet(there), Class::R.nat().unwrap());
    let strict = add(&mut world, Place::Behind(strict));
    assert_eq!(world.verdict(inside, strict).direct, Direct::May, "if the host asks");
    let gateway = world.gateway(nat).unwrap();
    // 41641, any external port, for 60 s.
    send(&mut world, inside, gateway, "\0\u{1}\0\0\u{0}\u{0}\0\0\0\0\0\u{3c}");
    run(&mut world, 10);
    let answer = world.machine(inside).heard[0].2.clone();
    assert_eq!((answer[1], world.machine(inside).remotes()), (129, vec![gateway]));
    assert_eq!(world.verdict(inside, strict).direct, Direct::Must);
    world.keep_trace();
    send(&mut world, outside, gateway, "not from here");
    run(&mut world, 100);
    assert_eq!(drops(&world), [Dropped::NoRoute]);
    run(&mut world, 60_000);
    assert_eq!(world.verdict(inside, strict).direct, Direct::May, "the lease has ended");
}

#[test]
fn two_lans_may_use_the_same_addresses() {
    let (mut world, [here, there]) = world(1);
    let nat = Nat { inside: Some([192, 168, 1, 0].into()), ..Class::P.nat().unwrap() };
    let hosts = [here, there].map(|site| {
        let nat = world.add_nat(Place::Internet(site), nat);
        [0, 1].map(|_| add(&mut world, Place::Behind(nat)))
    });
    assert_eq!(own(&world, hosts[0][1]), own(&world, hosts[1][1]));
    let dst = own(&world, hosts[1][1]);
    send(&mut world, hosts[0][0], dst, "to a stranger");
    run(&mut world, 100);
    assert_eq!(heard(&mut world, hosts[0][1]), ["to a stranger"]);
    assert_eq!(heard(&mut world, hosts[1][1]), [""; 0]);
}

#[test]
fn a_host_with_both_families_sends_by_the_one_of_the_destination() {
    let (mut world, [here, there]) = world(1);
    let nat = world.add_nat(Place::Internet(here), Class::P.nat().unwrap());
    let places = [Place::Behind(nat), Place::Internet6(here)];
    let both = world.add_host(key(1), &places, &[], Puppet::default());
    let [old, new] = [Place::Internet(there), Place::Internet6(there)].map(|place| add(&mut world, place));
    let addresses = world.addresses(both);
    assert!(addresses[0].is_ipv4() && addresses[1].is_ipv6());
    for host in [old, new] {
        let dst = own(&world, host);
        send(&mut world, both, dst, "hello");
    }
    run(&mut world, 100);
    assert_eq!(world.machine(both).interfaces, std::slice::from_ref(&addresses));
    assert_eq!(world.machine(old).remotes()[0].ip(), world.nat_addresses(nat)[0]);
    assert_eq!(world.machine(new).remotes(), [addresses[1]]);
    // An address that the host does not have is none to send from.
    world.keep_trace();
    let transmit = Transmit::Udp { src: Some(addresses[1].ip()), dst: own(&world, old), ttl: None };
    world.with(both, |puppet, _| puppet.out.push_back((transmit, Vec::new())));
    assert_eq!(drops(&world), [Dropped::NoAddress]);
}
