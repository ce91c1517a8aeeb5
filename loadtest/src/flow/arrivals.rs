//! Arrivals: the times at which the batches of each flow are due, evenly spaced or at random.
//!
//! Evenly spaced flows never meet, so that each batch finds the relay in the same state. A relay that collects packets
//! before it forwards them looks better with them than with the traffic of independent clients, which arrives at random.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::clock::SECOND;
use crate::flow::schedule::Schedule;

/// The process by which the batches of a flow arrive.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "process", rename_all = "lowercase")]
pub enum Arrivals {
    /// Batches are evenly spaced, over time and over the flows.
    Even,
    /// The batches of each flow are a Poisson process with the same mean rate, independent of the other flows.
    Poisson {
        /// The seed of the random gaps. A seed always gives the same times.
        seed: u64,
    },
}

impl fmt::Display for Arrivals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Even => f.write_str("even"),
            Self::Poisson { seed } => write!(f, "Poisson, seed {seed}"),
        }
    }
}

/// The times at which the batches of one flow are due, in ascending order and without end.
#[derive(Clone, Debug)]
pub(crate) enum FlowArrivals {
    Even { schedule: Schedule, flow: u32, number: u64 },
    Poisson(PoissonTimes),
}

impl FlowArrivals {
    pub(crate) fn new(arrivals: Arrivals, schedule: Schedule, flow: u32) -> Self {
        match arrivals {
            Arrivals::Even => Self::Even { schedule, flow, number: 0 },
            Arrivals::Poisson { seed } => Self::Poisson(PoissonTimes::new(&schedule, flow, seed)),
        }
    }

    /// The time at which the next batch is due.
    pub(crate) fn next(&mut self) -> u64 {
        match self {
            Self::Even { schedule, flow, number } => {
                let due = schedule.due(*flow, *number);
                *number += 1;
                due
            }
            Self::Poisson(times) => times.next(),
        }
    }
}

/// The times of a Poisson process: the gaps are independent and exponentially distributed.
#[derive(Clone, Debug)]
pub(crate) struct PoissonTimes {
    begin: u64,
    /// The mean gap in nanoseconds.
    mean_gap: f64,
    /// The sum of the gaps so far. It has a precision of less than a nanosecond for 100 days.
    elapsed: f64,
    random: SplitMix64,
}

impl PoissonTimes {
    fn new(schedule: &Schedule, flow: u32, seed: u64) -> Self {
        let packets = u64::from(schedule.flows) * u64::from(schedule.batch);
        let mean_gap = packets as f64 * SECOND as f64 / schedule.rate as f64;
        Self { begin: schedule.begin, mean_gap, elapsed: 0.0, random: SplitMix64::of_stream(seed, flow) }
    }

    fn next(&mut self) -> u64 {
        self.elapsed -= self.random.next_unit().ln() * self.mean_gap;
        self.begin + self.elapsed as u64
    }
}

/// The random number generator SplitMix64 (Steele, Lea and Flood 2014).
#[derive(Clone, Debug)]
struct SplitMix64(u64);

impl SplitMix64 {
    const GAMMA: u64 = 0x9e37_79b9_7f4a_7c15;

    /// One of 2³² generators for a seed, which begin at different places of the period.
    fn of_stream(seed: u64, stream: u32) -> Self {
        Self(Self::mix(seed.wrapping_add(Self::GAMMA.wrapping_mul(u64::from(stream) + 1))))
    }

