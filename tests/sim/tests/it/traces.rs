//! The same seed does the same.

use std::net::SocketAddr;

use towpath_sim::{Class, Link, Loss, Pair, Place, Timing, Traffic, World};

use crate::naive::{Naive, meet};
use crate::puppet::{add, at, ms, run, send, world};

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

#[test]
fn the_trace_and_the_script_are_printed() {
    let (mut world, [here, there]) = world(9);
    world.keep_trace();
    let nat = world.add_nat(Place::Internet(here), Class::P.nat().unwrap());
    let [a, b] = [add(&mut world, Place::Behind(nat)), add(&mut world, Place::Internet(there))];
    let dst = world.addresses(b)[0];
    world.at(at(5), towpath_sim::Action::Rebind { nat, new_ports: true });
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
