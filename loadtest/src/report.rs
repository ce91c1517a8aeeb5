//! Reports: a table for people, JSON for programs, and the median of several.

use std::collections::BTreeMap;
use std::fmt::{self, Write};
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};

use crate::plot::Plot;

/// What the report of a scenario can say.
pub trait Report {
    /// The scenario's name.
    fn scenario(&self) -> &'static str;

    /// The figures, most important first.
    fn rows(&self) -> Vec<Row>;

    /// What must be known about them.
    fn remarks(&self) -> Vec<String>;

    /// What a page shows besides the figures.
    fn plots(&self) -> Vec<Plot> {
        Vec::new()
    }

    /// Whether the load generator was the limit, so that figures are missing or mean little.
    fn is_limited(&self) -> bool {
        false
    }

    /// Whether the relay did what it must never do.
    fn is_damaged(&self) -> bool;
}

/// Text, shown as it stands in HTML.
pub(crate) struct Escaped<'a>(pub(crate) &'a str);

/// A figure.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Row {
    /// What it is of.
    pub name: String,
    /// Its unit.
    pub unit: Unit,
    /// `None` where it is not known or means nothing.
    pub value: Option<f64>,
    /// Whether the server could have done more than `value`, had the load generator been quicker.
    #[serde(default)]
    pub at_least: bool,
}

impl Row {
    pub(crate) fn new(name: impl Into<String>, unit: Unit, value: Option<f64>) -> Self {
        Self { name: name.into(), unit, value, at_least: false }
    }

    /// The same as a lower bound, if it is one.
    pub(crate) const fn at_least(mut self, is_bound: bool) -> Self {
        self.at_least = is_bound;
        self
    }

    /// The value for people.
    pub(crate) fn show(&self) -> String {
        let bound = if self.at_least { "≥ " } else { "" };
        self.value.map_or_else(|| "–".to_owned(), |value| format!("{bound}{}", self.unit.show(value)))
    }
}

/// The unit of a [`Row`]'s value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Unit {
    /// Nanoseconds.
    Time,
    /// A number of things.
    Count,
    /// Packets a second.
    PacketsPerSecond,
    /// Bits a second.
    BitsPerSecond,
    /// Connections a second.
    ConnectionsPerSecond,
    /// Answers a second.
    AnswersPerSecond,
    /// Answers in a second of the server's CPU time.
    AnswersPerCpuSecond,
    /// Bytes.
    Bytes,
    /// Bytes a connection.
    BytesPerConnection,
    /// Hundredths.
    Percent,
}

impl Unit {
    /// A value for the tick of an axis: short, and without what its name says already.
    pub(crate) fn show_short(self, value: f64) -> String {
        match self {
            Self::Time if value >= 1e9 => format!("{} s", value / 1e9),
            Self::Time if value >= 1e6 => format!("{} ms", value / 1e6),
            Self::Time => format!("{} µs", value / 1e3),
            Self::Percent if value > 0.0 && value < 0.1 => format!("{value} %"),
            Self::Percent => format!("{value:.1} %"),
            _ if value >= 1e6 => format!("{} M", value / 1e6),
            _ if value >= 1e3 => format!("{} k", value / 1e3),
            _ => format!("{value}"),
        }
    }

    pub(crate) fn show(self, value: f64) -> String {
        match self {
            Self::Time if value >= 1e9 => format!("{:.2} s", value / 1e9),
            Self::Time if value >= 1e6 => format!("{:.2} ms", value / 1e6),
            Self::Time => format!("{:.2} µs", value / 1e3),
            Self::Count => format!("{value:.0}"),
            Self::PacketsPerSecond => format!("{value:.0} packets/s"),
            Self::BitsPerSecond => format!("{:.1} Mbit/s", value / 1e6),
            Self::AnswersPerSecond => format!("{value:.0} answers/s"),
            Self::AnswersPerCpuSecond => format!("{value:.0} answers/CPU s"),
            Self::ConnectionsPerSecond => format!("{value:.0} connections/s"),
            Self::Bytes => format!("{:.1} MiB", value / (1024.0 * 1024.0)),
            Self::BytesPerConnection => format!("{:.2} KiB each", value / 1024.0),
            Self::Percent => format!("{value:.1} %"),
        }
    }
}

