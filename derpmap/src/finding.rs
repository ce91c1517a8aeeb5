//! Findings: one fact about a map each.

use std::fmt;

use serde::Serialize;

use crate::code::FindingCode;
use crate::document::printable;

/// How bad a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Clients cannot use what it is about: the whole map, a region or a relay.
    Error,
    /// It works, but perhaps not as the author expects.
    Warning,
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Error => "error",
            Self::Warning => "warning",
        })
    }
}

/// One thing in a map that is wrong, or that may surprise.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// How bad it is.
    pub severity: Severity,
    /// The rule.
    pub code: FindingCode,
    /// The line in the file, from 1; `None` where the map as a whole is meant.
    pub line: Option<u32>,
    /// Which part of the map: `region 900, node 900a`. Empty for the map as a whole.
    pub place: String,
    /// What is there.
    pub message: String,
    /// The effect, and the readers or clients that it concerns.
    pub effect: String,
    /// What to do about it.
    pub fix: String,
    /// Whether the reader refuses the whole file for it.
    pub refuses_file: bool,
}

impl Finding {
    pub(crate) fn error(code: FindingCode, message: impl Into<String>) -> Self {
        Self {
            severity: Severity::Error,
            code,
            line: None,
            place: String::new(),
            message: printable(message),
            effect: String::new(),
            fix: String::new(),
            refuses_file: code.refuses_file(),
        }
    }

    pub(crate) fn warning(code: FindingCode, message: impl Into<String>) -> Self {
        Self { severity: Severity::Warning, ..Self::error(code, message) }
    }

    pub(crate) fn at(mut self, place: &str, line: impl Into<Option<u32>>) -> Self {
        self.place = printable(place);
        self.line = line.into();
        self
    }

    pub(crate) fn effect(mut self, effect: impl Into<String>) -> Self {
        self.effect = printable(effect);
        self
    }

    pub(crate) fn fix(mut self, fix: impl Into<String>) -> Self {
        self.fix = printable(fix);
        self
    }

    pub(crate) fn refusing(mut self) -> Self {
        self.refuses_file = true;
        self
    }
}
