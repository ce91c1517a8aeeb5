//! Plots of several servers, from a folder of reports.

use std::collections::BTreeMap;

use anyhow::{Result, bail};
use serde::de::DeserializeOwned;

use crate::histogram::LOST;
use crate::report::runs::ReportFolder;
use crate::report::spread::spread;
use crate::report::svg::{Axis, Plot, Scale};
use crate::report::unit::Unit;
use crate::scenario::idle::IdleReport;
use crate::scenario::pairs::PairsReport;
use crate::scenario::ramp::{RampReport, RampStep};

/// The figures that a plot shows, and their loads.
#[derive(Clone, Debug)]
pub(crate) enum PlotSubject {
    /// The 99th percentile of latency over the offered rate, of the steps of ramps.
    RampLatency { load: String },
    /// Loss over the offered rate, of the steps of ramps.
    RampLoss { load: String },
    /// A figure of several loads, each with a label.
    Bars { figure: String, loads: Vec<(String, String)> },
    /// The percentiles of the latency of pairs.
    Quantiles { load: String },
    /// The memory over the number of idle connections, above that without connections.
    Memory { load: String },
}

/// Draws a subject, with a line or bars for each server.
///
/// # Errors
///
/// If the folder or a report in it cannot be read, or has no values for the plot.
pub(crate) fn plot(
    folder: &ReportFolder,
    servers: &[String],
    subject: &PlotSubject,
    title: &str,
) -> Result<Plot> {
    let (x, y, limit) = axes(folder, servers, subject)?;
    let mut lines = Vec::new();
    for server in servers {
        let points = points(folder, server, subject)?;
        if !points.is_empty() {
            lines.push((server.clone(), points));
        }
    }
    if lines.is_empty() {
        bail!("no report in {} has values for this plot", folder.0.display());
    }
    Ok(Plot { title: title.to_owned(), x, y, lines, limit })
}

fn axes(
    folder: &ReportFolder,
    servers: &[String],
    subject: &PlotSubject,
) -> Result<(Axis, Axis, Option<f64>)> {
    let rate = || Axis::new("offered, packets/s", Unit::PacketsPerSecond, Scale::Linear);
    let ramp = |load: &str| -> Result<Option<RampReport>> {
        for server in servers {
            if let Some((_, file)) = folder.reports(load, server)?.pop_first() {
                return Ok(Some(file.detail));
            }
        }
        Ok(None)
    };
    Ok(match subject {
        PlotSubject::RampLatency { load } => {
            let limit = ramp(load)?.map(|ramp| ramp.max_latency as f64);
            (rate(), Axis::new("p99 one way", Unit::Time, Scale::Log), limit)
        }
        PlotSubject::RampLoss { load } => {
            let limit = ramp(load)?.map(|ramp| ramp.max_loss * 100.0);
            (rate(), Axis::new("packets lost", Unit::Percent, Scale::Linear), limit)
        }
        PlotSubject::Bars { figure, loads } => {
            let mut unit = Unit::Time;
            for (load, _) in loads {
                unit = folder.series(load, &servers[0], figure)?.unit.unwrap_or(unit);
            }
            let labels = loads.iter().map(|(_, label)| label.clone()).collect();
            (Axis::new("", Unit::Count, Scale::Groups(labels)), Axis::new(figure, unit, Scale::Linear), None)
        }
        PlotSubject::Quantiles { .. } => {
            let labels = ["50 %", "90 %", "99 %", "99.9 %", "longest"].map(str::to_owned).to_vec();
            let x = Axis::new("share of the packets", Unit::Count, Scale::Labels(labels));
            (x, Axis::new("one way", Unit::Time, Scale::Log), None)
        }
        PlotSubject::Memory { .. } => (
            Axis::new("idle connections", Unit::Count, Scale::Linear),
            Axis::new("memory above that without connections", Unit::Bytes, Scale::Linear),
            None,
        ),
    })
}