/// A report as it stands in a JSON file: the rows, and behind them what they were made from.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct File<R> {
    /// The scenario's name.
    pub scenario: String,
    /// The figures.
    pub rows: Vec<Row>,
    /// What must be known about them.
    pub remarks: Vec<String>,
    /// Whether the load generator was the limit, so that figures are missing or mean little.
    #[serde(default)]
    pub limited: bool,
    /// What they were made from.
    pub detail: R,
}

impl<R: Report + Serialize> File<R> {
    /// The file of a report.
    pub fn new(detail: R) -> Self {
        Self {
            scenario: detail.scenario().to_owned(),
            rows: detail.rows(),
            remarks: detail.remarks(),
            limited: detail.is_limited(),
            detail,
        }
    }
}

impl<R> fmt::Display for File<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.scenario)?;
        for row in &self.rows {
            writeln!(f, "  {:<34} {:>22}", row.name, row.show())?;
        }
        self.remarks.iter().try_for_each(|remark| writeln!(f, "  ! {remark}"))
    }
}

fn read(path: &Path) -> Result<File<serde::de::IgnoredAny>> {
    let text = fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))?;
    serde_json::from_str(&text).with_context(|| format!("{} is no report", path.display()))
}

/// One figure of two relays that were measured in turn, as three cells of a table: the median of each with what it varied
/// between, and the same of the ratios of first to second, run by run. A dash where a run has no such figure.
///
/// # Errors
///
/// If a file cannot be read or is no report, or there are not as many of the second as of the first.
pub fn compare(figure: &str, first: &[PathBuf], second: &[PathBuf]) -> Result<String> {
    if first.len() != second.len() {
        bail!(
            "{} reports of the first relay and {} of the second cannot be paired",
            first.len(),
            second.len()
        );
    }
    let mut unit = None;
    let mut values = |paths: &[PathBuf]| {
        paths
            .iter()
            .map(|path| {
                let row = read(path)?.rows.into_iter().find(|row| row.name == figure);
                unit = unit.or(row.as_ref().map(|row| row.unit));
                Ok(row.and_then(|row| row.value))
            })
            .collect::<Result<Option<Vec<f64>>>>()
    };
    let (first, second) = (values(first)?, values(second)?);
    let ratios = first
        .as_ref()
        .zip(second.as_ref())
        .map(|(first, second)| first.iter().zip(second).map(|(first, second)| first / second).collect());
    let cell = |values: Option<Vec<f64>>, show: &dyn Fn(f64) -> String| {
        values.and_then(spread).map_or_else(
            || "–".to_owned(),
            |spread| {
                let [low, median, high] = spread.map(show);
                format!("{median} ({low} – {high})")
            },
        )
    };
    let show = |value: f64| unit.map_or_else(|| value.to_string(), |unit| unit.show(value));
    let ratio = |value: f64| format!("{value:.2}");
    Ok(format!("{} | {} | {}\n", cell(first, &show), cell(second, &show), cell(ratios, &ratio)))
}

/// The median of each figure of several report files of one scenario, and between what it varied.
///
/// # Errors
///
/// If a file cannot be read or is no report.
pub fn summarize(files: &[impl AsRef<Path>]) -> Result<String> {
    let mut order = Vec::new();
    let mut values: BTreeMap<(String, Unit), Vec<Option<f64>>> = BTreeMap::new();
    let mut remarks = Vec::new();
    for path in files.iter().map(AsRef::as_ref) {
        let file = read(path)?;
        for Row { name, unit, value, .. } in file.rows {
            let key = (name, unit);
            if !values.contains_key(&key) {
                order.push(key.clone());
            }
            values.entry(key).or_default().push(value);
        }
        remarks.extend(file.remarks);
    }
    let mut text = String::new();
    for key in &order {
        let (name, unit) = key;
        let known: Vec<f64> = values[key].iter().flatten().copied().collect();
        let shown = match spread(known) {
            // A figure that some runs could not give is not the median of the others.
            Some(spread) if values[key].iter().all(Option::is_some) => {
                let [low, median, high] = spread.map(|value| unit.show(value));
                format!("{median:>22}   {low} – {high}")
            }
            _ => format!("{:>22}", "–"),
        };
        writeln!(text, "  {name:<34} {shown}")?;
    }
    remarks.iter().try_for_each(|remark| writeln!(text, "  ! {remark}"))?;
    Ok(text)
}

