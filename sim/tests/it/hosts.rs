//! Hosts that move, sleep, and have clocks.

use towpath_disco::datagram::RelayEvent;
use towpath_sim::{Action, Class, Dropped, Happening, Link, Place};

use crate::puppet::{Puppet, REGION, add, at, heard, key, ms, relay, run, send, world};

#[test]
fn timers_fire_when_they_are_due() {
    let (mut world, [site]) = world(1);
    let host = add(&mut world, Place::Internet(site));
    world.with(host, |puppet, _| puppet.alarm = Some(at(500)));
    // An earlier time replaces the later one, and none is left.
    world.with(host, |puppet, _| puppet.alarm = Some(at(100)));
    world.run_until(at(1000));
    assert_eq!(world.machine(host).timeouts, [at(100)]);
    world.with(host, |puppet, _| puppet.alarm = Some(at(3)));
    run(&mut world, 0);
    assert_eq!(world.machine(host).timeouts, [at(100), at(1000)], "a time that has passed is due at once");
    world.with(host, |puppet, _| puppet.alarm = Some(at(2000)));
    world.with(host, |puppet, _| puppet.alarm = Some(at(3000)));
    world.run_until(at(4000));
    assert_eq!(world.machine(host).timeouts[2..], [at(3000)], "a later time as well");
}

#[test]
#[should_panic(expected = "again and again")]
fn a_machine_that_asks_for_the_past_forever_is_caught() {
    struct Spinning;
    use towpath_disco::datagram::{Received, Route, Transmit};
    use towpath_wire::{key::NodePublic, time::Instant};
    impl towpath_sim::Machine for Spinning {
        fn handle_packet(&mut self, _: Instant, _: Received, _: &[u8]) -> Option<NodePublic> {
            None
        }
        fn handle_relay(&mut self, _: Instant, _: RelayEvent) {}
        fn handle_interfaces(&mut self, _: Instant, _: &[std::net::SocketAddr]) {}
        fn route(&mut self, _: Instant, _: &NodePublic, _: usize) -> Route {
            Route::default()
        }
        fn handle_timeout(&mut self, _: Instant) {}
        fn poll_timeout(&mut self) -> Option<Instant> {
            Some(Instant::ZERO)
        }
        fn poll_transmit(&mut self, _: Instant, _: &mut Vec<u8>) -> Option<Transmit> {
            None
        }
    }
    let mut world = towpath_sim::World::new(1);
    let site = world.add_site();
    world.add_host(key(1), &[Place::Internet(site)], &[], Spinning);
    world.run_until(at(1));
}

#[test]
fn a_host_that_moves_gets_new_addresses_and_new_links() {
    let (mut world, [here, there, middle]) = world(1);
    world.set_links(here, middle, Link::new(ms(10)));
    world.set_links(there, middle, Link::new(ms(30)));
    world.add_relay(REGION, middle);
    let nat = world.add_nat(Place::Internet(there), Class::P.nat().unwrap());
    let mover = world.add_host(key(1), &[Place::Internet(here)], &[REGION], Puppet::default());
    let other = world.add_host(key(2), &[Place::Internet(middle)], &[REGION], Puppet::default());
    let old = world.addresses(mover)[0];
    world.at(at(1000), Action::Roam { host: mover, places: vec![Place::Behind(nat)], gap: ms(100) });
    world.run_until(at(1000));
    let new = world.addresses(mover);
    assert_eq!(new, []);
    // The relay does not know yet, so that nothing says that the peer is gone.
    relay(&mut world, other, mover, "lost");
    send(&mut world, other, old, "lost");
    world.run_until(at(1219));
    assert!(!world.is_connected(mover, REGION));
    world.run_until(at(1220));
    assert!(world.is_connected(mover, REGION), "two round trips after it has an address");
    relay(&mut world, other, mover, "over the new link");
    world.run_until(at(2000));
    assert_eq!(heard(&mut world, mover), ["over the new link"]);
    let puppet = world.machine(mover);
    assert_eq!(puppet.interfaces, [vec![old], vec![], world.addresses(mover)]);
    let [up, down] = [RelayEvent::Up(REGION), RelayEvent::Down(REGION)];
    assert_eq!(puppet.relays, [(at(0), up), (at(1000), down), (at(1220), up)]);
    assert_eq!(world.machine(other).relays, [(at(0), up)]);
    // Datagrams go by the new NAT.
    let dst = world.addresses(other)[0];
    send(&mut world, mover, dst, "hello");
    run(&mut world, 100);
    assert_eq!(world.machine(other).remotes()[0].ip(), world.nat_addresses(nat)[0]);
    // At once, without a gap.
    world.act_now(Action::Roam { host: mover, places: vec![Place::Internet(here)], gap: ms(0) });
    assert_eq!(world.addresses(mover).len(), 1);
    run(&mut world, 40);
    assert!(world.is_connected(mover, REGION));
}

