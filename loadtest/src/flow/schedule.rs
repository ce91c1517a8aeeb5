//! When what is due: the same total rate whatever the number of flows, batch by batch from flow to flow.

use serde::{Deserialize, Serialize};

use crate::clock::SECOND;

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
    /// Whether figures count at `at`.
    pub(crate) fn measures(&self, at: u64) -> bool {
        (self.measure..self.end).contains(&at)
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
}
