//! Reports: a table for people, JSON for programs, a page with plots; and several reports side by side.

use std::fmt;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

pub(crate) mod compare;
pub(crate) mod escape;
pub(crate) mod html;
pub(crate) mod plots;
pub(crate) mod runs;
pub(crate) mod spread;
pub(crate) mod summary;
pub mod svg;
pub(crate) mod unit;

use svg::Plot;
use unit::Unit;

/// What the report of a scenario can say.
pub trait ScenarioReport {
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

/// A report as it stands in a JSON file: the rows, and behind them what they were made from.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ReportFile<R> {
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

impl<R: ScenarioReport + Serialize> ReportFile<R> {
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

impl<R> fmt::Display for ReportFile<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.scenario)?;
        for row in &self.rows {
            writeln!(f, "  {:<34} {:>22}", row.name, row.show())?;
        }
        self.remarks.iter().try_for_each(|remark| writeln!(f, "  ! {remark}"))
    }
}

/// The report in a file.
pub(crate) fn read<R: DeserializeOwned>(path: &Path) -> Result<ReportFile<R>> {
    let text = fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))?;
    serde_json::from_str(&text).with_context(|| format!("{} is no report", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_shows_what_is_missing() {
        let rows = vec![Row::new("cost", Unit::Time, None), Row::new("lost", Unit::Count, Some(3.0))];
        let file = ReportFile {
            scenario: "fixed".to_owned(),
            rows,
            remarks: Vec::new(),
            limited: false,
            detail: (),
        };
        let table = file.to_string();
        assert!(table.starts_with("fixed\n  cost "), "{table}");
        assert_eq!(table.matches('–').count(), 1, "{table}");
    }
}
