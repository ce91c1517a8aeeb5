//! Ramp: the highest paced rate at which the relay loses next to nothing and stays quick.
//!
//! Rates rise by a factor until one is too much, then the interval between the last good and the first bad one is halved
//! until it is narrow. Each step is a run of [`pairs`] of its own, with connections of its own.

use anyhow::{Result, bail};
use serde::{Deserialize, Serialize};

use crate::report::svg::{Axis, Plot, Scale};
use crate::report::unit::Unit;
use crate::report::{Row, ScenarioReport};
use crate::scenario::pairs::{self, Pace, PairsReport};
use crate::workers::RunConfig;

/// Where to look for the knee.
#[derive(Clone, Debug)]
pub struct RampPlan {
    /// Each step, but for its rate.
    pub step: pairs::PairsPlan,
    /// The first rate, in packets a second.
    pub from: u64,
    /// No rate above this.
    pub to: u64,
    /// The share of packets that may be lost or not taken.
    pub max_loss: f64,
    /// What 99 % of the packets may need from when they are due, in nanoseconds.
    pub max_latency: u64,
}

/// How much a rate is above the one before, while none was too much.
const RISE: f64 = 1.3;
/// How often a rate is tried before it counts as too much: a moment in which the machine did something else is no knee.
const TRIES: usize = 2;
/// How narrow the interval around the knee gets.
const PRECISION: f64 = 1.04;

/// A rate that was tried.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct RampStep {
    /// Packets a second.
    pub rate: u64,
    /// The share that was lost or not taken.
    pub loss: f64,
    /// What 99 % of the packets needed, in nanoseconds.
    pub latency: u64,
    /// What the relay needed for a delivered packet, in nanoseconds.
    pub cpu: Option<f64>,
    /// Whether that was good enough; `None` where the load generator was the limit.
    pub good: Option<bool>,
}

/// What came of it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct RampReport {
    /// The share of packets that may be lost or not taken.
    pub max_loss: f64,
    /// What 99 % of the packets may need, in nanoseconds.
    pub max_latency: u64,
    /// In the order in which they were tried.
    pub steps: Vec<RampStep>,
    /// Whether a packet was duplicated, reordered, changed or misrouted.
    pub damaged: bool,
}

/// Looks for the knee.
///
/// # Errors
///
/// As [`pairs::run`].
pub fn run(config: &RunConfig, plan: &RampPlan) -> Result<RampReport> {
    if plan.from == 0 || plan.to < plan.from {
        bail!("a ramp goes from a rate above zero to one that is not lower");
    }
    let mut report = RampReport {
        max_loss: plan.max_loss,
        max_latency: plan.max_latency,
        steps: Vec::new(),
        damaged: false,
    };
    let mut next = Some(plan.from);
    while let Some(rate) = next {
        for _ in 0..TRIES {
            let pairs =
                pairs::run(config, &pairs::PairsPlan { pace: Pace::Rate(rate), ..plan.step.clone() })?;
            report.damaged |= pairs.damage.any();
            report.steps.push(step(rate, &pairs, plan));
            if report.steps.last().is_some_and(|step| step.good == Some(true)) {
                break;
            }
        }
        next = next_rate(&report.steps, plan.to);
    }
    Ok(report)
}

fn step(rate: u64, pairs: &PairsReport, plan: &RampPlan) -> RampStep {
    let missing = pairs.offered.saturating_sub(pairs.received);
    let loss = missing as f64 / pairs.offered.max(1) as f64;
    let good = loss < plan.max_loss && pairs.latency.p99 < plan.max_latency;
    let cpu = pairs.server.as_ref().map(|server| server.cpu as f64 / pairs.delivered.max(1) as f64);
    // A generator that has nothing left and still has its packets delivered in time has shown that the relay can.
    let good = if pairs.too_slow.is_some() && !good { None } else { Some(good) };
    RampStep { rate, loss, latency: pairs.latency.p99, cpu, good }
}

/// The rate to try next; `None` when the knee is found, or cannot be.
fn next_rate(steps: &[RampStep], to: u64) -> Option<u64> {
    let good = steps.iter().filter(|step| step.good == Some(true)).map(|step| step.rate).max();
    // A rate that failed and then was good is good.
    let bad = steps.iter().filter(|step| step.good != Some(true) && Some(step.rate) > good);
    let bad = bad.map(|step| step.rate).min();
    match (good, bad) {
        (Some(good), None) => (good < to).then(|| ((good as f64 * RISE) as u64).min(to)),
        (Some(good), Some(bad)) => (bad as f64 > good as f64 * PRECISION).then(|| u64::midpoint(good, bad)),
        (None, _) => None,
    }
}

