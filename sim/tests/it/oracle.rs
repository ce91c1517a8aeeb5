//! The oracle against the table of classes, and against two machines that try.

use towpath_sim::{
    Action, Allocator, Class, Dependence, Direct, Nat, Pair, Place, Pooling, Timing, Traffic, World, sweep,
};

use crate::naive::{Naive, meet};
use crate::puppet::{key, ms};

fn verdict(one: Class, other: Class) -> Direct {
    let [there, back] = [(one, other), (other, one)]
        .map(|(one, other)| Pair::new(one, other, Timing::NEAR, 1).verdict().direct);
    assert_eq!(there, back, "{one} {other}");
    there
}

#[test]
fn the_table_of_classes_holds() {
    use Class::{A, B, F, M, O, P, Poisonable, R, S, V6, X};
    let easy = [O, F, A, P, Poisonable];
    let hard = [M, S, B, R];
    for one in easy {
        for other in easy {
            assert_eq!(verdict(one, other), Direct::Must, "{one} {other}");
        }
    }
    for other in hard {
        for one in [O, F, A] {
            assert_eq!(verdict(one, other), Direct::Must, "{one} {other}");
        }
        for one in [P, Poisonable, M, S, B, R] {
            assert_eq!(verdict(one, other), Direct::Cannot, "{one} {other}");
        }
    }
    for other in Class::ALL {
        assert_eq!(verdict(X, other), Direct::Cannot, "{other}");
        let same = if other == V6 { Direct::Must } else { Direct::Cannot };
        assert_eq!(verdict(V6, other), same, "{other}");
    }
}

#[test]
fn the_floor_is_half_the_relayed_round_trip_and_a_direct_one() {
    for (timing, relayed, direct) in [(Timing::NEAR, ms(40), ms(40)), (Timing::FAR, ms(100), ms(120))] {
        for (one, other, floor) in [
            (Class::P, Class::P, Some(relayed + direct)),
            (Class::F, Class::R, Some(relayed + direct)),
            (Class::O, Class::R, Some(direct)),
            (Class::P, Class::R, None),
        ] {
            let verdict = Pair::new(one, other, timing, 1).verdict();
            assert_eq!((verdict.floor, verdict.relayed), (floor, Some(relayed)), "{one} {other}");
        }
    }
}

#[test]
fn a_blocked_direction_leaves_no_path() {
    let mut stage = Pair::new(Class::O, Class::O, Timing::NEAR, 1).build(|seat| Naive::new(&seat));
    let [from, to] = stage.sites;
    stage.world.act_now(Action::Block { from, to, blocked: true });
    assert_eq!(stage.world.verdict(stage.hosts[0], stage.hosts[1]).direct, Direct::Cannot);
    assert_eq!(meet(&mut stage.world, stage.hosts), None);
}

#[test]
fn naive_machines_meet_wherever_the_oracle_says_so_and_nowhere_else() {
    for timing in [Timing::NEAR, Timing::FAR] {
        for (index, one) in Class::ALL.into_iter().enumerate() {
            for other in Class::ALL.into_iter().skip(index) {
                let expected = verdict(one, other);
                for seed in 0..20 {
                    let pair = Pair::new(one, other, timing, seed);
                    let mut stage = pair.build(|seat| Naive::new(&seat));
                    let met = meet(&mut stage.world, stage.hosts);
                    assert_eq!(met.is_some(), expected == Direct::Must, "{pair}");
                    if let Some(met) = met {
                        assert!(met >= timing.direct, "{pair}: {met:?}");
                    }
                }
            }
        }
    }
}

/// Every combination of a mapping, a filter and an allocator, with one external address and with several.
fn all_nats() -> Vec<Nat> {
    use Dependence::{AddressAndPortDependent, AddressDependent, EndpointIndependent};
    let all = [EndpointIndependent, AddressDependent, AddressAndPortDependent];
    let block = Allocator::Block { start: 20_000, size: 512 };
    let allocators = [Allocator::Preserve, Allocator::Step(1), block, Allocator::Random];
    let mut nats = Vec::new();
    for mapping in all {
        for filtering in all {
            for allocator in allocators {
                let nat = Nat::new(mapping, filtering, allocator);
                nats.push(nat);
                nats.push(Nat { addresses: 4, pooling: Pooling::Arbitrary, ..nat });
                nats.push(Nat { addresses: 2, pooling: Pooling::PerFlow, ..nat });
            }
        }
    }
    nats
}