    const fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(Self::GAMMA);
        Self::mix(self.0)
    }

    /// A number above 0, up to 1 inclusive.
    fn next_unit(&mut self) -> f64 {
        const STEPS: f64 = (1u64 << 53) as f64;
        ((self.next() >> 11) + 1) as f64 / STEPS
    }

    const fn mix(mut z: u64) -> u64 {
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

/// The batches of several flows, in the order in which they are due.
#[derive(Debug)]
pub(crate) struct DueBatches {
    flows: Vec<FlowArrivals>,
    order: DueOrder,
}

#[derive(Debug)]
enum DueOrder {
    /// The flows have their batches in turn. The next one is due at this time, in the flow at this index.
    InTurn { due: u64, index: usize },
    /// Each flow with the time at which its next batch is due. Its capacity never changes.
    Earliest(BinaryHeap<Reverse<(u64, usize)>>),
}

impl DueBatches {
    /// The batches of at least one flow, which are in ascending order.
    pub(crate) fn new(arrivals: Arrivals, schedule: Schedule, flows: &[u32]) -> Self {
        let mut flows: Vec<_> =
            flows.iter().map(|flow| FlowArrivals::new(arrivals, schedule, *flow)).collect();
        let order = match arrivals {
            Arrivals::Even => DueOrder::InTurn { due: flows[0].next(), index: 0 },
            Arrivals::Poisson { .. } => {
                let first = flows.iter_mut().enumerate().map(|(index, flow)| Reverse((flow.next(), index)));
                DueOrder::Earliest(first.collect())
            }
        };
        Self { flows, order }
    }

    /// When the next batch is due, and the index of its flow.
    pub(crate) fn next(&self) -> (u64, usize) {
        match &self.order {
            DueOrder::InTurn { due, index } => (*due, *index),
            DueOrder::Earliest(heap) => heap.peek().map_or((u64::MAX, 0), |Reverse(next)| *next),
        }
    }

    /// Goes on to the batch after the next one.
    pub(crate) fn advance(&mut self) {
        match &mut self.order {
            DueOrder::InTurn { due, index } => {
                *index = if *index + 1 == self.flows.len() { 0 } else { *index + 1 };
                *due = self.flows[*index].next();
            }
            DueOrder::Earliest(heap) => {
                if let Some(mut next) = heap.peek_mut() {
                    let Reverse((due, index)) = &mut *next;
                    *due = self.flows[*index].next();
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SCHEDULE: Schedule = Schedule { begin: 1_000_000_000_000, rate: 30_000, batch: 3, flows: 100 };
    /// The mean gap between batches of a flow of `SCHEDULE` in nanoseconds.
    const MEAN_GAP: f64 = 1e7;

    fn times(arrivals: Arrivals, flow: u32, count: usize) -> Vec<u64> {
        let mut times = FlowArrivals::new(arrivals, SCHEDULE, flow);
        (0..count).map(|_| times.next()).collect()
    }

    fn gaps(times: &[u64]) -> Vec<f64> {
        times.windows(2).map(|pair| (pair[1] - pair[0]) as f64).collect()
    }

    fn mean(values: &[f64]) -> f64 {
        values.iter().sum::<f64>() / values.len() as f64
    }

    #[test]
    fn even_arrivals_are_those_of_the_schedule_to_the_nanosecond() {
        for flow in [0, 1, 99] {
            let expected: Vec<_> = (0..1000).map(|number| SCHEDULE.due(flow, number)).collect();
            assert_eq!(times(Arrivals::Even, flow, 1000), expected);
        }
    }

    #[test]
    fn poisson_arrivals_have_the_mean_rate_and_the_variation_of_exponential_gaps() {
        const COUNT: usize = 100_000;
        for (seed, flow) in [(1, 0), (1, 99), (2, 0), (u64::MAX, u32::MAX)] {
            let times = times(Arrivals::Poisson { seed }, flow, COUNT);
            let gaps = gaps(&times);
            let mean_gap = mean(&gaps);
            let variance = mean(&gaps.iter().map(|gap| (gap - mean_gap).powi(2)).collect::<Vec<_>>());
            // Five standard errors: 1/√n of the mean, and √(2/n) of the coefficient of variation.
            let mean_error = (mean_gap / MEAN_GAP - 1.0).abs();
            assert!(
                mean_error < 5.0 / (COUNT as f64).sqrt(),
                "mean gap {mean_gap}, seed {seed}, flow {flow}"
            );
            let variation = variance.sqrt() / mean_gap;
            let error = (variation - 1.0).abs();
            assert!(
                error < 5.0 * (2.0 / COUNT as f64).sqrt(),
                "variation {variation}, seed {seed}, flow {flow}"
            );
        }
    }

    #[test]
    fn poisson_arrivals_are_as_often_above_a_gap_as_exponential_ones() {
        let gaps = gaps(&times(Arrivals::Poisson { seed: 1 }, 3, 100_001));
        for multiple in [0.1, 1.0, 3.0] {
            let above = gaps.iter().filter(|gap| **gap > multiple * MEAN_GAP).count() as f64 / 100_000.0;
            let expected = f64::exp(-multiple);
            assert!((above - expected).abs() < 0.008, "{above} of the gaps are above {multiple} means");
        }
    }

    #[test]
    fn a_seed_gives_the_same_times_and_flows_differ() {
        let seed_1 = Arrivals::Poisson { seed: 1 };
        let first = times(seed_1, 0, 100);
        assert_eq!(first, times(seed_1, 0, 100));
        for other in [times(seed_1, 1, 100), times(Arrivals::Poisson { seed: 2 }, 0, 100)] {
            assert!(first.iter().zip(&other).all(|(a, b)| a != b), "{first:?} {other:?}");
        }
        assert!(first.is_sorted() && first[0] > SCHEDULE.begin);
    }

    #[test]
    fn the_gaps_of_two_flows_are_not_correlated() {
        let deviations = |flow| -> Vec<f64> {
            let gaps = gaps(&times(Arrivals::Poisson { seed: 1 }, flow, 10_001));
            gaps.iter().map(|gap| gap / MEAN_GAP - 1.0).collect()
        };
        let (a, b) = (deviations(0), deviations(1));
        let correlation = mean(&a.iter().zip(&b).map(|(a, b)| a * b).collect::<Vec<_>>());
        assert!(correlation.abs() < 0.05, "{correlation}");
    }

    #[test]
    fn batches_are_due_in_the_order_of_their_times() {
        let flows = [1, 4, 7, 98];
        for arrivals in [Arrivals::Even, Arrivals::Poisson { seed: 1 }] {
            let mut expected: Vec<_> = (0..)
                .zip(flows)
                .flat_map(|(index, flow)| times(arrivals, flow, 500).into_iter().map(move |due| (due, index)))
                .collect();
            expected.sort_unstable();
            let mut batches = DueBatches::new(arrivals, SCHEDULE, &flows);
            // Of the last times some lie behind the 500th of another flow.
            for next in &expected[..1500] {
                assert_eq!(batches.next(), *next);
                batches.advance();
            }
        }
    }
}
