//! Reports: for people, a few lines for each finding; for programs, JSON.

use std::fmt::Write;

use serde::Serialize;

use crate::{Diff, Finding, Impact, MapChange, MapFormat, ParsedMap, Severity};

/// The results for one file.
#[derive(Debug)]
pub struct MapReport<'a> {
    /// The name of the file.
    pub file: &'a str,
    /// The reader that it was read for.
    pub format: MapFormat,
    /// The findings, if a check was asked for.
    pub findings: Option<&'a [Finding]>,
    /// What the reader has in memory, unless it refuses the file; for the report for programs.
    pub map: Option<&'a ParsedMap>,
    /// The name of the old file and the changes from it to this one, if they were asked for.
    pub diff: Option<(&'a str, &'a Diff)>,
}

#[derive(Serialize)]
struct Json<'a> {
    file: &'a str,
    format: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    findings: Option<&'a [Finding]>,
    #[serde(skip_serializing_if = "Option::is_none")]
    map: Option<&'a ParsedMap>,
    #[serde(skip_serializing_if = "Option::is_none")]
    diff: Option<JsonDiff<'a>>,
}

#[derive(Serialize)]
struct JsonDiff<'a> {
    from: &'a str,
    impact: Impact,
    summary: String,
    changes: &'a [MapChange],
}

impl MapReport<'_> {
    /// Whether something is wrong: a finding that is an error, or a change that closes connections.
    #[must_use]
    pub fn is_bad(&self) -> bool {
        let error = |finding: &Finding| finding.severity == Severity::Error;
        self.findings.is_some_and(|findings| findings.iter().any(error))
            || self.diff.is_some_and(|(_, diff)| diff.impact() > Impact::None)
    }

    /// Returns the report for people.
    #[must_use]
    pub fn to_text(&self) -> String {
        let mut text = format!("{}: read as {}\n", self.file, self.format.reader());
        if let Some(findings) = self.findings {
            self.write_findings(&mut text, findings);
        }
        if let Some((from, diff)) = self.diff {
            self.write_diff(&mut text, from, diff);
        }
        text
    }

    fn write_findings(&self, text: &mut String, findings: &[Finding]) {
        for finding in findings {
            let line = finding.line.map_or(String::new(), |line| format!(":{line}"));
            let place = colon(&finding.place);
            put(
                text,
                format_args!(
                    "{}{line}: {}[{}]: {place}{}\n",
                    self.file, finding.severity, finding.code, finding.message
                ),
            );
            put(text, format_args!("    so: {}\n", finding.effect));
            put(text, format_args!("    fix: {}\n", finding.fix));
        }
        let count = |severity| findings.iter().filter(|finding| finding.severity == severity).count();
        let (errors, warnings) = (count(Severity::Error), count(Severity::Warning));
        put(text, format_args!("{}: {}, {}\n", self.file, some(errors, "error"), some(warnings, "warning")));
    }

    fn write_diff(&self, text: &mut String, from: &str, diff: &Diff) {
        put(text, format_args!("from {from} to {}:\n", self.file));
        for change in &diff.changes {
            put(
                text,
                format_args!(
                    "{}[{}]: {}{}\n",
                    change.impact,
                    change.code,
                    colon(&change.place),
                    change.message
                ),
            );
            put(text, format_args!("    so: {}\n", change.effect));
        }
        put(text, format_args!("from {from} to {}: {}\n", self.file, diff.summary()));
    }

    /// Returns the report for programs: one indented JSON object, and a line end.
    #[must_use]
    pub fn to_json(&self) -> String {
        let diff = self.diff.map(|(from, diff)| JsonDiff {
            from,
            impact: diff.impact(),
            summary: diff.summary(),
            changes: &diff.changes,
        });
        let format = match self.format {
            MapFormat::Json => "json",
            MapFormat::Headscale => "headscale",
            MapFormat::TailscalePolicy => "tailscale-policy",
        };
        let report = Json { file: self.file, format, findings: self.findings, map: self.map, diff };
        let mut json = serde_json::to_string_pretty(&report).expect("texts, numbers and lists of them");
        json.push('\n');
        json
    }
}

fn put(text: &mut String, arguments: std::fmt::Arguments<'_>) {
    text.write_fmt(arguments).expect("writing to a String cannot fail");
}

fn colon(place: &str) -> String {
    if place.is_empty() { String::new() } else { format!("{place}: ") }
}

fn some(count: usize, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}
