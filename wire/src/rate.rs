//! Rates: how often each of many sources may have something, in constant memory.
//!
//! Sources are hashed, with a secret key, to a fixed number of buckets, which do not store their sources. Two sources
//! in one bucket share its rate, which is high enough that they do not notice. A source cannot choose its bucket. A
//! flood of forged sources finds no table to fill: it takes buckets times rate requests a second before all sources are
//! held back.

use std::hash::{BuildHasher, Hash};
use std::num::NonZeroU32;
use std::time::Duration;

/// Buckets of a limiter, 8 bytes each. A power of two.
const BUCKETS: usize = 1 << 16;

/// Time for which a rate may be used up at once.
const BURST: u64 = SECOND;

const SECOND: u64 = 1_000_000_000;

/// A limit on the rate of each source (the "virtual scheduling" form of the generic cell rate algorithm).
#[derive(Debug)]
pub struct Limiter<S> {
    /// Time in nanoseconds between two admissions at the full rate.
    interval: u64,
    /// For each bucket, when all that it has admitted is paid for, in nanoseconds since the beginning.
    paid: Box<[u64]>,
    hasher: S,
}

impl<S: BuildHasher> Limiter<S> {
    /// Creates a limiter to `rate` admissions a second for each source. `hasher` has a secret key, such as that of
    /// `RandomState`, or else a source can choose its bucket.
    #[must_use]
    pub fn new(rate: NonZeroU32, hasher: S) -> Self {
        let interval = SECOND / u64::from(rate.get());
        Self { interval, paid: vec![0; BUCKETS].into_boxed_slice(), hasher }
    }

    /// Whether `source` is admitted now; if so, the admission is charged to it. `now` is since a beginning of the
    /// caller's choice.
    pub fn admits(&mut self, source: impl Hash, now: Duration) -> bool {
        let (bucket, paid) = self.charged(source, now);
        if let Some(paid) = paid {
            self.paid[bucket] = paid;
        }
        paid.is_some()
    }

    /// Whether `source` would be admitted now. Nothing is charged to it.
    pub fn has_room(&self, source: impl Hash, now: Duration) -> bool {
        self.charged(source, now).1.is_some()
    }

    /// The bucket of `source`, and when it would be paid for if another admission were charged to it; `None` if that is too late.
    fn charged(&self, source: impl Hash, now: Duration) -> (usize, Option<u64>) {
        let now = u64::try_from(now.as_nanos()).unwrap_or(u64::MAX - 2 * BURST);
        let bucket = self.hasher.hash_one(source) as usize % BUCKETS;
        let paid = self.paid[bucket].max(now) + self.interval;
        (bucket, (paid <= now + BURST).then_some(paid))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::hash_map::RandomState;
    use std::net::IpAddr;

    use super::*;
    use crate::host::Host;

    fn limiter(rate: u32) -> Limiter<RandomState> {
        Limiter::new(NonZeroU32::new(rate).expect("a rate"), RandomState::new())
    }

    fn host(text: &str) -> Host {
        Host::of(text.parse().expect("an address"))
    }

    /// How many of `asked` requests at one moment are admitted.
    fn admitted(limiter: &mut Limiter<RandomState>, source: &str, now: Duration, asked: usize) -> usize {
        (0..asked).filter(|_| limiter.admits(host(source), now)).count()
    }

    #[test]
    fn a_source_has_its_rate_at_once_and_then_as_time_passes() {
        let (mut limiter, start) = (limiter(10), Duration::from_secs(7));
        assert_eq!(admitted(&mut limiter, "192.0.2.1", start, 100), 10);
        assert_eq!(admitted(&mut limiter, "192.0.2.1", start + Duration::from_millis(99), 100), 0);
        assert_eq!(admitted(&mut limiter, "192.0.2.1", start + Duration::from_millis(300), 100), 3);
        assert_eq!(admitted(&mut limiter, "192.0.2.1", start + Duration::from_secs(60), 100), 10);
        for rate in [1, 3, 1000, 1_000_000] {
            let mut limiter = self::limiter(rate);
            let rate = rate as usize;
            let now = admitted(&mut limiter, "192.0.2.1", Duration::ZERO, rate + 10);
            assert!((rate..=rate + 1).contains(&now), "{now} at a rate of {rate}");
        }
    }

    #[test]
    fn sources_are_addresses_of_ipv4_and_networks_of_ipv6() {
        let mut limiter = limiter(1);
        let mut admits = |source| limiter.admits(host(source), Duration::ZERO);
        assert!(admits("192.0.2.1"));
        assert!(!admits("192.0.2.1"));
        assert!(!admits("::ffff:192.0.2.1"));
        assert!(admits("2001:db8::1"));
        assert!(!admits("2001:db8::ffff:ffff:ffff:ffff"));
        // Buckets are shared by chance, one in 65,536, so most of several neighbours must pass.
        let neighbours = ["192.0.2.2", "192.0.3.1", "2001:db8:0:1::1", "2001:db8:1::1"];
        assert!(neighbours.into_iter().filter(|source| admits(source)).count() >= 3);
    }

    #[test]
    fn a_flood_of_sources_leaves_the_others_alone() {
        let mut limiter = limiter(1000);
        for source in 0..200_000_u32 {
            limiter.admits(Host::of(IpAddr::V4(source.into())), Duration::ZERO);
        }
        assert!(limiter.admits(host("2001:db8::1"), Duration::ZERO));
    }

    #[test]
    fn time_never_overflows() {
        assert!(limiter(1).admits(host("192.0.2.1"), Duration::MAX));
    }
}
