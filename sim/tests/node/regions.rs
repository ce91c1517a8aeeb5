//! Peers whose home is another region, which nothing but the search tells.

use std::net::SocketAddr;
use std::time::Duration;

use towpath_disco::datagram::Region;
use towpath_disco::{NodeConfig, RelayConfig};
use towpath_sim::{Action, Class, HostId, Link, Place, World};
use towpath_wire::key::NodePrivate;
use towpath_wire::time::Instant;

use super::driver::{Host, START, config, flow, millis};

/// Two hosts behind port-restricted NATs with homes in these regions, of six.
fn world(homes: [u16; 2]) -> (World<Host>, [HostId; 2]) {
    let mut world = World::new(7);
    let sites = [(); 2].map(|()| world.add_site());
    let relays: Vec<_> = (1..=6).map(|_| world.add_site()).collect();
    world.set_links(sites[0], sites[1], Link::new(millis(20)));
    for (number, relay) in relays.iter().enumerate() {
        world.add_relay(Region(u16::try_from(number).unwrap() + 1), *relay);
        for site in sites {
            world.set_links(site, *relay, Link::new(millis(20)));
        }
    }
    let stun = [relays[0], relays[1]].map(|relay| world.add_stun(relay));
    let mut random = world.random(1);
    let keys = [1, 2].map(|seed| NodePrivate::from_random([seed; 32]));
    let hosts = [0, 1].map(|side| {
        let nat = world.add_nat(Place::Internet(sites[side]), Class::P.nat().unwrap());
        let config = config(&keys[side], &mut random, &stun, Region(homes[side]));
        // The second host knows its home alone, so that it is ready nowhere else.
        let config = if side == 0 { searching(config, &stun) } else { config };
        let machine = Host::of(config, keys[1 - side].public());
        world.add_host(keys[side].public(), &[Place::Behind(nat)], &[Region(homes[side])], machine)
    });
    (world, hosts)
}

/// A node that knows six regions, and has the first one as its home.
fn searching(config: NodeConfig, stun: &[SocketAddr]) -> NodeConfig {
    let regions: Vec<_> = (1..=6).map(Region).collect();
    let servers = [&stun[..1], &stun[1..], &[], &[], &[], &[]];
    let relays = regions.iter().zip(servers);
    let relays = relays.map(|(region, stun)| RelayConfig { region: *region, stun: stun.to_vec() }).collect();
    NodeConfig { relays, home: Some(Region(1)), regions, ..config }
}

fn are_direct(world: &World<Host>, hosts: [HostId; 2]) -> bool {
    hosts.iter().all(|host| world.machine(*host).is_direct())
}

#[test]
fn a_peer_in_another_region_is_found_and_remembered() {
    for home in 2..=4 {
        let (mut world, hosts) = world([1, home]);
        let flow = flow(&mut world, hosts[0], hosts[1], Duration::from_secs(3));
        let direct = world
            .run_until_holds(Instant::from(START) + Duration::from_secs(3), |world| are_direct(world, hosts));
        assert!(direct.is_some(), "region {home}");
        world.run_until(Instant::from(START) + Duration::from_secs(4));
        // What went to the wrong region before the right one answered is lost, as to any peer that is not there.
        assert!(
            world.account(flow).missing() < 50,
            "region {home}: {} are lost",
            world.account(flow).missing()
        );
    }
}

#[test]
fn a_peer_that_is_in_none_of_four_regions_is_looked_for_once_a_minute() {
    let (mut world, hosts) = world([1, 6]);
    flow(&mut world, hosts[0], hosts[1], Duration::from_secs(200));
    world.run_until(Instant::from(START) + Duration::from_secs(10));
    let first = world.sent(hosts[0]).signalling.packets;
    assert_eq!(first, 4, "a hello in each region");
    world.run_until(Instant::from(START) + Duration::from_secs(59));
    assert_eq!(world.sent(hosts[0]).signalling.packets, first);
    world.run_until(Instant::from(START) + Duration::from_secs(199));
    let all = world.sent(hosts[0]).signalling.packets;
    assert!((2 * first..=4 * first).contains(&all), "{all}");
    assert!(!are_direct(&world, hosts));
}

#[test]
fn a_pair_whose_relay_dies_goes_on_in_another_region() {
    let (mut world, hosts) = world([1, 2]);
    let flow = flow(&mut world, hosts[0], hosts[1], Duration::from_secs(6));
    let direct = world
        .run_until_holds(Instant::from(START) + Duration::from_secs(3), |world| are_direct(world, hosts));
    assert!(direct.is_some());
    world.act_now(Action::KillRelay(Region(1)));
    let before = world.account(flow).missing();
    world.run_until(Instant::from(START) + Duration::from_secs(7));
    assert!(world.account(flow).missing() <= before, "a direct pair loses nothing");
}
