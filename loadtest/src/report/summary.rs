//! Several reports of one scenario as one table.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::Path;

use anyhow::Result;
use serde::de::IgnoredAny;

use crate::report::spread::spread;
use crate::report::unit::Unit;
use crate::report::{Row, read};

/// Makes a table of the median, lowest and highest value of each figure in several reports of one scenario.
///
/// # Errors
///
/// If a file cannot be read or is not a report.
pub(crate) fn summarize(files: &[impl AsRef<Path>]) -> Result<String> {
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
            // A median is not shown if some of the runs lack the figure.
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
    use std::fs;

    use super::*;
    use crate::report::ReportFile;

    fn summary_of(values: &[Option<f64>]) -> String {
        let dir = tempfile::tempdir().unwrap();
        let paths: Vec<_> = (0..values.len()).map(|index| dir.path().join(index.to_string())).collect();
        for (path, value) in paths.iter().zip(values) {
            let rows = vec![Row::new("cost", Unit::Time, *value), Row::count("lost", 3)];
            let file = ReportFile {
                scenario: "fixed".to_owned(),
                parameters: Vec::new(),
                rows,
                remarks: Vec::new(),
                limited: false,
                detail: (),
            };
            fs::write(path, serde_json::to_vec(&file).unwrap()).unwrap();
        }
        summarize(&paths).unwrap()
    }

    #[test]
    fn a_summary_shows_median_lowest_and_highest() {
        let summary = summary_of(&[Some(3_000.0), Some(1_000.0), Some(2_000_000.0)]);
        let cost = summary.lines().next().unwrap();
        assert!(cost.ends_with(" 3.00 µs   1.00 µs – 2.00 ms"), "{cost}");
        let even = summary_of(&[Some(3_000.0), Some(1_000.0)]);
        assert!(even.contains(" 2.00 µs   1.00 µs – 3.00 µs"), "{even}");
    }

    #[test]
    fn a_figure_that_one_run_lacks_is_not_shown() {
        let summary = summary_of(&[Some(3_000.0), None]);
        assert!(summary.lines().next().unwrap().ends_with(" –"), "{summary}");
        assert!(summary.lines().nth(1).unwrap().ends_with("3 – 3"), "{summary}");
    }
}
