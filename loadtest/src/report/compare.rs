//! A row of a comparison table: one figure of several servers.

use anyhow::{Result, bail};

use crate::report::runs::{FigureSeries, ReportFolder};
use crate::report::spread::{show_spread, spread};
use crate::report::unit::Unit;

/// The figure and the servers of a row.
#[derive(Clone, Debug)]
pub(crate) struct Comparison {
    pub(crate) folder: ReportFolder,
    pub(crate) load: String,
    /// The figure's name in the reports.
    pub(crate) figure: String,
    /// The servers; the others are compared with the first.
    pub(crate) servers: Vec<String>,
    /// Another load and its figure: each value is shown as a share of that figure, of the same server and run.
    pub(crate) share_of: Option<(String, String)>,
    /// Another figure, which is also shown where it is not zero.
    pub(crate) besides: Option<String>,
}

/// Makes the cells of a row in Markdown. For each server there is the median of the figure with its lowest and highest
/// value, then for each server but the first the median of the ratios of the first to it, run by run.
///
/// # Errors
///
/// If the folder or a report in it cannot be read.
pub(crate) fn compare(comparison: &Comparison) -> Result<String> {
    if comparison.servers.is_empty() {
        bail!("--servers must name a server");
    }
    let series =
        comparison.servers.iter().map(|server| series(comparison, server)).collect::<Result<Vec<_>>>()?;
    let mut cells = Vec::new();
    for (series, server) in series.iter().zip(&comparison.servers) {
        cells.push(cell(comparison, series, server)?);
    }
    let first = &series[0];
    for other in &series[1..] {
        let ratios =
            other.values.iter().filter_map(|(number, value)| Some(first.values.get(number)? / value));
        let ratio = match spread(ratios.filter(|ratio| ratio.is_finite())) {
            Some([low, median, high]) if low < high => {
                format!("{} ({} – {})", show_ratio(median), show_ratio(low), show_ratio(high))
            }
            Some([_, median, _]) => show_ratio(median),
            None => "–".to_owned(),
        };
        // The ratio of a lower bound is a lower bound. The ratio to a lower bound says nothing.
        cells.push(match (first.at_least, other.at_least) {
            (_, true) => "–".to_owned(),
            (true, false) if ratio != "–" => format!("≥ {ratio}"),
            _ => ratio,
        });
    }
    Ok(cells.join(" | "))
}

/// A ratio with three significant digits, or fewer.
fn show_ratio(ratio: f64) -> String {
    match ratio {
        // One of the two is infinite: see `LOST`.
        ..1e-4 => "0".to_owned(),
        1e4.. => "∞".to_owned(),
        1e-4..0.1 => format!("{ratio:.3}"),
        0.1..10.0 => format!("{ratio:.2}"),
        _ => format!("{ratio:.0}"),
    }
}

fn series(comparison: &Comparison, server: &str) -> Result<FigureSeries> {
    let mut series = comparison.folder.series(&comparison.load, server, &comparison.figure)?;
    if let Some((load, figure)) = &comparison.share_of {
        let whole = comparison.folder.series(load, server, figure)?;
        series.values = std::mem::take(&mut series.values)
            .into_iter()
            .filter_map(|(number, value)| Some((number, value / whole.values.get(&number)? * 100.0)))
            .collect();
        series.unit = Some(Unit::Percent);
        // A ratio of two lower bounds is not a lower bound.
        series.at_least = false;
    }
    Ok(series)
}

