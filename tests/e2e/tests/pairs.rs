//! Two of our endpoints become direct behind real NATs, lose nothing on the way, and get over what breaks a path. These tests need root,
//! and say `skipped` without.
//!
//! `LAB_RUNS` is the number of runs of each pair, 3 unless it is set.

use std::time::Duration;

use tokio::time::Instant;
use towpath_e2e::{Kind, Peers, turn};
use towpath_lab::{Class, Pair, Rebinding, Timing};

/// How long a pair may take.
const LIMIT: Duration = Duration::from_secs(3);

/// The classes that nftables can express.
const CLASSES: [Class; 8] =
    [Class::O, Class::F, Class::A, Class::P, Class::Poisonable, Class::S, Class::B, Class::R];

/// Whether the oracle of the simulator calls a pair direct without predicting ports: neither side maps by destination, or the other one
/// lets in what the mapping comes from.
fn is_direct(one: Class, other: Class) -> bool {
    let depends = |class| matches!(class, Class::M | Class::S | Class::B | Class::R);
    let lets_in = |class| matches!(class, Class::O | Class::F | Class::A);
    match (depends(one), depends(other)) {
        (false, false) => true,
        (true, false) => lets_in(other),
        (false, true) => lets_in(one),
        (true, true) => false,
    }
}

fn runs() -> usize {
    std::env::var("LAB_RUNS").ok().and_then(|text| text.parse().ok()).unwrap_or(3)
}

fn median(times: &mut [Duration]) -> Duration {
    times.sort_unstable();
    times[times.len() / 2]
}

#[test]
fn every_pair_that_the_simulator_calls_direct_becomes_direct() {
    let Some((programs, _turn)) = turn() else { return };
    let (mut failed, mut seed) = (Vec::new(), 0);
    for (at, one) in CLASSES.into_iter().enumerate() {
        for other in CLASSES.into_iter().skip(at).filter(|other| is_direct(one, *other)) {
            seed += 1;
            let mut peers = Peers::start(Kind::Towpath, programs, &Pair::new(one, other, Timing::NEAR, seed));
            let mut times = Vec::new();
            for run in 0..runs() {
                if run > 0 {
                    peers.stage.nats.iter().for_each(|nat| nat.rebind(Rebinding::NewPorts).expect("a NAT"));
                    peers.start_endpoints();
                }
                match peers.become_direct(LIMIT) {
                    Some(took) => times.push(took),
                    None => failed.push(format!(
                        "{one}-{other}: {:?}",
                        peers.endpoint(0).why(&peers.endpoint(1).key())
                    )),
                }
            }
            let direct = times.len();
            if direct > 0 {
                println!("{one}-{other}: {direct} of {} direct, median {:?}", runs(), median(&mut times));
            }
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

/// Prints the longest time without a packet after each thing that breaks a path.
#[test]
#[ignore = "measures milliseconds: make lab"]
fn gaps() {
    let Some((programs, _turn)) = turn() else { return };
    let goal = Duration::from_millis(500);
    let mut over = Vec::new();
    for (name, fault) in FAULTS {
        let mut gaps: Vec<_> = (0..runs() as u64)
            .map(|seed| {
                let mut peers =
                    Peers::start(Kind::Towpath, programs, &Pair::new(Class::P, Class::P, Timing::NEAR, seed));
                assert!(peers.become_direct(LIMIT).is_some(), "{name}");
                let flowing = peers.flow(0, Duration::from_millis(5), 1);
                std::thread::sleep(Duration::from_millis(700));
                let broken = Instant::now();
                fault(&mut peers);
                std::thread::sleep(Duration::from_secs(3));
                let flow = peers.end(flowing);
                flow.gap_after(broken)
            })
            .collect();
        let longest = gaps.iter().max().copied().unwrap_or_default();
        println!(
            "{name:<28} median {:>4} ms, longest {:>4} ms",
            median(&mut gaps).as_millis(),
            longest.as_millis()
        );
        if longest > goal {
            over.push(name);
        }
    }
    assert!(over.is_empty(), "longer than {goal:?}: {over:?}");
}

/// What breaks a path.
type Fault = fn(&mut Peers);

const FAULTS: [(&str, Fault); 4] = [
    ("UDP blocked in the middle", |peers| {
        let [one, other] = peers.stage.sites;
        peers.stage.lab.change_links(one, other, |link| link.blocked = true);
    }),
    ("one direction blocked", |peers| {
        let [one, other] = peers.stage.sites;
        peers.stage.lab.change_link(one, other, |link| link.blocked = true);
    }),
    ("NAT of the sender rebinds", |peers| peers.stage.nats[0].rebind(Rebinding::NewPorts).expect("a NAT")),
    ("NAT of the receiver rebinds", |peers| peers.stage.nats[1].rebind(Rebinding::NewPorts).expect("a NAT")),
];
