//! A wheel of timers that are early or on time and never late by more than a tick.
//!
//! An entry says that a connection must be checked. The connection itself knows why, and when to check it next. So
//! entries are never removed early: an entry of a connection that has gone, or that has nothing due, costs one check.

use std::time::Duration;

use towpath_wire::time::Instant;

/// The width of a slot. The shortest thing that is timed here is a write timeout of 100 ms.
const TICK_NANOS: u64 = 50_000_000;
/// 102 s: more than anything here is timed for, the longest being a keep-alive of 90 s and its spread of 5 s.
const SLOTS: usize = 2048;

/// A wheel of timers, each of which is named by a `T`.
#[derive(Debug)]
pub(crate) struct Wheel<T> {
    slots: Box<[Vec<T>]>,
    /// The first tick that has not been handled.
    next: u64,
    /// The first tick that has an entry; `u64::MAX` when none has.
    earliest: u64,
}

impl<T> Wheel<T> {
    pub(crate) fn new(now: Instant) -> Self {
        Self { slots: (0..SLOTS).map(|_| Vec::new()).collect(), next: tick(now), earliest: u64::MAX }
    }

    /// Adds `entry`, which expires when `due` is past.
    pub(crate) fn insert(&mut self, due: Instant, entry: T) {
        let tick = (tick(due) + 1).clamp(self.next, self.next + SLOTS as u64 - 1);
        self.slots[slot(tick)].push(entry);
        self.earliest = self.earliest.min(tick);
    }

    /// How long from `now` until the first entry may be due; `None` if there is no entry.
    #[inline]
    pub(crate) fn idle(&self, now: Instant) -> Option<Duration> {
        (self.earliest != u64::MAX).then(|| Instant::from_nanos(self.earliest * TICK_NANOS).since(now))
    }

    /// Moves the entries that are due at `now` to `due`.
    #[inline]
    pub(crate) fn advance(&mut self, now: Instant, due: &mut Vec<T>) {
        let now = tick(now);
        if now >= self.earliest {
            self.collect(now, due);
        }
        self.next = self.next.max(now + 1);
    }

    fn collect(&mut self, now: u64, due: &mut Vec<T>) {
        // All entries lie within one round from the earliest on.
        let last = now.min(self.earliest + SLOTS as u64 - 1);
        for tick in self.earliest..=last {
            let slot = &mut self.slots[slot(tick)];
            due.append(slot);
            // Otherwise a slot that was once full would keep its memory for ever.
            slot.shrink_to(64);
        }
        let end = self.earliest + SLOTS as u64;
        self.earliest = (last + 1..end).find(|&tick| !self.slots[slot(tick)].is_empty()).unwrap_or(u64::MAX);
    }
}

fn tick(at: Instant) -> u64 {
    at.as_nanos() / TICK_NANOS
}

const fn slot(tick: u64) -> usize {
    (tick % SLOTS as u64) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Instant {
        Instant::from_nanos(ms * 1_000_000)
    }

    #[test]
    fn entries_come_due_after_their_time_and_within_a_tick() {
        let mut wheel = Wheel::new(at(10_000));
        let mut due = Vec::new();
        for ms in [10_000, 10_049, 10_050, 10_500, 70_000] {
            wheel.insert(at(ms), ms);
        }
        for now in 10_000..71_000 {
            wheel.advance(at(now), &mut due);
            for ms in due.drain(..) {
                assert!(now > ms && now <= ms + 2 * 50, "{ms} came at {now}");
            }
        }
        assert_eq!(wheel.idle(at(71_000)), None);
    }

    #[test]
    fn an_entry_beyond_the_wheel_is_not_lost() {
        let mut wheel = Wheel::new(at(0));
        wheel.insert(at(1_000_000), ());
        let mut due = Vec::new();
        wheel.advance(at(SLOTS as u64 * 50), &mut due);
        assert_eq!(due.len(), 1);
    }

    #[test]
    fn the_wheel_can_be_left_alone_until_its_first_entry() {
        let mut wheel = Wheel::new(at(0));
        wheel.insert(at(1_000), ());
        wheel.insert(at(5_000), ());
        assert_eq!(wheel.idle(at(20)), Some(Duration::from_millis(1_030)));
        let mut due = Vec::new();
        wheel.advance(at(200_000), &mut due);
        assert_eq!(due.len(), 2, "a long sleep misses nothing");
        wheel.insert(at(1), ());
        assert_eq!(wheel.idle(at(300_000)), Some(Duration::ZERO), "what is past is due at once");
    }
}
