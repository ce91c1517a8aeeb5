//! Relays: ordered streams, and what becomes of them.

use std::time::Duration;

use towpath_disco::datagram::{Received, Region, RelayEvent, Transmit};
use towpath_sim::{Action, HostId, Link, Loss, Place, Site, Traffic, World};
use towpath_wire::time::Instant;

use crate::puppet::{Puppet, REGION, at, heard, key, ms, relay, run, world};

/// Two hosts that have a relay for home, 10 ms from the first and 30 ms from the second.
fn two() -> (World<Puppet>, [HostId; 2], [Site; 3]) {
    let (mut world, sites) = world(1);
    let [here, there, middle] = sites;
    world.set_links(here, middle, Link::new(ms(10)));
    world.set_links(there, middle, Link::new(ms(30)));
    world.add_relay(REGION, middle);
    let hosts = [(1, here), (2, there)].map(|(number, site)| {
        world.add_host(key(number), &[Place::Internet(site)], &[REGION], Puppet::default())
    });
    run(&mut world, 0);
    (world, hosts, sites)
}

fn events(world: &World<Puppet>, host: HostId) -> Vec<(Instant, RelayEvent)> {
    world.machine(host).relays.clone()
}

#[test]
fn packets_take_both_legs() {
    let (mut world, [a, b], _) = two();
    assert_eq!(events(&world, a), [(at(0), RelayEvent::Up(REGION))]);
    assert_eq!(world.machine(a).measured, [(REGION, Duration::from_millis(20))]);
    relay(&mut world, a, b, "hello");
    run(&mut world, 100);
    let peer = world.key(a);
    assert_eq!(
        world.machine(b).heard,
        [(at(40), Received::Relay { region: REGION, peer }, b"hello".to_vec())]
    );
}

#[test]
fn the_relay_says_that_a_peer_is_gone() {
    let (mut world, [a, _], [here, ..]) = two();
    let absent = world.add_host(key(9), &[Place::Internet(here)], &[], Puppet::default());
    relay(&mut world, a, absent, "hello");
    run(&mut world, 100);
    let gone = RelayEvent::PeerGone { region: REGION, peer: key(9) };
    assert_eq!(events(&world, a)[1..], [(at(20), gone)]);
    // A key that no host has is not connected either.
    let transmit = Transmit::Relay { region: REGION, peer: key(77) };
    world.with(a, |puppet, _| puppet.out.push_back((transmit, Vec::new())));
    run(&mut world, 100);
    assert_eq!(events(&world, a).len(), 3);
}

#[test]
fn a_relay_is_dialled_when_it_is_sent_to_and_what_was_sent_waits() {
    let (mut world, [a, _], [here, ..]) = two();
    let late = world.add_host(key(9), &[Place::Internet(here)], &[], Puppet::default());
    assert!(!world.is_connected(late, REGION));
    relay(&mut world, late, a, "first");
    relay(&mut world, late, a, "second");
    run(&mut world, 39);
    assert!(!world.is_connected(late, REGION));
    run(&mut world, 100);
    assert_eq!(events(&world, late), [(at(40), RelayEvent::Up(REGION))]);
    assert_eq!(heard(&mut world, a), ["first", "second"]);
    // There is no relay in this region.
    let nowhere = Region(7);
    let transmit = Transmit::Relay { region: nowhere, peer: key(1) };
    world.with(late, |puppet, _| puppet.out.push_back((transmit, Vec::new())));
    run(&mut world, 0);
    assert_eq!(events(&world, late)[1..], [(at(139), RelayEvent::Down(nowhere))]);
}

/// Sends a thousand numbers from one host to another over a link that loses a tenth, and lets them all arrive.
fn send_a_thousand_over_a_lossy_link(
    world: &mut World<Puppet>,
    [from, to]: [HostId; 2],
    [here, middle]: [Site; 2],
) {
    let lossy = Link::new(ms(10)).losing(Loss::Random(0.1), Traffic::Everything);
    world.set_links(here, middle, lossy);
    for number in 0..1000 {
        relay(world, from, to, &number.to_string());
        run(world, 10);
    }
    run(world, 60_000);
}