#[test]
fn a_suspended_host_hears_nothing_until_it_wakes() {
    let (mut world, [here, there, middle]) = world(1);
    world.add_relay(REGION, middle);
    let [sleeper, other] = [(1, here), (2, there)].map(|(number, site)| {
        world.add_host(key(number), &[Place::Internet(site)], &[REGION], Puppet::default())
    });
    world.keep_trace();
    world.at(at(100), Action::Suspend { host: sleeper, lasts: ms(1000) });
    world.with(sleeper, |puppet, _| puppet.alarm = Some(at(500)));
    world.run_until(at(200));
    let dst = world.addresses(sleeper)[0];
    send(&mut world, other, dst, "a datagram");
    relay(&mut world, other, sleeper, "over the relay");
    world.run_until(at(1099));
    assert!(world.machine(sleeper).heard.is_empty() && world.machine(sleeper).timeouts.is_empty());
    world.run_until(at(1100));
    assert_eq!(world.machine(sleeper).timeouts, [at(1100)]);
    assert_eq!(heard(&mut world, sleeper), ["over the relay"]);
    // The longer of two sleeps counts.
    world.act_now(Action::Suspend { host: sleeper, lasts: ms(1000) });
    world.act_now(Action::Suspend { host: sleeper, lasts: ms(10) });
    relay(&mut world, other, sleeper, "later");
    run(&mut world, 999);
    assert_eq!(heard(&mut world, sleeper), [""; 0]);
    run(&mut world, 1);
    assert_eq!(heard(&mut world, sleeper), ["later"]);
    let asleep = |what: &Happening| matches!(what, Happening::Dropped { why: Dropped::Suspended, .. });
    assert_eq!(world.trace().iter().filter(|(_, what)| asleep(what)).count(), 1);
}

#[test]
fn a_clock_that_is_stepped_ahead_stays_ahead() {
    let (mut world, [site]) = world(1);
    let host = add(&mut world, Place::Internet(site));
    world.with(host, |puppet, _| puppet.alarm = Some(at(5000)));
    world.at(at(1000), Action::StepClock { host, by: ms(3000) });
    world.run_until(at(10_000));
    assert_eq!(world.machine(host).timeouts, [at(5000)]);
    assert_eq!(world.clock(host), at(13_000));
    world.with(host, |puppet, now| puppet.alarm = Some(now + ms(10)));
    run(&mut world, 9);
    assert_eq!(world.machine(host).timeouts.len(), 1);
    run(&mut world, 1);
    assert_eq!(world.machine(host).timeouts.len(), 2);
}

#[test]
fn a_rebind_changes_the_endpoint_that_others_see() {
    let (mut world, [here, there]) = world(1);
    let nat = world.add_nat(Place::Internet(here), Class::P.nat().unwrap());
    let inside = add(&mut world, Place::Behind(nat));
    let outside = add(&mut world, Place::Internet(there));
    let dst = world.addresses(outside)[0];
    for new_ports in [false, true] {
        send(&mut world, inside, dst, "hello");
        run(&mut world, 100);
        world.act_now(Action::Rebind { nat, new_ports });
        assert_eq!(world.mappings(nat), 0);
        let last = *world.machine(outside).remotes().last().unwrap();
        send(&mut world, outside, last, "closed");
        run(&mut world, 100);
    }
    send(&mut world, inside, dst, "hello");
    run(&mut world, 100);
    let remotes = world.machine(outside).remotes();
    assert_eq!(remotes[0], remotes[1]);
    assert_ne!(remotes[0], remotes[2]);
    assert!(world.machine(inside).heard.is_empty());
}
