//! A timer among the sockets of a poll. The poll's own timeout is in milliseconds, in which a relay forwards hundreds of
//! packets; this one is in nanoseconds.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use mio::event::Source;
use mio::unix::SourceFd;
use mio::{Interest, Registry, Token};
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create, timerfd_settime,
};

use crate::clock::SECOND;

/// A timer that the poll tells of.
#[derive(Debug)]
pub(crate) struct Alarm(OwnedFd);

impl Alarm {
    pub(crate) fn new(registry: &Registry, token: Token) -> io::Result<Self> {
        let flags = TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC;
        let timer = timerfd_create(TimerfdClockId::Monotonic, flags)?;
        SourceFd(&timer.as_raw_fd()).register(registry, token, Interest::READABLE)?;
        Ok(Self(timer))
    }

    /// Rings at `at`, in nanoseconds of `CLOCK_MONOTONIC`; at once when that is over. Only the last call counts.
    pub(crate) fn set(&self, at: u64) -> io::Result<()> {
        // Zero would disarm it.
        let at = at.max(1);
        let at = Timespec { tv_sec: (at / SECOND).cast_signed(), tv_nsec: (at % SECOND).cast_signed() };
        let once = Itimerspec { it_interval: Timespec::default(), it_value: at };
        timerfd_settime(&self.0, TimerfdTimerFlags::ABSTIME, &once)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use mio::{Events, Poll};

    use super::*;
    use crate::clock;

    #[test]
    fn it_rings_again_and_again_though_nobody_reads_it() {
        let mut poll = Poll::new().unwrap();
        let alarm = Alarm::new(poll.registry(), Token(7)).unwrap();
        let mut events = Events::with_capacity(8);
        for ahead in [2_000_000, 300_000, 0] {
            let at = clock::now() + ahead;
            alarm.set(at).unwrap();
            poll.poll(&mut events, Some(Duration::from_secs(10))).unwrap();
            assert_eq!(events.iter().map(|event| event.token()).collect::<Vec<_>>(), [Token(7)]);
            assert!(clock::now() >= at);
        }
    }
}
