//! Reports: as a table, as JSON and as a page with plots; and several reports side by side.

use std::path::Path;
use std::{fmt, fs};

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
pub(crate) mod svg;
pub(crate) mod unit;

use svg::Plot;
use unit::Unit;

/// The result of a run, as it is shown.
pub(crate) trait ScenarioReport {
    /// The parameters of the load that the figures depend on, beyond the scenario.
    fn parameters(&self) -> Vec<Parameter> {
        Vec::new()
    }

    /// The figures, most important first.
    fn rows(&self) -> Vec<Row>;

    /// Sentences that a reader of the figures must know.
    fn remarks(&self) -> Vec<String>;

    /// The plots on the report's page.
    fn plots(&self) -> Vec<Plot> {
        Vec::new()
    }

    /// Whether the load generator was the limit, so that figures are missing or mean little.
    fn is_limited(&self) -> bool {
        false
    }

    /// Whether the server damaged packets.
    fn is_damaged(&self) -> bool;

    /// The report of a run of this scenario.
    fn into_file(self, scenario: &str) -> ReportFile<Self>
    where
        Self: Sized,
    {
        ReportFile {
            scenario: scenario.to_owned(),
            parameters: self.parameters(),
            rows: self.rows(),
            remarks: self.remarks(),
            limited: self.is_limited(),
            detail: self,
        }
    }
}

/// A parameter of a load, as text.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Parameter {
    /// The parameter's name.
    pub name: String,
    /// The parameter's value.
    pub value: String,
}

impl Parameter {
    pub(crate) fn new(name: &str, value: impl ToString) -> Self {
        Self { name: name.to_owned(), value: value.to_string() }
    }
}

/// A figure of a report.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Row {
    /// The figure's name.
    pub name: String,
    /// The unit of the value.
    pub unit: Unit,
    /// The value; `None` if it is not known or means nothing.
    pub value: Option<f64>,
    /// Whether the value is a lower bound, because the load generator was the limit.
    #[serde(default)]
    pub at_least: bool,
}

impl Row {
    pub(crate) fn new(name: impl Into<String>, unit: Unit, value: Option<f64>) -> Self {
        Self { name: name.into(), unit, value, at_least: false }
    }

    /// A number of things.
    pub(crate) fn count(name: impl Into<String>, count: u64) -> Self {
        Self::new(name, Unit::Count, Some(count as f64))
    }

    /// Marks the value as a lower bound, if it is one.
    pub(crate) const fn at_least(mut self, is_bound: bool) -> Self {
        self.at_least = is_bound;
        self
    }

    /// The value with its unit.
    pub(crate) fn show(&self) -> String {
        let bound = if self.at_least { "≥ " } else { "" };
        self.value.map_or_else(|| "–".to_owned(), |value| format!("{bound}{}", self.unit.show(value)))
    }
}

/// A report in a JSON file: its rows, and the result that they were made from.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ReportFile<R> {
    /// The scenario's name.
    pub scenario: String,
    /// The parameters of the load that the figures depend on.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub parameters: Vec<Parameter>,
    /// The figures.
    pub rows: Vec<Row>,
    /// Sentences that a reader of the figures must know.
    pub remarks: Vec<String>,
    /// Whether the load generator was the limit, so that figures are missing or mean little.
    #[serde(default)]
    pub limited: bool,
    /// The result that the rows were made from.
    pub detail: R,
}

impl<R> fmt::Display for ReportFile<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.scenario)?;
        for Parameter { name, value } in &self.parameters {
            writeln!(f, "  {name:<34} {value:>22}")?;
        }
        for row in &self.rows {
            writeln!(f, "  {:<34} {:>22}", row.name, row.show())?;
        }
        self.remarks.iter().try_for_each(|remark| writeln!(f, "  ! {remark}"))
    }
}

/// Reads a report from a JSON file.
pub(crate) fn read<R: DeserializeOwned>(path: &Path) -> Result<ReportFile<R>> {
    let text = fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))?;
    serde_json::from_str(&text).with_context(|| format!("{} is not a report of this load", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_shows_a_dash_for_a_missing_value() {
        let rows = vec![Row::new("cost", Unit::Time, None), Row::count("lost", 3)];
        let (scenario, parameters, remarks) = ("fixed".to_owned(), Vec::new(), Vec::new());
        let table =
            ReportFile { scenario, parameters, rows, remarks, limited: false, detail: () }.to_string();
        assert!(table.starts_with("fixed\n  cost "), "{table}");
        assert_eq!(table.matches('–').count(), 1, "{table}");
    }
}
