//! Two of our endpoints become direct behind real NATs, and lose nothing on the way. These tests need root,
//! and say `skipped` without.
//!
//! `LAB_RUNS` is the number of runs of each pair, 3 unless it is set. `LAB_FLOW` is how many thousand packets a second are sent across the
//! switch to the direct path, 5 unless it is set. What `make lab` measures is in `lab.rs`.

use std::time::Duration;

use towpath_e2e::{Kind, Peers, runs, turn};
use towpath_lab::{Class, Direct, Pair, Spread, Timing};

/// How long a pair may take.
const LIMIT: Duration = Duration::from_secs(3);

#[test]
fn every_pair_that_the_simulator_calls_direct_becomes_direct() {
    let Some((programs, _turn)) = turn() else { return };
    let (mut failed, mut seed) = (Vec::new(), 0);
    for (at, one) in Class::ALL.into_iter().enumerate() {
        for other in Class::ALL.into_iter().skip(at) {
            seed += 1;
            let pair = Pair::new(one, other, Timing::NEAR, seed);
            if pair.verdict().direct != Direct::Must {
                continue;
            }
            let mut peers = Peers::start(Kind::Towpath, programs, &pair);
            let mut times = Vec::new();
            for run in 0..runs() {
                if run > 0 {
                    peers.start_again();
                }
                match peers.become_direct(LIMIT) {
                    Some(took) => times.push(took),
                    None => failed.push(format!(
                        "{one}-{other}: {:?}",
                        peers.endpoint(0).why(&peers.endpoint(1).key())
                    )),
                }
            }
            let times: Spread = times.into_iter().collect();
            println!("{one}-{other}: {} of {} direct, median {:?}", times.len(), runs(), times.median());
        }
    }
    assert!(failed.is_empty(), "{failed:#?}");
}

#[test]
fn a_pair_becomes_direct_through_a_stock_derper() {
    let Some((programs, _turn)) = turn() else { return };
    for (seed, (one, other)) in (1..).zip([(Class::P, Class::P), (Class::S, Class::A), (Class::O, Class::R)])
    {
        let peers = Peers::start(Kind::Derper, programs, &Pair::new(one, other, Timing::NEAR, seed));
        let took = peers.become_direct(LIMIT);
        println!("derper, {one}-{other}: {took:?}");
        assert!(took.is_some(), "{one}-{other}");
    }
}

#[test]
fn a_pair_behind_two_nats_that_map_by_destination_stays_on_the_relay_and_says_why() {
    let Some((programs, _turn)) = turn() else { return };
    let peers = Peers::start(Kind::Towpath, programs, &Pair::new(Class::R, Class::R, Timing::NEAR, 1));
    let flowing = peers.flow(0, Duration::from_millis(20), 1);
    std::thread::sleep(Duration::from_secs(2));
    let flow = peers.end(flowing);
    assert_eq!((flow.lost(), flow.doubled), (0, 0), "{flow:?}");
    assert!(flow.came.iter().all(|(_, _, is_direct)| !is_direct));
    let why = peers.endpoint(0).why(&peers.endpoint(1).key()).expect("a peer");
    assert!(why.remedy().is_some_and(|remedy| remedy.starts_with("both NATs map by destination")), "{why}");
}

#[test]
fn no_packet_is_lost_or_doubled_across_the_switch_to_the_direct_path() {
    let Some((programs, _turn)) = turn() else { return };
    let peers = Peers::start(Kind::Towpath, programs, &Pair::new(Class::P, Class::P, Timing::NEAR, 1));
    // 5,000 packets a second, as CI has no more to spare; `make lab` sends 20,000.
    let at_once = std::env::var("LAB_FLOW").ok().and_then(|text| text.parse().ok()).unwrap_or(5);
    let flowing = peers.flow(0, Duration::from_millis(1), at_once);
    std::thread::sleep(Duration::from_secs(2));
    let flow = peers.end(flowing);
    let direct = flow.came.iter().filter(|(_, _, is_direct)| *is_direct).count();
    println!(
        "{} packets, {direct} directly, {} lost, {} doubled, reordered by {} at most; wire {:?}",
        flow.sent,
        flow.lost(),
        flow.doubled,
        flow.reordered,
        peers.stage.lab.lateness()
    );
    println!("{:?}\n{:?}", peers.endpoint(0).stats(), peers.endpoint(1).stats());
    assert!(direct > 1000 && direct < flow.came.len(), "both ways were used");
    assert_eq!((flow.lost(), flow.doubled), (0, 0));
}
