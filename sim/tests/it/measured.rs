//! What was measured with the NATs of Linux comes out here as well.

use towpath_sim::{Class, Pair, Timing};

use crate::naive::{Naive, meet_skewed};
use crate::puppet::ms;

/// Whether two naive machines meet whose one-way delay is 20 ms, and of which the second begins later.
fn meets(one: Class, other: Class, skew: u64) -> bool {
    let timing = Timing::millis(80, 40, 50);
    let met = (0..10).map(|seed| {
        let mut stage = Pair::new(one, other, timing, seed).build(|seat| Naive::new(&seat));
        meet_skewed(&mut stage.world, stage.hosts, ms(skew)).is_some()
    });
    let met: Vec<bool> = met.collect();
    assert!(met.iter().all(|same| *same == met[0]), "{one} {other}, skew {skew} ms: {met:?}");
    met[0]
}

#[test]
fn unfiltered_nats_are_passed_up_to_a_skew_of_the_delay_and_not_from_there() {
    for skew in [0, 5, 10, 15, 18] {
        assert!(meets(Class::Poisonable, Class::Poisonable, skew), "{skew} ms");
    }
    for skew in [22, 25, 30, 40] {
        assert!(!meets(Class::Poisonable, Class::Poisonable, skew), "{skew} ms");
    }
}

#[test]
fn only_the_nat_of_the_later_side_matters() {
    for one in [Class::P, Class::Poisonable] {
        for other in [Class::P, Class::Poisonable] {
            assert_eq!(meets(one, other, 50), other == Class::P, "{one} {other}");
        }
    }
}
