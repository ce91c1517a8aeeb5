//! The same seed does the same.

use std::net::SocketAddr;
use std::time::Duration;

use towpath_disco::datagram::{Region, Route};
use towpath_sim::{
    Action, Class, Flow, Happening, HostId, Link, Loss, Nat, NatId, Pair, Place, Random, Scenario, Site,
    Timing, Traffic, World, sweep,
};
use towpath_wire::time::Instant;

use crate::naive::{Naive, meet};
use crate::puppet::{Puppet, add, at, key, ms, run, send, world};

fn hash(seed: u64) -> u64 {
    let (mut world, [here, there]) = world(seed);
    let link = Link { jitter: ms(3), reorder: 0.1, reorder_by: ms(2), ..Link::new(ms(10)) };
    world.set_links(here, there, link.losing(Loss::bursts(0.1, 3.0), Traffic::Udp));
    let nat = world.add_nat(Place::Internet(here), Class::R.nat().unwrap());
    let [a, b] = [add(&mut world, Place::Behind(nat)), add(&mut world, Place::Internet(there))];
    let dst = world.addresses(b)[0];
    for port in 1..200 {
        send(&mut world, a, SocketAddr::new(dst.ip(), 41_540 + port), "x");
        run(&mut world, 1);
    }
    run(&mut world, 1000);
    assert!(world.happenings() > 400);
    world.trace_hash()
}

#[test]
fn equal_seeds_give_equal_traces_and_others_do_not() {
    assert_eq!(hash(1), hash(1));
    let hashes: std::collections::BTreeSet<u64> = (0..100).map(hash).collect();
    assert_eq!(hashes.len(), 100);
}

#[test]
fn a_pair_does_the_same_again() {
    let pair = Pair::new(Class::Poisonable, Class::S, Timing::NEAR, 5).losing(0.05, Traffic::Everything);
    let run = |pair: Pair| {
        let mut stage = pair.build(|seat| Naive::new(&seat));
        meet(&mut stage.world, stage.hosts);
        (stage.world.trace_hash(), stage.world.happenings())
    };
    assert_eq!(run(pair), run(pair.to_string().parse().unwrap()));
    assert_ne!(run(pair), run(Pair { seed: 6, ..pair }));
}

/// A small internet with everything in it, in which everything happens at random.
fn chaos(seed: u64) -> World<Puppet> {
    let mut random = Random::stream(seed, 77);
    let (mut world, sites) = world::<4>(seed);
    for from in sites {
        for to in sites {
            world.set_link(from, to, any_link(&mut random));
        }
    }
    for region in 1..=2 {
        world.add_relay(Region(region), sites[usize::from(region)]);
    }
    let mut places: Vec<Place> = sites.map(Place::Internet).to_vec();
    places.extend(sites.map(Place::Internet6));
    let mut nats = Vec::new();
    for _ in 0..6 {
        let class = Class::ALL[index(&mut random, Class::ALL.len())];
        let Some(nat) = class.nat() else { continue };
        let nat = Nat { hairpin: random.happens(0.5), ..nat };
        let nat = world.add_nat(places[index(&mut random, places.len())], nat);
        nats.push(nat);
        places.push(Place::Behind(nat));
    }
    let hosts: Vec<HostId> = (1..=5)
        .map(|number| {
            let place = places[index(&mut random, places.len())];
            world.add_host(key(number), &[place], &[Region(1)], Puppet::default())
        })
        .collect();
    for number in 0..20 {
        let [from, to] = [0, 1].map(|_| hosts[index(&mut random, hosts.len())]);
        let direct = random.happens(0.7).then(|| world.addresses(to)[0]);
        let relay = random.happens(0.7).then(|| Region(1 + u16::from(random.happens(0.2))));
        world.with(from, |puppet, _| puppet.route = Route { direct, relay, ..Route::default() });
        let peer = world.key(from);
        world.with(to, |puppet, _| puppet.peer = Some(peer));
        world.add_flow(Flow { from, to, len: 50, start: at(100 * number), interval: ms(7), count: 100 });
    }
    for _ in 0..20 {
        let action = any_action(&mut random, &hosts, &nats, &places, sites);
        world.at(at(random.below(3000)), action);
    }
    world.run_until(at(60_000));
    world
}

fn index(random: &mut Random, len: usize) -> usize {
    usize::try_from(random.below(len as u64)).unwrap()
}

fn any_link(random: &mut Random) -> Link {
    let lost = if random.happens(0.5) { Traffic::Udp } else { Traffic::Everything };
    Link {
        jitter: random.duration(ms(10)),
        reorder: 0.1,
        reorder_by: random.duration(ms(10)),
        duplicate: 0.01,
        rate: random.happens(0.3).then_some(20_000),
        ..Link::new(ms(1) + random.duration(ms(50))).losing(Loss::bursts(0.05, 2.0), lost)
    }
}

