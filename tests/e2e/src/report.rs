//! How often something is measured, and the parts of docs/nat.md that the laboratory writes.

use std::path::Path;
use std::time::Duration;
use std::{env, fs};

use towpath_lab::Spread;

/// How many runs a test makes of what it measures: `LAB_RUNS`, 3 unless that is set.
pub fn runs() -> usize {
    env::var("LAB_RUNS").ok().and_then(|text| text.parse().ok()).unwrap_or(3)
}

/// Replaces a generated part of docs/nat.md. The page is read anew each time, because the simulator writes other parts of it.
pub fn write_part(part: &str, text: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/nat.md");
    let page = fs::read_to_string(&path).expect("the page");
    let mark = format!("<!-- generated: {part} -->\n");
    let (head, rest) = page.split_once(&mark).expect("the mark of the part");
    let (_, tail) = rest.split_once("<!-- end -->").expect("the end of the part");
    fs::write(path, format!("{head}{mark}\n{text}\n<!-- end -->{tail}")).expect("the page is written");
}

/// The median, p90, p99 and the most of some times, in milliseconds, as cells of a table.
pub fn cells(times: &Spread) -> String {
    [500, 900, 990, 1000].map(|share| millis(times.per_mille(share))).join(" | ")
}

/// A time in milliseconds, as a cell of a table.
pub fn millis(time: Option<Duration>) -> String {
    time.map_or_else(|| "–".into(), |time| time.as_millis().to_string())
}
