//! A wheel of timers that are on time or late by at most two ticks: one for each connection of a worker.
//!
//! A timer says that a connection must be checked. The connection itself knows why, and when to check it next. So each
//! connection has one timer, for the earliest of its reasons, and the wheel never holds more entries than there are
//! connections.

use std::time::Duration;

use towpath_wire::time::Instant;

/// The width of a slot. The shortest thing that is timed here is a write timeout of 100 ms.
const TICK_NANOS: u64 = 50_000_000;
/// 102 s: more than anything here is timed for, the longest being a keep-alive of 90 s and its spread of 5 s.
const SLOTS: usize = 2048;

/// The place of a timer: a slot, and a position in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Place {
    slot: u32,
    position: u32,
}

impl Place {
    /// The place of a connection without a timer.
    const NONE: Self = Self { slot: u32::MAX, position: 0 };
}

/// A wheel of timers, each of which is named by the token of its connection.
#[derive(Debug)]
pub(crate) struct Wheel {
    slots: Box<[Vec<u32>]>,
    /// The place of each token's timer.
    places: Vec<Place>,
    len: usize,
    /// The first tick that has not been handled.
    next: u64,
    /// No tick before this one has a timer; `u64::MAX` when none has.
    earliest: u64,
}

impl Wheel {
    pub(crate) fn new(now: Instant) -> Self {
        Self {
            slots: (0..SLOTS).map(|_| Vec::new()).collect(),
            places: Vec::new(),
            len: 0,
            next: tick(now),
            earliest: u64::MAX,
        }
    }

    /// The number of timers.
    pub(crate) const fn len(&self) -> usize {
        self.len
    }

    /// Sets the timer of `token`, which expires when `due` is past. A timer that expires earlier stays as it is.
    pub(crate) fn schedule(&mut self, token: usize, due: Instant) {
        let tick = (tick(due) + 1).clamp(self.next, self.next + SLOTS as u64 - 1);
        if token >= self.places.len() {
            self.places.resize(token + 1, Place::NONE);
        }
        if let Some(set) = self.tick_of(token) {
            if set <= tick {
                return;
            }
            self.cancel(token);
        }
        let slot = slot(tick);
        let entries = &mut self.slots[slot];
        self.places[token] = Place { slot: slot as u32, position: entries.len() as u32 };
        entries.push(token as u32);
        self.len += 1;
        self.earliest = self.earliest.min(tick);
    }

    /// Removes the timer of `token`, if it has one.
    pub(crate) fn cancel(&mut self, token: usize) {
        let Some(place) = self.places.get_mut(token) else { return };
        let Place { slot, position } = std::mem::replace(place, Place::NONE);
        let Some(entries) = self.slots.get_mut(slot as usize) else { return };
        entries.swap_remove(position as usize);
        if let Some(&moved) = entries.get(position as usize) {
            self.places[moved as usize].position = position;
        }
        self.len -= 1;
    }

    /// How long from `now` until the first timer may be due; `None` if there is no timer.
    #[inline]
    pub(crate) fn idle(&self, now: Instant) -> Option<Duration> {
        (self.len > 0).then(|| Instant::from_nanos(self.earliest * TICK_NANOS).since(now))
    }

    /// Moves the tokens whose timers are due at `now` to `due`.
    #[inline]
    pub(crate) fn advance(&mut self, now: Instant, due: &mut Vec<usize>) {
        let now = tick(now);
        if now >= self.earliest {
            self.collect(now, due);
        }
        self.next = self.next.max(now + 1);
    }

    fn collect(&mut self, now: u64, due: &mut Vec<usize>) {
        // All timers lie within one round from the earliest on.
        let last = now.min(self.earliest + SLOTS as u64 - 1);
        for tick in self.earliest..=last {
            let entries = &mut self.slots[slot(tick)];
            self.len -= entries.len();
            for token in entries.drain(..) {
                self.places[token as usize] = Place::NONE;
                due.push(token as usize);
            }
            // Otherwise a slot that was once full would keep its memory for ever.
            entries.shrink_to(64);
        }
        let end = self.earliest + SLOTS as u64;
        self.earliest = (last + 1..end).find(|&tick| !self.slots[slot(tick)].is_empty()).unwrap_or(u64::MAX);
    }

    /// The tick of a token's timer. All timers lie within one round from `next` on.
    fn tick_of(&self, token: usize) -> Option<u64> {
        let place = self.places[token];
        let rounds = SLOTS as u64;
        (place != Place::NONE)
            .then(|| self.next + (u64::from(place.slot) + rounds - self.next % rounds) % rounds)
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
    use proptest::prelude::*;

    use super::*;

    fn at(ms: u64) -> Instant {
        Instant::from_nanos(ms * 1_000_000)
    }

    #[test]
    fn timers_come_due_after_their_time_and_within_two_ticks() {
        let mut wheel = Wheel::new(at(10_000));
        let mut due = Vec::new();
        for ms in [10_000, 10_049, 10_050, 10_500, 70_000] {
            wheel.schedule(ms as usize, at(ms));
        }
        for now in 10_000..71_000 {
            wheel.advance(at(now), &mut due);
            for token in due.drain(..) {
                let ms = token as u64;
                assert!(now > ms && now <= ms + 2 * 50, "{ms} came at {now}");
            }
        }
        assert_eq!((wheel.idle(at(71_000)), wheel.len()), (None, 0));
    }

    #[test]
    fn a_timer_beyond_the_wheel_is_not_lost() {
        let mut wheel = Wheel::new(at(0));
        wheel.schedule(0, at(1_000_000));
        let mut due = Vec::new();
        wheel.advance(at(SLOTS as u64 * 50), &mut due);
        assert_eq!(due, [0]);
    }

    #[test]
    fn the_wheel_can_be_left_alone_until_its_first_timer() {
        let mut wheel = Wheel::new(at(0));
        wheel.schedule(0, at(1_000));
        wheel.schedule(1, at(5_000));
        assert_eq!(wheel.idle(at(20)), Some(Duration::from_millis(1_030)));
        let mut due = Vec::new();
        wheel.advance(at(200_000), &mut due);
        assert_eq!(due.len(), 2, "a long sleep misses nothing");
        wheel.schedule(2, at(1));
        assert_eq!(wheel.idle(at(300_000)), Some(Duration::ZERO), "what is past is due at once");
    }

    proptest! {
        /// Whatever is scheduled, each token has one timer, for the earliest time that was asked for since the last.
        #[test]
        fn a_token_has_one_timer(
            steps in prop::collection::vec((0usize..6, 0u64..40_000, 0u64..3_000, any::<bool>()), 1..80),
        ) {
            let mut wheel = Wheel::new(at(7_000));
            let (mut now, mut due) = (7_000, Vec::new());
            let mut model: [Option<u64>; 6] = [None; 6];
            for (token, after, passes, cancels) in steps {
                if cancels {
                    wheel.cancel(token);
                    model[token] = None;
                }
                wheel.schedule(token, at(now + after));
                model[token] = Some(model[token].map_or(now + after, |set| set.min(now + after)));
                prop_assert_eq!(wheel.len(), model.iter().flatten().count());
                now += passes;
                wheel.advance(at(now), &mut due);
                for token in due.drain(..) {
                    let set = model[token].take();
                    prop_assert!(set.is_some_and(|set| set < now), "{token} was due at {set:?}, not at {now}");
                }
                for set in model.iter().flatten() {
                    prop_assert!(set + 2 * 50 > now, "the timer of {set} is late at {now}");
                }
            }
        }
    }
}