/// Two hosts behind NATs, which may be stacked: the first of a stack is the outermost.
fn behind(seed: u64, stacks: [&[Nat]; 2]) -> (World<Naive>, [towpath_sim::HostId; 2]) {
    let mut world = World::new(seed);
    let [here, there, far] = std::array::from_fn(|_| world.add_site());
    let stun = [world.add_stun(far), world.add_stun(far)];
    let mut number = 0;
    let hosts = [(here, stacks[0]), (there, stacks[1])].map(|(site, stack)| {
        let place =
            stack.iter().fold(Place::Internet(site), |place, nat| Place::Behind(world.add_nat(place, *nat)));
        number += 1;
        world.add_host(key(number), &[place], &[], Naive::asking(stun))
    });
    (world, hosts)
}

/// Checks the oracle against naive machines.
fn check(seed: u64, stacks: [&[Nat]; 2]) {
    let (mut world, hosts) = behind(seed, stacks);
    let verdict = world.verdict(hosts[0], hosts[1]).direct;
    let met = meet(&mut world, hosts).is_some();
    let agrees = match verdict {
        Direct::Must => met,
        Direct::May => true,
        Direct::Cannot => !met,
    };
    assert!(agrees, "{verdict:?}, met: {met}\n{}", world.script());
}

#[test]
fn the_oracle_is_right_for_all_pairs_of_nats() {
    let nats = all_nats();
    let count = nats.len();
    sweep(count * count, |index| {
        let [one, other] = [nats[index / count], nats[index % count]];
        check(index as u64, [&[one], &[other]]);
    });
}

#[test]
fn the_oracle_is_right_for_stacked_nats() {
    let nats = all_nats();
    sweep(3000, |index| {
        let mut random = towpath_sim::Random::new(index as u64);
        let mut draw = || nats[usize::try_from(random.below(nats.len() as u64)).unwrap()];
        let stacks = [[draw(), draw()], [draw(), draw()]];
        check(index as u64, [&stacks[0], &stacks[1][..index % 3]]);
    });
}

#[test]
fn hosts_with_a_nat_in_common_are_judged_by_it() {
    for hairpin in [false, true] {
        for (same_home, homes) in [(true, 1), (false, 1), (false, 2)] {
            let mut world = World::new(1);
            let [here, far] = std::array::from_fn(|_| world.add_site());
            let stun = [world.add_stun(far), world.add_stun(far)];
            let nat = Class::P.nat().unwrap();
            let cgn = world.add_nat(Place::Internet(here), Nat { hairpin, ..nat });
            let home = world.add_nat(Place::Behind(cgn), nat);
            let other = match (same_home, homes) {
                (true, _) => Place::Behind(home),
                (false, 1) => Place::Behind(cgn),
                (false, _) => Place::Behind(world.add_nat(Place::Behind(cgn), nat)),
            };
            let hosts = [(1, Place::Behind(home)), (2, other)]
                .map(|(number, place)| world.add_host(key(number), &[place], &[], Naive::asking(stun)));
            let verdict = world.verdict(hosts[0], hosts[1]).direct;
            let expected = match (same_home, homes, hairpin) {
                (true, ..) | (.., true) => Direct::Must,
                // One side stands in the network of the CGN, where the other one may know it.
                (false, 1, false) => Direct::May,
                (false, ..) => Direct::Cannot,
            };
            assert_eq!(verdict, expected, "{same_home} {homes} {hairpin}");
            assert_eq!(meet(&mut world, hosts).is_some(), expected >= Direct::May);
        }
    }
}

#[test]
fn loss_does_not_keep_naive_machines_apart() {
    let met = sweep(200, |seed| {
        let pair = Pair::new(Class::P, Class::P, Timing::NEAR, seed as u64).losing(0.05, Traffic::Udp);
        let mut stage = pair.build(|seat| Naive::new(&seat));
        // A question to a STUN server may be lost, and is not asked again.
        meet(&mut stage.world, stage.hosts).is_some()
    });
    assert!(met.iter().filter(|met| **met).count() >= 190);
}