#[test]
fn a_lost_packet_of_a_stream_is_sent_again_and_the_later_ones_wait_behind_it() {
    let (mut world, [a, b], [here, _, middle]) = two();
    send_a_thousand_over_a_lossy_link(&mut world, [a, b], [here, middle]);
    let heard = &world.machine(b).heard;
    let numbers = heard.iter().map(|(.., packet)| String::from_utf8_lossy(packet).parse::<u64>().unwrap());
    assert!(numbers.eq(0..1000), "all, and in order");
    let delay = |(number, (at, ..)): (usize, &(Instant, Received, Vec<u8>))| {
        at.since(Instant::ZERO + 10 * Duration::from_millis(number as u64))
    };
    let delays: Vec<Duration> = heard.iter().enumerate().map(delay).collect();
    assert!(delays.iter().all(|delay| *delay >= ms(40)));
    assert!(delays.contains(&ms(40)) && delays.contains(&ms(240)), "200 ms for a lost one");
    assert!(delays.contains(&ms(640)), "and 400 ms more for the second loss");
    assert!(delays.contains(&ms(230)), "a packet that waited behind it");
    // Loss of datagrams alone does not harm the stream.
    let (mut world, [a, b], [here, _, middle]) = two();
    world.set_links(here, middle, Link::new(ms(10)).losing(Loss::Random(0.9), Traffic::Udp));
    for _ in 0..100 {
        relay(&mut world, a, b, "x");
        run(&mut world, 1);
    }
    run(&mut world, 39);
    assert_eq!(world.machine(b).heard.len(), 100);
}

#[test]
fn the_order_is_kept_on_the_second_leg_as_well() {
    let (mut world, [b, a], [here, _, middle]) = two();
    send_a_thousand_over_a_lossy_link(&mut world, [a, b], [here, middle]);
    assert!(heard(&mut world, b).into_iter().eq((0..1000).map(|number| number.to_string())));
}

#[test]
fn the_death_of_a_relay_is_heard_of_and_homes_are_dialled_until_it_lives_again() {
    let (mut world, [a, b], _) = two();
    world.at(at(1000), Action::KillRelay(REGION));
    world.at(at(5000), Action::RestoreRelay(REGION));
    world.run_until(at(995));
    relay(&mut world, a, b, "lost");
    world.run_until(at(4000));
    assert_eq!(events(&world, a)[1..], [(at(1010), RelayEvent::Down(REGION))]);
    assert_eq!(events(&world, b)[1..], [(at(1030), RelayEvent::Down(REGION))]);
    assert!(!world.is_connected(a, REGION));
    relay(&mut world, a, b, "too early");
    world.run_until(at(7000));
    assert_eq!(heard(&mut world, b), [""; 0]);
    assert_eq!(events(&world, a).len(), 3);
    assert!(world.is_connected(a, REGION) && world.is_connected(b, REGION));
    relay(&mut world, a, b, "again");
    run(&mut world, 100);
    assert_eq!(heard(&mut world, b), ["again"]);
}

#[test]
fn a_silent_relay_says_nothing() {
    let (mut world, [a, b], _) = two();
    world.at(at(1000), Action::SilenceRelay(REGION));
    world.at(at(5000), Action::RestoreRelay(REGION));
    world.run_until(at(2000));
    relay(&mut world, a, b, "into the hole");
    world.run_until(at(4999));
    assert_eq!(heard(&mut world, b), [""; 0]);
    world.run_until(at(5000));
    relay(&mut world, a, b, "heard");
    run(&mut world, 100);
    assert_eq!(heard(&mut world, b), ["into the hole", "heard"]);
    assert_eq!((events(&world, a).len(), events(&world, b).len()), (1, 1));
}

#[test]
fn signalling_is_counted_apart_from_data() {
    let (mut world, [a, b], _) = two();
    relay(&mut world, a, b, "12345");
    run(&mut world, 7);
    relay(&mut world, a, b, "123");
    let sent = world.sent(a);
    assert_eq!((sent.signalling.packets, sent.signalling.bytes), (2, 8));
    assert_eq!((sent.last_signalling, sent.relayed.packets), (Some(at(7)), 0));
}

#[test]
fn a_host_keeps_its_links_to_the_homes_that_it_has() {
    let (mut world, [a, _], [_, there, _]) = two();
    let second = Region(2);
    world.add_relay(second, there);
    world.act_now(Action::SetHomes { host: a, homes: vec![REGION, second] });
    run(&mut world, 1000);
    assert!(world.is_connected(a, REGION) && world.is_connected(a, second));
    world.act_now(Action::SetHomes { host: a, homes: vec![second] });
    world.act_now(Action::KillRelay(REGION));
    world.act_now(Action::KillRelay(second));
    run(&mut world, 1000);
    for region in [REGION, second] {
        world.act_now(Action::RestoreRelay(region));
    }
    run(&mut world, 3000);
    assert!(!world.is_connected(a, REGION), "it is no home any more");
    assert!(world.is_connected(a, second));
}

