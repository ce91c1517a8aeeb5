//! A folder with the reports of many runs: `LOAD.SERVER.N.json` is the report of run `N` of a load on a server.
//!
//! Runs of one load with the same number were made in turn on different servers, and are compared with each other.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde::de::{DeserializeOwned, IgnoredAny};

use crate::report::unit::Unit;
use crate::report::{ReportFile, Row, read};

/// A folder of reports.
#[derive(Clone, Debug)]
pub(crate) struct ReportFolder(pub(crate) PathBuf);

/// One figure of a load on a server, by run.
#[derive(Debug, Default)]
pub(crate) struct FigureSeries {
    /// The values, by the number of the run. Runs that lack the figure are left out.
    pub(crate) values: BTreeMap<u32, f64>,
    pub(crate) unit: Option<Unit>,
    /// Whether one of the values is a lower bound.
    pub(crate) at_least: bool,
    /// The number of runs without a value because the load generator was the limit.
    pub(crate) limited: usize,
}

impl ReportFolder {
    /// All reports of a load on a server, by the number of the run.
    pub(crate) fn reports<R: DeserializeOwned>(
        &self,
        load: &str,
        server: &str,
    ) -> Result<BTreeMap<u32, ReportFile<R>>> {
        let mut reports = BTreeMap::new();
        let entries = fs::read_dir(&self.0).with_context(|| format!("reading {}", self.0.display()))?;
        for entry in entries {
            let path = entry?.path();
            if let Some(number) = number_of(&path, load, server) {
                reports.insert(number, read(&path)?);
            }
        }
        Ok(reports)
    }

    /// The figure `name` of a load on a server, in all runs.
    pub(crate) fn series(&self, load: &str, server: &str, name: &str) -> Result<FigureSeries> {
        let mut series = FigureSeries::default();
        for (number, file) in self.reports::<IgnoredAny>(load, server)? {
            let row = file.rows.into_iter().find(|row| row.name == name);
            series.limited += usize::from(file.limited);
            if let Some(Row { unit, value: Some(value), at_least, .. }) = row
                && !file.limited
            {
                series.values.insert(number, value);
                series.unit = Some(unit);
                series.at_least |= at_least;
            }
        }
        Ok(series)
    }
}

/// The number of the run whose report is at `path`; `None` if it is a run of another load or server.
fn number_of(path: &Path, load: &str, server: &str) -> Option<u32> {
    let name = path.file_name()?.to_str()?.strip_suffix(".json")?;
    let rest = name.strip_prefix(load)?.strip_prefix('.')?.strip_prefix(server)?;
    rest.strip_prefix('.')?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_name_has_load_server_and_number() {
        let number = |name: &str| number_of(Path::new(name), "bulk", "derper");
        assert_eq!(number("/tmp/x.y/bulk.derper.12.json"), Some(12));
        for other in
            ["bulk100.derper.1.json", "bulk.derper2.1.json", "bulk.derper.1.html", "bulk.derper.json"]
        {
            assert_eq!(number(other), None, "{other}");
        }
    }
}
