//! A row of a table: one figure of several servers that were measured in turn.

use anyhow::{Result, bail};

use crate::report::runs::{FigureSeries, ReportFolder};
use crate::report::spread::{show_spread, spread};
use crate::report::unit::Unit;

/// What a row shows.
#[derive(Clone, Debug)]
pub(crate) struct Comparison {
    pub(crate) folder: ReportFolder,
    pub(crate) load: String,
    /// The figure's name, as reports have it.
    pub(crate) figure: String,
    /// The first is the one that the others are compared with.
    pub(crate) servers: Vec<String>,
    /// Another load and its figure; each value is shown as a share of that of the same server and run.
    pub(crate) share_of: Option<(String, String)>,
    /// A figure that is mentioned where it is not zero.
    pub(crate) besides: Option<String>,
}

/// The cells of a row in Markdown: for each server the median and what it varied between, then of the first to each of the
/// others the same of the ratios, run by run.
///
/// # Errors
///
/// If the folder or a report in it cannot be read.
pub(crate) fn compare(comparison: &Comparison) -> Result<String> {
    if comparison.servers.is_empty() {
        bail!("which servers?");
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
        // Of a lower bound the ratio is one, too; against one it says nothing.
        cells.push(match (first.at_least, other.at_least) {
            (_, true) => "–".to_owned(),
            (true, false) if ratio != "–" => format!("≥ {ratio}"),
            _ => ratio,
        });
    }
    Ok(cells.join(" | "))
}

/// To two digits behind the point; more or fewer where these would say nothing or too much.
fn show_ratio(ratio: f64) -> String {
    match ratio {
        ..0.1 => format!("{ratio:.3}"),
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
        // A share of two bounds is neither.
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
        let row = compare(&comparison(folder.path(), &["ours", "theirs", "nobody"])).unwrap();
        let ours = "3.00 µs (1.00 – 4.00)";
        let theirs = "4.00 µs (2.00 – 4.00), 1,200 packets lost";
        assert_eq!(row, format!("{ours} | {theirs} | – | 0.75 (0.50 – 1.00) | –"));
    }

    #[test]
    fn ratios_have_the_digits_that_say_something() {
        assert_eq!([0.0021, 0.456, 9.876, 281.27].map(show_ratio), ["0.002", "0.46", "9.88", "281"]);
    }

    #[test]
    fn what_the_load_generator_could_not_do_is_marked() {
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
    fn a_share_is_of_the_same_server_and_run() {
        let folder = tempfile::tempdir().unwrap();
        write(folder.path(), "bulk.ours.1.json", Some(3.0), 0.0, false);
        write(folder.path(), "peak.ours.1.json", Some(4.0), 0.0, true);
        let share_of = Some(("peak".to_owned(), "cost".to_owned()));
        let row = compare(&Comparison { share_of, ..comparison(folder.path(), &["ours"]) }).unwrap();
        assert_eq!(row, "75.0 %");
    }
}
