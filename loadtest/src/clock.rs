//! The clock that all processes of the machine share: nanoseconds of `CLOCK_MONOTONIC`.

use std::time::Duration;

use rustix::thread::clock_nanosleep_absolute;
use rustix::time::{ClockId, Timespec, clock_gettime};

/// Nanoseconds in a second.
pub(crate) const SECOND: u64 = 1_000_000_000;

/// The time of the clock.
pub(crate) fn now() -> u64 {
    let Timespec { tv_sec, tv_nsec } = clock_gettime(ClockId::Monotonic);
    tv_sec.unsigned_abs() * SECOND + tv_nsec.unsigned_abs()
}

/// Sleeps until `at`, or not at all if that time has passed. A signal may end the sleep early.
pub(crate) fn sleep_until(at: u64) {
    let at = Timespec { tv_sec: (at / SECOND).cast_signed(), tv_nsec: (at % SECOND).cast_signed() };
    let _ = clock_nanosleep_absolute(ClockId::Monotonic, &at);
}

/// A duration in nanoseconds.
pub(crate) fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// The time from now until `at`.
pub(crate) fn until(at: u64) -> Duration {
    Duration::from_nanos(at.saturating_sub(now()))
}
