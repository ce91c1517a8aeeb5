//! The queue of events, in the order of time and, at the same time, in the order in which they were scheduled.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use towpath_wire::time::Instant;

/// The queue. Events lie still in slots while the heap moves their times.
#[derive(Debug)]
pub(crate) struct Queue<E> {
    heap: BinaryHeap<Reverse<(Instant, u64, u32)>>,
    slots: Vec<Option<E>>,
    free: Vec<u32>,
    scheduled: u64,
}

impl<E> Default for Queue<E> {
    fn default() -> Self {
        Self { heap: BinaryHeap::new(), slots: Vec::new(), free: Vec::new(), scheduled: 0 }
    }
}

impl<E> Queue<E> {
    pub(crate) fn push(&mut self, at: Instant, event: E) {
        let slot = self.free.pop().unwrap_or_else(|| {
            self.slots.push(None);
            u32::try_from(self.slots.len() - 1).expect("fewer events than that")
        });
        self.slots[slot as usize] = Some(event);
        self.heap.push(Reverse((at, self.scheduled, slot)));
        self.scheduled += 1;
    }

    /// When the next event is due.
    pub(crate) fn due(&self) -> Option<Instant> {
        self.heap.peek().map(|Reverse((at, ..))| *at)
    }

    pub(crate) fn pop(&mut self) -> Option<(Instant, E)> {
        let Reverse((at, _, slot)) = self.heap.pop()?;
        self.free.push(slot);
        let event = self.slots[slot as usize].take().expect("a scheduled slot is filled");
        Some((at, event))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_come_in_the_order_of_time_and_then_of_scheduling() {
        let mut queue = Queue::default();
        for (at, name) in [(5, 'c'), (1, 'a'), (5, 'd'), (3, 'b')] {
            queue.push(Instant::from_nanos(at), name);
        }
        assert_eq!(queue.due(), Some(Instant::from_nanos(1)));
        assert_eq!(queue.pop().map(|(_, name)| name), Some('a'));
        queue.push(Instant::from_nanos(5), 'e');
        let rest: String = std::iter::from_fn(|| queue.pop()).map(|(_, name)| name).collect();
        assert_eq!(rest, "bcde");
        assert_eq!(queue.slots.len(), 4, "slots are used again");
    }
}