fn any_action(
    random: &mut Random,
    hosts: &[HostId],
    nats: &[NatId],
    places: &[Place],
    sites: [Site; 4],
) -> Action {
    let host = hosts[index(random, hosts.len())];
    let region = Region(1 + u16::from(random.happens(0.5)));
    let [from, to] = [0, 1].map(|_| sites[index(random, 4)]);
    match random.below(9) {
        0 => {
            let places = vec![places[index(random, places.len())]];
            Action::Roam { host, places, gap: ms(random.below(3) * 50) }
        }
        1 if !nats.is_empty() => {
            Action::Rebind { nat: nats[index(random, nats.len())], new_ports: random.happens(0.5) }
        }
        1 | 2 => Action::Suspend { host, lasts: random.duration(ms(500)) },
        3 => Action::KillRelay(region),
        4 => Action::SilenceRelay(region),
        5 => Action::RestoreRelay(region),
        6 => Action::SetLink { from, to, link: any_link(random) },
        7 => Action::Block { from, to, blocked: random.happens(0.5) },
        _ => Action::StepClock { host, by: random.duration(ms(500)) },
    }
}

#[test]
fn whatever_happens_happens_again_with_the_same_seed() {
    let runs = sweep(200, |seed| {
        let [first, again] = [0, 1].map(|_| chaos(seed as u64));
        assert_eq!(first.trace_hash(), again.trace_hash(), "{}", first.script());
        let counted =
            |world: &World<Puppet>| world.flows().map(|flow| world.account(flow).deliveries.len()).sum();
        let delivered: usize = counted(&first);
        for flow in first.flows() {
            let account = first.account(flow);
            assert_eq!(account.sent, 100, "{}", first.script());
            for delivery in &account.deliveries {
                assert!(delivery.delay() >= Duration::from_micros(1), "{delivery:?}");
                assert!(delivery.seq < 100);
            }
        }
        (first.trace_hash(), delivered)
    });
    let hashes: std::collections::BTreeSet<u64> = runs.iter().map(|(hash, _)| *hash).collect();
    assert_eq!(hashes.len(), runs.len());
    let delivered: usize = runs.iter().map(|(_, delivered)| delivered).sum();
    assert!(delivered > 20_000, "{delivered} of 400,000 packets came through");
}

#[test]
fn a_scenario_does_the_same_again_and_its_faults_happen() {
    let run = |scenario: &Scenario| {
        let mut stage = scenario.build(|seat| Naive::new(&seat));
        stage.world.keep_trace();
        stage.world.run_until(at(20_000));
        stage.world
    };
    sweep(100, |seed| {
        let scenario = Scenario::random(seed as u64);
        let [first, again] = [&scenario, &scenario.to_string().parse().unwrap()].map(run);
        assert_eq!(first.trace_hash(), again.trace_hash(), "{scenario}");
    });
    let text = "P R 80 40 50 0 udp 7, 3000 roam 0 O 100, 3001 rebind 1 new, 4000 suspend 1 50, 5000 kill, \
                6000 restore, 7000 block 0, 8000 unblock 0, 9000 rebind 0 new";
    let world = run(&text.parse().unwrap());
    let acted =
        |(when, what): &(Instant, Happening)| matches!(what, Happening::Acted { .. }).then_some(*when);
    let times: Vec<Instant> = world.trace().iter().filter_map(acted).collect();
    // The host that has moved to the internet has no NAT any more.
    assert_eq!(times, [3000, 3001, 4000, 5000, 6000, 7000, 8000].map(at));
    let mover = world.hosts().next().unwrap();
    assert_eq!(world.addresses(mover)[0].ip().to_string().split('.').next(), Some("45"));
}

#[test]
fn the_trace_and_the_script_are_printed() {
    let (mut world, [here, there]) = world(9);
    world.keep_trace();
    let nat = world.add_nat(Place::Internet(here), Class::P.nat().unwrap());
    let [a, b] = [add(&mut world, Place::Behind(nat)), add(&mut world, Place::Internet(there))];
    let dst = world.addresses(b)[0];
    world.at(at(5), Action::Rebind { nat, new_ports: true });
    send(&mut world, a, dst, "hello");
    run(&mut world, 100);
    let trace = world.trace_text();
    for line in ["host0 sends 5 bytes to 45.0.0.3:41641 (ttl 64)", "host1 hears 5 bytes from 45.0.0.2:41641"]
    {
        assert!(trace.contains(line), "{trace}");
    }
    let script = world.script();
    for line in ["seed 9", "nat0 at Internet(Site(0))", "at 5.000 ms: Rebind"] {
        assert!(script.contains(line), "{script}");
    }
}

#[test]
fn a_trace_that_is_not_kept_is_empty() {
    let world: World<Naive> = World::new(1);
    assert!(world.trace().is_empty() && world.trace_text().is_empty());
}
