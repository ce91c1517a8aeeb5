//! Reports: a table for people, JSON for programs, and the median of several.

use std::collections::BTreeMap;
use std::fmt::{self, Write};
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use serde::de::{DeserializeOwned, IgnoredAny};
use serde::{Deserialize, Serialize};

use crate::folder::spread;
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
            Self::Bytes => format!("{} MiB", value / (1024.0 * 1024.0)),
            Self::Percent if value > 0.0 && value < 0.1 => format!("{value} %"),
            Self::Percent => format!("{value:.1} %"),
            _ if value >= 1e6 => format!("{} M", value / 1e6),
            _ if value >= 1e3 => format!("{} k", value / 1e3),
            _ => format!("{value}"),
        }
    }

    pub(crate) fn show(self, value: f64) -> String {
        match self {
            Self::Time if value.abs() >= 1e9 => format!("{:.2} s", value / 1e9),
            Self::Time if value.abs() >= 1e6 => format!("{:.2} ms", value / 1e6),
            Self::Time => format!("{:.2} µs", value / 1e3),
            Self::Count => grouped(value),
            Self::PacketsPerSecond => format!("{} packets/s", grouped(value)),
            Self::BitsPerSecond => format!("{:.1} Mbit/s", value / 1e6),
            Self::AnswersPerSecond => format!("{} answers/s", grouped(value)),
            Self::AnswersPerCpuSecond => format!("{} answers/CPU s", grouped(value)),
            Self::ConnectionsPerSecond => format!("{} connections/s", grouped(value)),
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

/// The report in a file.
pub(crate) fn read<R: DeserializeOwned>(path: &Path) -> Result<File<R>> {
    let text = fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))?;
    serde_json::from_str(&text).with_context(|| format!("{} is no report", path.display()))
}

/// A median, and what it varied between if it did: the unit once, where it is the same for all three.
pub(crate) fn show_spread(unit: Unit, [low, median, high]: [f64; 3]) -> String {
    let [shown_low, shown, shown_high] = [low, median, high].map(|value| unit.show(value));
    if low >= high {
        return shown;
    }
    let unit_of = |text: &str| text.split_once(' ').map(|(_, unit)| unit.to_owned());
    if unit_of(&shown_low) == unit_of(&shown) && unit_of(&shown) == unit_of(&shown_high) {
        let number = |text: &str| text.split(' ').next().unwrap_or_default().to_owned();
        return format!("{shown} ({} – {})", number(&shown_low), number(&shown_high));
    }
    format!("{shown} ({shown_low} – {shown_high})")
}

/// A whole number with commas between thousands.
fn grouped(value: f64) -> String {
    let digits = format!("{:.0}", value.abs());
    let mut text = if value <= -0.5 { "-".to_owned() } else { String::new() };
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
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
        let file = read::<IgnoredAny>(path)?;
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
    fn a_unit_is_shown_once_where_it_is_the_same() {
        assert_eq!(show_spread(Unit::Time, [2.9e3, 3e3, 3.1e3]), "3.00 µs (2.90 – 3.10)");
        assert_eq!(show_spread(Unit::Time, [2.9e5, 3e6, 3.1e6]), "3.00 ms (290.00 µs – 3.10 ms)");
        assert_eq!(show_spread(Unit::PacketsPerSecond, [1e5, 1e5, 1e5]), "100,000 packets/s");
        assert_eq!(show_spread(Unit::Count, [0.0, 999.0, 1_234_567.0]), "999 (0 – 1,234,567)");
        assert_eq!(
            (grouped(-1234.0), grouped(-0.4), grouped(12.0)),
            ("-1,234".into(), "0".into(), "12".into())
        );
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
