//! Flows of the application and the account that is kept of them.

use towpath_disco::datagram::Route;
use towpath_sim::{Flow, FlowId, HostId, Place, Via, World};

use crate::puppet::{Puppet, REGION, at, key, ms, world};

/// Two hosts with a relay 40 ms away and a direct path of 20 ms, and a flow of ten packets.
fn two(route: impl FnOnce(&World<Puppet>, HostId) -> Route) -> (World<Puppet>, FlowId) {
    let (mut world, [here, there, middle]) = world(1);
    world.add_relay(REGION, middle);
    let [from, to] = [(1, here), (2, there)].map(|(number, site)| {
        world.add_host(key(number), &[Place::Internet(site)], &[REGION], Puppet::default())
    });
    let route = route(&world, to);
    world.with(from, |puppet, _| puppet.route = route);
    world.with(to, |puppet, _| puppet.peer = Some(key(1)));
    let flow = Flow { from, to, len: 100, start: at(1000), interval: ms(10), count: 10 };
    let flow = world.add_flow(flow);
    (world, flow)
}

#[test]
fn each_way_is_told_apart() {
    let (mut world, flow) =
        two(|world, to| Route { direct: Some(world.addresses(to)[0]), relay: None, ..Route::default() });
    world.run_until(at(2000));
    let account = world.account(flow);
    assert_eq!((account.sent, account.missing(), account.doubles), (10, 0, 0));
    assert_eq!((account.delivered(Via::Udp), account.delivered(Via::Relay)), (10, 0));
    assert_eq!(account.first().map(|first| (first.sent, first.at)), Some((at(1000), at(1020))));
    assert_eq!(account.largest_gap(at(1000), at(1110)), ms(20));
    assert_eq!(account.largest_delay(), Some(ms(20)));

    let (mut world, flow) = two(|_, _| Route { direct: None, relay: Some(REGION), ..Route::default() });
    world.run_until(at(1075));
    let account = world.account(flow);
    assert_eq!((account.delivered(Via::Udp), account.delivered(Via::Relay)), (0, 4));
    assert_eq!((account.sent, account.missing()), (8, 4));
    assert_eq!(account.first_by(Via::Relay).map(|first| first.delay()), Some(ms(40)));
    assert_eq!(account.first_by(Via::Udp), None);
}

#[test]
fn doubles_and_losses_are_counted() {
    let both = |world: &World<Puppet>, to| Route {
        direct: Some(world.addresses(to)[0]),
        relay: Some(REGION),
        ..Route::default()
    };
    let (mut world, flow) = two(both);
    world.run_until(at(2000));
    let account = world.account(flow);
    assert_eq!((account.sent, account.both, account.doubles), (10, 10, 10), "the puppet removes no double");
    assert_eq!(account.delivered(Via::Udp), 10, "the direct path is faster");
    let sender = world.sent(first(&world));
    assert_eq!((sender.relayed.packets, sender.relayed.bytes, sender.signalling.packets), (10, 1000, 0));
    assert_eq!(sender.data.values().map(|count| count.bytes).sum::<u64>(), 1000);
    assert!(sender.probes.is_empty());

    let (mut world, flow) = two(|_, _| Route::default());
    world.run_until(at(2000));
    let account = world.account(flow);
    assert_eq!((account.unroutable, account.missing()), (10, 10));

    // A machine that delivers nothing, and one that takes data for another peer's.
    for (peer, swallowed, strays) in [(None, 10, 0), (Some(key(7)), 0, 10)] {
        let (mut world, flow) = two(|_, _| Route { direct: None, relay: Some(REGION), ..Route::default() });
        let to = world.hosts().nth(1).unwrap();
        world.with(to, |puppet, _| puppet.peer = peer);
        world.run_until(at(2000));
        assert_eq!((world.account(flow).swallowed, world.strays()), (swallowed, strays));
    }
}

fn first(world: &World<Puppet>) -> HostId {
    world.hosts().next().unwrap()
}
