//! Ramp: the highest rate of paced pairs at which the relay loses almost nothing and latency stays low.
//!
//! The rate rises by a factor until one is too high. Then the interval between the highest good rate and the lowest bad
//! one is halved until it is narrow. Each step is a run of [`pairs`](super::pairs) with new connections.

use std::time::Duration;

use anyhow::{Result, bail};
use clap::Args;
use serde::{Deserialize, Serialize};

use crate::clock;
use crate::flow::arrivals::Arrivals;
use crate::flow::job::{FlowJob, FlowOutcome};
use crate::process::Parent;
use crate::report::svg::{Axis, Plot, Scale};
use crate::report::unit::Unit;
use crate::report::{Parameter, Row, ScenarioReport};
use crate::scenario::args::{RelayArgs, parse_duration};
use crate::scenario::config::RunConfig;
use crate::scenario::interface::Scenario;
use crate::scenario::pairs::{PairsArgs, PairsReport};
use crate::target::LoadTarget;

/// The factor between one rate and the next, while none was too high.
const RISE: f64 = 1.3;
/// How often a rate is tried before it counts as too high: the machine may have been busy with something else.
const TRIES: usize = 2;
/// The width of the final interval, as a factor.
const PRECISION: f64 = 1.04;

/// The options of a ramp.
#[derive(Debug, Args)]
pub(crate) struct RampArgs {
    /// The load of each step; its rate is not used
    #[command(flatten)]
    pairs: PairsArgs,
    /// The first rate, in packets a second
    #[arg(long, default_value_t = 20_000)]
    from: u64,
    /// The highest rate to try, in packets a second
    #[arg(long, default_value_t = 2_000_000)]
    to: u64,
    /// The loss at which a rate is too high, in percent of the packets, with those that the relay did not take
    #[arg(long, default_value_t = 0.1)]
    max_loss: f64,
    /// The 99th percentile of latency at which a rate is too high
    #[arg(long, default_value = "5ms", value_parser = parse_duration)]
    max_latency: Duration,
}

/// A run at one rate.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct RampStep {
    /// Packets a second.
    pub rate: u64,
    /// The share of the packets that was lost or not taken.
    pub loss: f64,
    /// The 99th percentile of latency in nanoseconds.
    pub latency: u64,
    /// The CPU time of the relay for a delivered packet, in nanoseconds.
    pub cpu: Option<f64>,
    /// Whether loss and latency were below their limits; `None` if the load generator was the limit.
    pub good: Option<bool>,
}

/// The report on a ramp.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct RampReport {
    /// The share of the packets at which a loss is too high.
    pub max_loss: f64,
    /// The 99th percentile of latency that is too high, in nanoseconds.
    pub max_latency: u64,
    /// The arrival process of the packets.
    #[serde(default)]
    pub arrivals: Option<Arrivals>,
    /// The steps, in the order in which they were run.
    pub steps: Vec<RampStep>,
    /// Whether a packet was duplicated, reordered, changed or misrouted.
    pub damaged: bool,
}

/// The scenario `ramp`.
pub(crate) struct RampScenario;

impl Scenario for RampScenario {
    const NAME: &'static str = "ramp";
    const ABOUT: &'static str = "Finds the highest rate of pairs with almost no loss and low latency";
    type Target = RelayArgs;
    type Args = RampArgs;
    type Job = FlowJob;
    type Outcome = FlowOutcome;
    type Report = RampReport;

    fn run(args: &RampArgs, config: &RunConfig) -> Result<RampReport> {
        if args.from == 0 || args.to < args.from {
            bail!("--from must not be zero, and --to must not be less");
        }
        let mut report = RampReport {
            max_loss: args.max_loss / 100.0,
            max_latency: clock::nanos(args.max_latency),
            arrivals: Some(args.pairs.arrivals()),
            steps: Vec::new(),
            damaged: false,
        };
        let mut next = Some(args.from);
        while let Some(rate) = next {
            for _ in 0..TRIES {
                let pairs = args.pairs.at_rate(rate).run::<Self>(config)?;
                report.damaged |= pairs.damage.any();
                let step = report.step(rate, &pairs);
                let is_good = step.good == Some(true);
                report.steps.push(step);
                if is_good {
                    break;
                }
            }
            next = next_rate(&report.steps, args.to);
        }
        Ok(report)
    }

    fn work(target: &LoadTarget, job: FlowJob, parent: &mut Parent) -> Result<FlowOutcome> {
        job.work(target, parent)
    }
}

/// The rate to try next; `None` if the interval is narrow, or no rate was good.
fn next_rate(steps: &[RampStep], to: u64) -> Option<u64> {
    let good = steps.iter().filter(|step| step.good == Some(true)).map(|step| step.rate).max();
    // A rate that failed at first and was good in a later try is below none of these.
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

    /// Judges a run at `rate`.
    fn step(&self, rate: u64, pairs: &PairsReport) -> RampStep {
        let missing = pairs.offered.saturating_sub(pairs.received);
        let loss = missing as f64 / pairs.offered.max(1) as f64;
        let good = loss < self.max_loss && pairs.latency.p99 < self.max_latency;
        let cpu = pairs.server.as_ref().map(|server| server.cpu as f64 / pairs.delivered.max(1) as f64);
        // A run whose packets arrived in time shows what the relay can do, even if the load generator had no reserve.
        let good = if pairs.too_slow.is_some() && !good { None } else { Some(good) };
        RampStep { rate, loss, latency: pairs.latency.p99, cpu, good }
    }

    /// Whether the load generator, and not the relay, set the highest good rate.
    fn is_bound(&self) -> bool {
        let above = self.steps.iter().filter(|step| Some(step.rate) > self.knee());
        above.min_by_key(|step| step.rate).is_some_and(|step| step.good.is_none())
    }
}

impl ScenarioReport for RampReport {
    fn parameters(&self) -> Vec<Parameter> {
        self.arrivals.iter().map(|arrivals| Parameter::new("arrivals", arrivals)).collect()
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
        let none = self.knee().is_none().then(|| "no rate was good; try a lower --from".to_owned());
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

    /// Searches with a relay whose highest good rate is `knee` and a load generator whose highest rate is `limit`.
    fn search(from: u64, knee: u64, limit: u64) -> RampReport {
        let mut report = RampReport {
            max_loss: 0.001,
            max_latency: 5_000_000,
            arrivals: None,
            steps: Vec::new(),
            damaged: false,
        };
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
    fn the_highest_good_rate_is_found_to_four_percent() {
        for knee in [20_000, 77_777, 400_001, 2_345_678] {
            let found = search(20_000, knee, u64::MAX).knee().unwrap();
            assert!(found <= knee && found as f64 * PRECISION >= knee as f64, "{found} for {knee}");
        }
        assert_eq!(search(20_000, 10_000, u64::MAX).knee(), None);
    }

    #[test]
    fn a_load_generator_that_is_the_limit_is_reported() {
        let report = search(20_000, 500_000, 200_000);
        assert!(report.knee().unwrap() <= 200_000);
        assert_eq!(report.remarks().len(), 1);
        assert!(search(20_000, 100_000, 200_000).knee().unwrap() <= 100_000);
    }
}
