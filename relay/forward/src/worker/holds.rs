//! Connections that are held back: each is not read for a moment, for a reason, and is checked again afterwards.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Duration;

use towpath_wire::time::Instant;

use crate::ingress::Hold;
use crate::peer::ConnectionRef;

/// The connections that a worker holds back, ordered by deadline. Deadlines are exact, unlike those of the wheel.
#[derive(Debug, Default)]
pub(super) struct Holds(BinaryHeap<Reverse<(Instant, ConnectionRef, Hold)>>);

impl Holds {
    pub(super) fn push(&mut self, until: Instant, connection: ConnectionRef, hold: Hold) {
        self.0.push(Reverse((until, connection, hold)));
    }

    /// How long from `now` on until the first connection is due; `None` while none is held.
    pub(super) fn idle(&self, now: Instant) -> Option<Duration> {
        self.0.peek().map(|Reverse((until, ..))| until.since(now))
    }

    /// Takes the first that is due at `now`.
    pub(super) fn pop_due(&mut self, now: Instant) -> Option<ConnectionRef> {
        let Reverse((until, connection, _)) = *self.0.peek()?;
        (until <= now).then(|| {
            self.0.pop();
            connection
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_come_back_in_the_order_in_which_they_are_due() {
        let at = |us: u64| Instant::from_nanos(us * 1_000);
        let mut holds = Holds::default();
        for (until, token) in [(30, 3), (10, 1), (20, 2)] {
            holds.push(at(until), ConnectionRef { token, id: 0 }, Hold::Congestion);
        }
        assert_eq!(holds.idle(at(4)), Some(Duration::from_micros(6)));
        assert_eq!(holds.pop_due(at(9)), None);
        let due: Vec<_> = std::iter::from_fn(|| holds.pop_due(at(20))).map(|held| held.token).collect();
        assert_eq!(due, [1, 2]);
        assert_eq!(holds.idle(at(25)), Some(Duration::from_micros(5)));
    }
}
