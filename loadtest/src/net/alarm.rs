//! A timer that a poll reports like a socket, to the nanosecond. The timeout of a poll is in milliseconds, and a relay
//! forwards hundreds of packets in one.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use mio::event::Source;
use mio::unix::SourceFd;
use mio::{Interest, Registry, Token};
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create, timerfd_settime,
};

use crate::clock::SECOND;

/// A timer that a poll reports as readable.
#[derive(Debug)]
pub(crate) struct Alarm(OwnedFd);

impl Alarm {
    pub(crate) fn new(registry: &Registry, token: Token) -> io::Result<Self> {
        let flags = TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC;
        let timer = timerfd_create(TimerfdClockId::Monotonic, flags)?;
        SourceFd(&timer.as_raw_fd()).register(registry, token, Interest::READABLE)?;
        Ok(Self(timer))
    }

    /// Sets the time at which the timer expires, in nanoseconds of `CLOCK_MONOTONIC`. It replaces the one set before,
    /// and a time in the past expires at once.
    pub(crate) fn set(&self, at: u64) -> io::Result<()> {
        // Zero would disarm the timer.
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
    fn a_timer_expires_each_time_it_is_set_without_being_read() {
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
