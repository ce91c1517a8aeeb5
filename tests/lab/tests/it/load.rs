//! The wire under load.

use std::thread::scope;
use std::time::Duration;

use crate::tools::{TRIES, Two, quantile, turn};

/// Packets in each millisecond and direction.
const RATE: u32 = 20;
/// Packets in each direction: a second.
const COUNT: u32 = 20_000;

#[test]
fn twenty_thousand_packets_a_second_in_each_direction_are_on_time() {
    let Some(_turn) = turn() else { return };
    let two = Two::build(10);
    let delay = Duration::from_millis(20);
    two.lab.change_links(two.sites[0], two.sites[1], |link| link.delay = delay);
    let is_on_time = || {
        let flows = scope(|scope| {
            let there = scope.spawn(|| two.flow(0, COUNT, RATE));
            [two.flow(1, COUNT, RATE), there.join().unwrap()]
        });
        flows.map(|flow| {
            let [least, median, late, most] = [0, 500, 990, 1000].map(|share| quantile(&flow, share));
            println!("asked for {delay:?}: least {least:?}, median {median:?}, 99 % {late:?}, most {most:?}");
            assert_eq!(flow.len(), COUNT as usize, "no packet is lost");
            assert!(least >= delay && flow.is_sorted_by_key(|(number, _)| *number));
            late < delay + Duration::from_millis(1)
        })
    };
    let is_on_time = (0..TRIES).any(|_| is_on_time() == [true; 2]);
    println!("{:?}", two.lab.lateness());
    assert!(is_on_time, "99 % of the packets are less than a millisecond late");
    assert_eq!(two.lab.own_drops().unwrap(), 0);
}