#[test]
fn a_network_that_lets_nothing_through_holds_the_stream_up() {
    for outbound in [true, false] {
        let (mut world, [a, b], [here, there, middle]) = two();
        let (from, to) = if outbound { (here, middle) } else { (middle, there) };
        let link = Link { applies_to: Traffic::Everything, ..world.link(from, to) };
        world.set_link(from, to, link);
        world.at(at(5), Action::Block { from, to, blocked: true });
        world.at(at(2000), Action::Block { from, to, blocked: false });
        run(&mut world, 10);
        for number in 0..3 {
            relay(&mut world, a, b, &number.to_string());
            run(&mut world, 400);
        }
        world.run_until(at(1999));
        assert_eq!(heard(&mut world, b), [""; 0]);
        relay(&mut world, a, b, "3");
        // Sent again after 200, 600, 1,400 and 3,000 ms.
        run(&mut world, 1000);
        relay(&mut world, a, b, "4");
        assert_eq!(heard(&mut world, b), [""; 0]);
        run(&mut world, 100);
        assert_eq!(heard(&mut world, b), ["0", "1", "2", "3", "4"], "outbound: {outbound}");
        relay(&mut world, a, b, "5");
        run(&mut world, 40);
        assert_eq!(heard(&mut world, b), ["5"]);
        assert_eq!((events(&world, a).len(), events(&world, b).len()), (1, 1));
    }
}

#[test]
fn what_is_on_its_way_on_a_link_that_breaks_is_lost() {
    let (mut world, [a, b], [_, there, middle]) = two();
    world.set_links(there, middle, Link::new(ms(500)));
    run(&mut world, 100);
    relay(&mut world, a, b, "on the old link");
    run(&mut world, 20);
    let near = world.add_site();
    world.set_links(near, middle, Link::new(ms(10)));
    world.act_now(Action::Roam { host: b, places: vec![Place::Internet(near)], gap: ms(0) });
    run(&mut world, 40);
    assert!(world.is_connected(b, REGION));
    relay(&mut world, a, b, "on the new link");
    run(&mut world, 1000);
    assert_eq!(heard(&mut world, b), ["on the new link"]);
}

#[test]
fn a_silent_relay_holds_no_more_than_its_buffers_do() {
    let (mut world, [a, b], _) = two();
    world.act_now(Action::SilenceRelay(REGION));
    for number in 0..300 {
        relay(&mut world, a, b, &number.to_string());
    }
    run(&mut world, 1000);
    world.act_now(Action::RestoreRelay(REGION));
    run(&mut world, 1000);
    assert!(heard(&mut world, b).into_iter().eq((0..256).map(|number| number.to_string())));
    // What a dying relay holds is lost.
    world.act_now(Action::SilenceRelay(REGION));
    relay(&mut world, a, b, "held");
    run(&mut world, 1000);
    world.act_now(Action::KillRelay(REGION));
    world.act_now(Action::RestoreRelay(REGION));
    run(&mut world, 3000);
    assert!(world.is_connected(b, REGION));
    assert_eq!(heard(&mut world, b), [""; 0]);
}

#[test]
fn what_the_network_holds_is_lost_when_the_host_moves() {
    let (mut world, [a, b], [here, _, middle]) = two();
    let link = Link { applies_to: Traffic::Everything, blocked: true, ..world.link(here, middle) };
    world.set_link(here, middle, link);
    relay(&mut world, a, b, "held");
    let far = world.add_site();
    world.set_links(far, middle, Link::new(ms(100)));
    world.act_now(Action::Roam { host: a, places: vec![Place::Internet(far)], gap: ms(0) });
    run(&mut world, 10_000);
    relay(&mut world, a, b, "new");
    run(&mut world, 1000);
    assert_eq!(heard(&mut world, b), ["new"]);
}

#[test]
fn a_move_while_a_relay_is_dialled_begins_the_dialling_anew() {
    let (mut world, [a, _], [.., middle]) = two();
    let far = world.add_site();
    world.set_links(far, middle, Link::new(ms(100)));
    world.act_now(Action::KillRelay(REGION));
    world.act_now(Action::RestoreRelay(REGION));
    // The host hears of it after 10 ms, and would be connected again after 50 ms.
    run(&mut world, 20);
    world.act_now(Action::Roam { host: a, places: vec![Place::Internet(far)], gap: ms(0) });
    run(&mut world, 399);
    assert!(!world.is_connected(a, REGION));
    run(&mut world, 1);
    assert!(world.is_connected(a, REGION));
}
