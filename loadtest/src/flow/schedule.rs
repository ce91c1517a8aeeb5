//! When the batches of each flow are due, and which receiver each flow has.
//!
//! The total rate does not depend on the number of flows: batches are due one after the other, from flow to flow.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::clock::{self, SECOND};

/// The phases of a run, in nanoseconds of `CLOCK_MONOTONIC`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Timeline {
    /// When the first packet is due.
    pub(crate) begin: u64,
    /// When the warm-up ends and the measured time begins.
    pub(crate) measure: u64,
    /// When the measured time ends. No packet is due from then on.
    pub(crate) end: u64,
}

impl Timeline {
    pub(crate) fn new(begin: u64, warm_up: Duration, duration: Duration) -> Self {
        let measure = begin + clock::nanos(warm_up);
        Self { begin, measure, end: measure + clock::nanos(duration) }
    }

    /// Whether `at` is in the measured time.
    pub(crate) fn measures(&self, at: u64) -> bool {
        (self.measure..self.end).contains(&at)
    }
}

/// The receiver of each flow. Every flow has its own sender; receivers are assigned in turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct FlowRoutes {
    /// The number of flows of the run, in all processes.
    pub(crate) flows: u32,
    /// The number of receivers of the run, at most that of flows.
    pub(crate) receivers: u32,
}

impl FlowRoutes {
    /// Routes that give each flow its own receiver.
    pub(crate) const fn pairs(flows: u32) -> Self {
        Self { flows, receivers: flows }
    }

    pub(crate) const fn receiver_of(&self, flow: u32) -> u32 {
        flow % self.receivers
    }

    /// The flows of a receiver.
    pub(crate) fn flows_to(&self, receiver: u32) -> impl Iterator<Item = u32> + use<> {
        (receiver..self.flows).step_by(self.receivers as usize)
    }

    /// The index of `flow` among the flows of its receiver.
    pub(crate) const fn index(&self, flow: u32) -> usize {
        (flow / self.receivers) as usize
    }
}

/// The times at which batches of packets are due: evenly spaced over all flows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Schedule {
    pub(crate) begin: u64,
    /// Packets a second, of all flows together.
    pub(crate) rate: u64,
    /// Packets in a batch.
    pub(crate) batch: u32,
    /// The number of flows of the run, in all processes.
    pub(crate) flows: u32,
}

impl Schedule {
    /// When the batch `number` of `flow` is due.
    pub(crate) fn due(&self, flow: u32, number: u64) -> u64 {
        let batches_before = u128::from(number) * u128::from(self.flows) + u128::from(flow);
        let packets_before = batches_before * u128::from(self.batch);
        self.begin + (packets_before * u128::from(SECOND) / u128::from(self.rate)) as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn batches_are_evenly_spaced_over_flows_and_time() {
        let schedule = Schedule { begin: 5, rate: 30_000, batch: 3, flows: 100 };
        let mut due: Vec<_> =
            (0..100).flat_map(|flow| (0..20).map(move |number| schedule.due(flow, number))).collect();
        due.sort_unstable();
        let expected: Vec<_> = (0..2000).map(|batch| 5 + batch * 100_000).collect();
        assert_eq!(due, expected);
        // A rate that does not divide a second does not drift over a week.
        let odd = Schedule { begin: 0, rate: 7, batch: 1, flows: 1 };
        assert_eq!(odd.due(0, 7 * 604_800), 604_800 * SECOND);
    }

    #[test]
    fn every_flow_has_one_index_at_one_receiver() {
        let routes = FlowRoutes { flows: 53, receivers: 10 };
        let mut seen = Vec::new();
        for receiver in 0..10 {
            for (index, flow) in routes.flows_to(receiver).enumerate() {
                assert_eq!((routes.receiver_of(flow), routes.index(flow)), (receiver, index));
                seen.push(flow);
            }
        }
        seen.sort_unstable();
        assert_eq!(seen, (0..53).collect::<Vec<_>>());
    }
}