fn cell(comparison: &Comparison, series: &FigureSeries, server: &str) -> Result<String> {
    let Some((values, unit)) = spread(series.values.values().copied()).zip(series.unit) else {
        return Ok(if series.limited > 0 { "load generator too slow" } else { "–" }.to_owned());
    };
    let bound = if series.at_least { "≥ " } else { "" };
    let mut cell = format!("{bound}{}", show_spread(unit, values));
    if let Some(besides) = &comparison.besides {
        let besides_values = comparison.folder.series(&comparison.load, server, besides)?.values;
        if let Some([_, median, _]) =
            spread(besides_values.into_values()).filter(|[_, median, _]| *median > 0.0)
        {
            cell += &format!(", {} {besides}", Unit::Count.show(median));
        }
    }
    if series.limited > 0 {
        cell += &format!(", in {} runs the load generator was too slow", series.limited);
    }
    Ok(cell)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use serde_json::json;

    use super::*;
    use crate::histogram::LOST;

    fn write(folder: &Path, name: &str, value: Option<f64>, lost: f64, at_least: bool) {
        let row = |name: &str, unit: &str, value: Option<f64>, at_least: bool| json!({ "name": name, "unit": unit, "value": value, "at_least": at_least });
        let rows = [row("cost", "Time", value, at_least), row("packets lost", "Count", Some(lost), false)];
        let file =
            json!({ "scenario": "x", "rows": rows, "remarks": [], "limited": value.is_none(), "detail": 0 });
        fs::write(folder.join(name), file.to_string()).unwrap();
    }

    fn comparison(folder: &Path, servers: &[&str]) -> Comparison {
        Comparison {
            folder: ReportFolder(folder.into()),
            load: "bulk".to_owned(),
            figure: "cost".to_owned(),
            servers: servers.iter().map(|server| (*server).to_owned()).collect(),
            share_of: None,
            besides: Some("packets lost".to_owned()),
        }
    }

    #[test]
    fn servers_are_compared_run_by_run() {
        let folder = tempfile::tempdir().unwrap();
        for (number, ours, theirs) in [(1, 1e3, 2e3), (2, 4e3, 4e3), (3, 3e3, 4e3)] {
            write(folder.path(), &format!("bulk.ours.{number}.json"), Some(ours), 0.0, false);
            write(folder.path(), &format!("bulk.theirs.{number}.json"), Some(theirs), 1200.0, false);
        }
        let row = compare(&comparison(folder.path(), &["ours", "theirs", "none"])).unwrap();
        let ours = "3.00 µs (1.00 – 4.00)";
        let theirs = "4.00 µs (2.00 – 4.00), 1,200 packets lost";
        assert_eq!(row, format!("{ours} | {theirs} | – | 0.75 (0.50 – 1.00) | –"));
    }

    #[test]
    fn a_ratio_has_two_or_three_digits() {
        let ratios = [0.0021, 0.456, 9.876, 281.27, 1e5 / LOST as f64, LOST as f64 / 1e5];
        assert_eq!(ratios.map(show_ratio), ["0.002", "0.46", "9.88", "281", "0", "∞"]);
    }

    #[test]
    fn runs_that_the_load_generator_limited_are_marked() {
        let folder = tempfile::tempdir().unwrap();
        write(folder.path(), "bulk.ours.1.json", None, 0.0, false);
        write(folder.path(), "bulk.theirs.1.json", Some(2e3), 0.0, false);
        write(folder.path(), "bulk.third.1.json", Some(1e3), 0.0, true);
        let row = compare(&comparison(folder.path(), &["ours", "theirs"])).unwrap();
        assert_eq!(row, "load generator too slow | 2.00 µs | –");
        write(folder.path(), "bulk.ours.2.json", Some(1e3), 0.0, false);
        write(folder.path(), "bulk.theirs.2.json", Some(4e3), 0.0, false);
        let row = compare(&comparison(folder.path(), &["ours", "theirs"])).unwrap();
        assert_eq!(row, "1.00 µs, in 1 runs the load generator was too slow | 3.00 µs (2.00 – 4.00) | 0.25");
        let row = compare(&comparison(folder.path(), &["third", "theirs"])).unwrap();
        assert_eq!(row, "≥ 1.00 µs | 3.00 µs (2.00 – 4.00) | ≥ 0.50");
    }

    #[test]
    fn a_share_is_that_of_the_same_server_and_run() {
        let folder = tempfile::tempdir().unwrap();
        write(folder.path(), "bulk.ours.1.json", Some(3.0), 0.0, false);
        write(folder.path(), "peak.ours.1.json", Some(4.0), 0.0, true);
        let share_of = Some(("peak".to_owned(), "cost".to_owned()));
        let row = compare(&Comparison { share_of, ..comparison(folder.path(), &["ours"]) }).unwrap();
        assert_eq!(row, "75.0 %");
    }
}