/// Lowest, median, highest.
fn spread(mut values: Vec<f64>) -> Option<[f64; 3]> {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    let median = match values.len() {
        0 => return None,
        len if len % 2 == 1 => values[middle],
        _ => f64::midpoint(values[middle - 1], values[middle]),
    };
    Some([values[0], median, values[values.len() - 1]])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Serialize)]
    struct Fixed(Option<f64>);

    impl Report for Fixed {
        fn scenario(&self) -> &'static str {
            "fixed"
        }

        fn rows(&self) -> Vec<Row> {
            vec![Row::new("cost", Unit::Time, self.0), Row::new("lost", Unit::Count, Some(3.0))]
        }

        fn remarks(&self) -> Vec<String> {
            Vec::new()
        }

        fn is_damaged(&self) -> bool {
            false
        }
    }

    fn summary_of(values: &[Option<f64>]) -> String {
        let dir = tempfile::tempdir().unwrap();
        let paths: Vec<_> = (0..values.len()).map(|index| dir.path().join(index.to_string())).collect();
        for (path, value) in paths.iter().zip(values) {
            fs::write(path, serde_json::to_vec(&File::new(Fixed(*value))).unwrap()).unwrap();
        }
        summarize(&paths).unwrap()
    }

    #[test]
    fn a_summary_has_median_and_extremes() {
        let summary = summary_of(&[Some(3_000.0), Some(1_000.0), Some(2_000_000.0)]);
        let cost = summary.lines().next().unwrap();
        assert!(cost.ends_with(" 3.00 µs   1.00 µs – 2.00 ms"), "{cost}");
        let even = summary_of(&[Some(3_000.0), Some(1_000.0)]);
        assert!(even.contains(" 2.00 µs   1.00 µs – 3.00 µs"), "{even}");
    }

    #[test]
    fn two_relays_are_compared_run_by_run() {
        let dir = tempfile::tempdir().unwrap();
        let write = |name: &str, value| {
            let path = dir.path().join(name);
            fs::write(&path, serde_json::to_vec(&File::new(Fixed(value))).unwrap()).unwrap();
            path
        };
        let first = [write("a1", Some(1_000.0)), write("a2", Some(4_000.0)), write("a3", Some(3_000.0))];
        let second = [write("b1", Some(2_000.0)), write("b2", Some(4_000.0)), write("b3", Some(4_000.0))];
        let table = compare("cost", &first, &second).unwrap();
        let expected = "3.00 µs (1.00 µs – 4.00 µs) | 4.00 µs (2.00 µs – 4.00 µs) | 0.75 (0.50 – 1.00)\n";
        assert_eq!(table, expected);
        assert!(compare("no such figure", &first, &second).unwrap().starts_with("– | – | –"));
        assert!(compare("cost", &first, &second[..2]).is_err());
        let lacking = [write("c1", None), write("c2", Some(1.0)), write("c3", Some(1.0))];
        assert!(compare("cost", &first, &lacking).unwrap().ends_with("| – | –\n"));
    }

    #[test]
    fn a_figure_that_one_run_lacks_is_none() {
        let summary = summary_of(&[Some(3_000.0), None]);
        assert!(summary.lines().next().unwrap().ends_with(" –"), "{summary}");
        assert!(summary.lines().nth(1).unwrap().ends_with("3 – 3"), "{summary}");
    }

    #[test]
    fn a_table_shows_what_is_missing() {
        let table = File::new(Fixed(None)).to_string();
        assert!(table.starts_with("fixed\n  cost "), "{table}");
        assert_eq!(table.matches('–').count(), 1, "{table}");
    }
}
