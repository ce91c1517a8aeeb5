//! How many answers a source may have.
//!
//! A source is a [`Host`], an IPv4 address or an IPv6 /64: what one host can have, and what WireGuard limits by. A
//! wider IPv4 prefix, as resolvers of the DNS take, would put tens of thousands behind a carrier's NAT into one bucket.
//!
//! Sources are hashed, with a secret key, to a fixed number of buckets, which do not store their sources. Two sources
//! in one bucket share its rate, which is high enough that they do not notice. A source cannot choose its bucket. A
//! flood of forged sources finds no table to fill: it takes buckets times rate requests a second before all sources are
//! held back.

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::net::IpAddr;
use std::num::NonZeroU32;
use std::time::Duration;

use towpath_wire::host::Host;

/// Buckets of a limiter, 8 bytes each. A power of two.
const BUCKETS: usize = 1 << 16;

/// Time for which a rate may be used up at once.
const BURST: u64 = SECOND;

const SECOND: u64 = 1_000_000_000;

/// A limit on answers for each source (the "virtual scheduling" form of the generic cell rate algorithm).
#[derive(Debug)]
pub(crate) struct Limiter {
    /// Time in nanoseconds between two answers at the full rate.
    interval: u64,
    /// For each bucket, when all that it has admitted is paid for, in nanoseconds since the server's start.
    paid: Box<[u64]>,
    hasher: RandomState,
}

impl Limiter {
    /// A limiter to `rate` answers a second for each source.
    pub(crate) fn new(rate: NonZeroU32) -> Self {
        let interval = SECOND / u64::from(rate.get());
        Self { interval, paid: vec![0; BUCKETS].into_boxed_slice(), hasher: RandomState::new() }
    }

    /// Whether `source` may have an answer now, and if so, counts it. `now` is since the server's start.
    pub(crate) fn admits(&mut self, source: IpAddr, now: Duration) -> bool {
        let now = u64::try_from(now.as_nanos()).unwrap_or(u64::MAX - 2 * BURST);
        let bucket = self.hasher.hash_one(Host::of(source)) as usize % BUCKETS;
        let paid = self.paid[bucket].max(now) + self.interval;
        let is_admitted = paid <= now + BURST;
        if is_admitted {
            self.paid[bucket] = paid;
        }
        is_admitted
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limiter(rate: u32) -> Limiter {
        Limiter::new(NonZeroU32::new(rate).unwrap())
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    /// How many of `asked` requests at one moment are admitted.
    fn admitted(limiter: &mut Limiter, source: &str, now: Duration, asked: usize) -> usize {
        (0..asked).filter(|_| limiter.admits(ip(source), now)).count()
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
        let mut admits = |source| limiter.admits(ip(source), Duration::ZERO);
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
            limiter.admits(IpAddr::V4(source.into()), Duration::ZERO);
        }
        assert!(limiter.admits(ip("2001:db8::1"), Duration::ZERO));
    }

    #[test]
    fn time_never_overflows() {
        assert!(limiter(1).admits(ip("192.0.2.1"), Duration::MAX));
    }
}
