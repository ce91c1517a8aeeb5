//! Pairs that are drawn anew each time the tests run, so that what is tried is not the same for ever.
//!
//! The seed of the draw is printed. `TOWPATH_SIM_FRESH=SEED` draws the same pairs again.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::io::{self, Write};

use towpath_sim::{Class, Pair, Random, Timing, Traffic, sweep};

use super::run::Run;

/// How many pairs are drawn.
const PAIRS: usize = 2000;

/// The seed that is given, or one of the system.
fn seed() -> u64 {
    match std::env::var("TOWPATH_SIM_FRESH") {
        Ok(text) => text.parse().expect("TOWPATH_SIM_FRESH is a seed as it was printed"),
        Err(_) => RandomState::new().build_hasher().finish(),
    }
}

fn draw<T: Copy, const N: usize>(random: &mut Random, of: [T; N]) -> T {
    of[usize::try_from(random.below(N as u64)).unwrap()]
}

/// A pair of any classes, near or far, with or without loss.
fn pair(random: &mut Random) -> Pair {
    let classes = [(); 2].map(|()| draw(random, Class::ALL));
    let timing = draw(random, [Timing::NEAR, Timing::FAR]);
    let loss = draw(random, [0.0, 0.05]);
    Pair::new(classes[0], classes[1], timing, random.bits()).losing(loss, Traffic::Udp)
}

#[test]
fn pairs_that_nobody_has_tried_before_are_right_as_well() {
    let seed = seed();
    // What is written to the stream itself is shown though the test passes.
    writeln!(io::stderr(), "{PAIRS} fresh pairs: TOWPATH_SIM_FRESH={seed}").unwrap();
    let mut random = Random::new(seed);
    let pairs: Vec<Pair> = (0..PAIRS).map(|_| pair(&mut random)).collect();
    let faults: Vec<String> =
        sweep(PAIRS, |number| Run::of(pairs[number]).fault()).into_iter().flatten().collect();
    assert!(
        faults.is_empty(),
        "{} of {PAIRS}, with TOWPATH_SIM_FRESH={seed}; each again by TOWPATH_SIM_PAIR:\n{}",
        faults.len(),
        faults.join("\n")
    );
}