impl RampReport {
    /// The highest good rate.
    #[must_use]
    pub fn knee(&self) -> Option<u64> {
        self.steps.iter().filter(|step| step.good == Some(true)).map(|step| step.rate).max()
    }

    /// Whether the load generator, and not the relay, set the knee.
    fn is_bound(&self) -> bool {
        let above = self.steps.iter().filter(|step| Some(step.rate) > self.knee());
        above.min_by_key(|step| step.rate).is_some_and(|step| step.good.is_none())
    }
}

impl ScenarioReport for RampReport {
    fn scenario(&self) -> &'static str {
        "ramp"
    }

    fn rows(&self) -> Vec<Row> {
        let knee = self.knee().map(|rate| rate as f64);
        let mut rows =
            vec![Row::new("highest good rate", Unit::PacketsPerSecond, knee).at_least(self.is_bound())];
        let mut steps: Vec<_> = self.steps.iter().collect();
        steps.sort_by_key(|step| step.rate);
        for step in steps {
            let name = |what| format!("{what} at {}", step.rate);
            rows.push(Row::new(name("loss"), Unit::Percent, Some(step.loss * 100.0)));
            rows.push(Row::new(name("latency p99"), Unit::Time, Some(step.latency as f64)));
            rows.push(Row::new(name("relay CPU"), Unit::Time, step.cpu));
        }
        rows
    }

    fn remarks(&self) -> Vec<String> {
        let limited = self.is_bound().then(|| {
            "the load generator was the limit above this rate: the relay can do at least as much".to_owned()
        });
        let none = self.knee().is_none().then(|| "not even the first rate was good".to_owned());
        limited.into_iter().chain(none).collect()
    }

    fn plots(&self) -> Vec<Plot> {
        let mut steps: Vec<_> = self.steps.iter().filter(|step| step.good.is_some()).collect();
        steps.sort_by_key(|step| step.rate);
        let plot = |name: &str, unit, scale, limit, value: &dyn Fn(&RampStep) -> f64| Plot {
            title: format!("{name} over rate"),
            x: Axis::new("packets/s", Unit::PacketsPerSecond, Scale::Linear),
            y: Axis::new(name, unit, scale),
            lines: vec![(
                name.to_owned(),
                steps.iter().map(|step| (step.rate as f64, value(step))).collect(),
            )],
            limit: Some(limit),
        };
        vec![
            plot("latency p99", Unit::Time, Scale::Log, self.max_latency as f64, &|step| step.latency as f64),
            plot("loss", Unit::Percent, Scale::Linear, self.max_loss * 100.0, &|step| step.loss * 100.0),
        ]
    }

    fn is_damaged(&self) -> bool {
        self.damaged
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The rates that are tried with a relay that can do `knee`, and a load generator that can do `limit`.
    fn search(from: u64, knee: u64, limit: u64) -> RampReport {
        let mut report =
            RampReport { max_loss: 0.001, max_latency: 5_000_000, steps: Vec::new(), damaged: false };
        let mut next = Some(from);
        while let Some(rate) = next {
            let good = if rate > limit { None } else { Some(rate <= knee) };
            report.steps.push(RampStep { rate, loss: 0.0, latency: 0, cpu: None, good });
            assert!(report.steps.len() < 50, "the search ends");
            next = next_rate(&report.steps, 10_000_000);
        }
        report
    }

    #[test]
    fn the_knee_is_found_to_four_percent() {
        for knee in [20_000, 77_777, 400_001, 2_345_678] {
            let found = search(20_000, knee, u64::MAX).knee().unwrap();
            assert!(found <= knee && found as f64 * PRECISION >= knee as f64, "{found} for {knee}");
        }
        assert_eq!(search(20_000, 10_000, u64::MAX).knee(), None);
    }

    #[test]
    fn a_load_generator_that_is_the_limit_is_said_to_be() {
        let report = search(20_000, 500_000, 200_000);
        assert!(report.knee().unwrap() <= 200_000);
        assert_eq!(report.remarks().len(), 1);
        assert!(search(20_000, 100_000, 200_000).knee().unwrap() <= 100_000);
    }
}
