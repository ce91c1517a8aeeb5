//! What is due when, and to whom: the same total rate whatever the number of flows, batch by batch from flow to flow.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::clock::{self, SECOND};

/// The times of a run, in nanoseconds of `CLOCK_MONOTONIC`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Timeline {
    /// The first packet is due.
    pub(crate) begin: u64,
    /// Everything has warmed up: figures count from here.
    pub(crate) measure: u64,
    /// Nothing more is due.
    pub(crate) end: u64,
}

impl Timeline {
    pub(crate) fn new(begin: u64, warm_up: Duration, duration: Duration) -> Self {
        let measure = begin + clock::nanos(warm_up);
        Self { begin, measure, end: measure + clock::nanos(duration) }
    }

    /// Whether figures count at `at`.
    pub(crate) fn measures(&self, at: u64) -> bool {
        (self.measure..self.end).contains(&at)
    }
}

/// Which way flows go: each has a sender of its own, and the receivers in turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct FlowRoutes {
    /// All flows of the run, whichever process they belong to.
    pub(crate) flows: u32,
    /// All receivers of the run, not more than flows.
    pub(crate) receivers: u32,
}

impl FlowRoutes {
    /// Each flow to a receiver of its own.
    pub(crate) const fn pairs(flows: u32) -> Self {
        Self { flows, receivers: flows }
    }

    pub(crate) const fn receiver_of(&self, flow: u32) -> u32 {
        flow % self.receivers
    }

    /// The flows to a receiver.
    pub(crate) fn to(&self, receiver: u32) -> impl Iterator<Item = u32> + use<> {
        (receiver..self.flows).step_by(self.receivers as usize)
    }

    /// Which one of the flows to its receiver this is, from 0.
    pub(crate) const fn place(&self, flow: u32) -> usize {
        (flow / self.receivers) as usize
    }
}

/// The order in which batches of packets are due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Schedule {
    pub(crate) begin: u64,
    /// Packets a second of all flows together.
    pub(crate) rate: u64,
    /// Packets in a batch.
    pub(crate) batch: u32,
    /// All flows of the run, whichever process they belong to.
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
    fn batches_are_spread_evenly_over_flows_and_time() {
        let schedule = Schedule { begin: 5, rate: 30_000, batch: 3, flows: 100 };
        let mut due: Vec<_> =
            (0..100).flat_map(|flow| (0..20).map(move |number| schedule.due(flow, number))).collect();
        due.sort_unstable();
        let expected: Vec<_> = (0..2000).map(|batch| 5 + batch * 100_000).collect();
        assert_eq!(due, expected);
        // A week at a rate that is no divisor of a second does not drift.
        let odd = Schedule { begin: 0, rate: 7, batch: 1, flows: 1 };
        assert_eq!(odd.due(0, 7 * 604_800), 604_800 * SECOND);
    }

    #[test]
    fn every_flow_has_one_place_at_one_receiver() {
        let routes = FlowRoutes { flows: 53, receivers: 10 };
        let mut seen = Vec::new();
        for receiver in 0..10 {
            for (place, flow) in routes.to(receiver).enumerate() {
                assert_eq!((routes.receiver_of(flow), routes.place(flow)), (receiver, place));
                seen.push(flow);
            }
        }
        seen.sort_unstable();
        assert_eq!(seen, (0..53).collect::<Vec<_>>());
    }
}