fn points(folder: &ReportFolder, server: &str, subject: &PlotSubject) -> Result<Vec<(f64, f64)>> {
    Ok(match subject {
        PlotSubject::RampLatency { load } => steps(folder, load, server, |step| step.latency as f64)?,
        PlotSubject::RampLoss { load } => steps(folder, load, server, |step| step.loss * 100.0)?,
        PlotSubject::Bars { figure, loads } => {
            let mut bars = Vec::new();
            for (index, (load, _)) in loads.iter().enumerate() {
                let values = folder.series(load, server, figure)?.values;
                bars.extend(spread(values.into_values()).map(|[_, median, _]| (index as f64, median)));
            }
            bars
        }
        PlotSubject::Quantiles { load } => {
            let runs = details::<PairsReport>(folder, load, server)?;
            medians(runs.iter().flat_map(|run| {
                let latency = run.latency;
                let values = [latency.p50, latency.p90, latency.p99, latency.p999, latency.max];
                (0..).zip(values).filter(|(_, nanos)| *nanos < LOST).map(|(at, nanos)| (at, nanos as f64))
            }))
        }
        PlotSubject::Memory { load } => {
            let runs = details::<IdleReport>(folder, load, server)?;
            medians(runs.iter().flat_map(|run| {
                let base = run.weighed.first().map_or(0, |(_, bytes)| *bytes);
                run.weighed.iter().map(move |(count, bytes)| (u64::from(*count), *bytes as f64 - base as f64))
            }))
        }
    })
}

/// The median of a value at each rate, over the steps of all ramps that the load generator did not limit.
fn steps(
    folder: &ReportFolder,
    load: &str,
    server: &str,
    value: fn(&RampStep) -> f64,
) -> Result<Vec<(f64, f64)>> {
    let runs = details::<RampReport>(folder, load, server)?;
    let steps = runs.iter().flat_map(|run| &run.steps).filter(|step| step.good.is_some());
    Ok(medians(steps.map(|step| (step.rate, value(step)))))
}

/// The reports of the runs that the load generator did not limit.
fn details<R: DeserializeOwned>(folder: &ReportFolder, load: &str, server: &str) -> Result<Vec<R>> {
    let reports = folder.reports(load, server)?.into_values();
    Ok(reports.filter(|file| !file.limited).map(|file| file.detail).collect())
}

/// The median of the values at each x.
fn medians(values: impl Iterator<Item = (u64, f64)>) -> Vec<(f64, f64)> {
    let mut by_x: BTreeMap<u64, Vec<f64>> = BTreeMap::new();
    values.for_each(|(x, value)| by_x.entry(x).or_default().push(value));
    let median = |(x, values)| spread(values).map(|[_, median, _]| (x as f64, median));
    by_x.into_iter().filter_map(median).collect()
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::report::ScenarioReport;

    fn ramp(steps: &[(u64, u64, Option<bool>)]) -> RampReport {
        let steps =
            steps.iter().map(|&(rate, latency, good)| RampStep { rate, loss: 0.5, latency, cpu: None, good });
        RampReport {
            max_loss: 0.001,
            max_latency: 5_000_000,
            arrivals: None,
            steps: steps.collect(),
            damaged: false,
        }
    }

    #[test]
    fn ramps_of_several_runs_make_one_line() {
        let dir = tempfile::tempdir().unwrap();
        let write = |name: &str, report: RampReport| {
            fs::write(dir.path().join(name), serde_json::to_vec(&report.into_file("ramp")).unwrap()).unwrap();
        };
        write("ramp.ours.1.json", ramp(&[(30, 100, Some(true)), (60, 900, Some(false)), (90, 1, None)]));
        write("ramp.ours.2.json", ramp(&[(30, 300, Some(true)), (45, 500, Some(true))]));
        let (folder, servers) = (ReportFolder(dir.path().into()), ["ours".to_owned(), "theirs".to_owned()]);
        let subject = PlotSubject::RampLatency { load: "ramp".to_owned() };
        let latency = plot(&folder, &servers, &subject, "x").unwrap();
        assert_eq!(latency.lines, [("ours".to_owned(), vec![(30.0, 200.0), (45.0, 500.0), (60.0, 900.0)])]);
        assert_eq!(latency.limit, Some(5e6));
        let subject = PlotSubject::RampLoss { load: "ramp".to_owned() };
        assert_eq!(plot(&folder, &servers, &subject, "x").unwrap().lines[0].1[0], (30.0, 50.0));
        let nothing = PlotSubject::RampLoss { load: "none".to_owned() };
        assert!(plot(&folder, &servers, &nothing, "x").is_err());
    }
}
