//! Everything that can be wrong with a configuration, in words that say where and what would be right.

use std::fmt;

/// Where a value was given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// Nowhere: the built-in default.
    Default,
    /// In the configuration file.
    File {
        /// The file's path as given by the user.
        name: String,
        /// The line, counted from 1.
        line: usize,
    },
    /// In this environment variable.
    Variable(String),
    /// By this flag on the command line.
    Flag(&'static str),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File { name, line } => write!(f, "{name}:{line}"),
            Self::Variable(name) => f.write_str(name),
            Self::Flag(name) => f.write_str(name),
        }
    }
}

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Problem {
    /// The file that was asked for is missing, not readable or not UTF-8.
    #[error("{name}: cannot be read: {reason}")]
    Unreadable {
        /// The file's path as given by the user.
        name: String,
        /// What the system said.
        reason: String,
    },
    /// The file is not TOML.
    #[error("{origin}: not valid TOML: {reason}")]
    Syntax {
        /// File and line.
        origin: Origin,
        /// What the TOML parser said. Never quotes the file, which may hold a secret there.
        reason: String,
    },
    /// A key that no setting has.
    #[error("{origin}: {key}: unknown key; {hint}")]
    Unknown {
        /// File and line.
        origin: Origin,
        /// The dotted key.
        key: String,
        /// The closest known key, or all keys of the same table.
        hint: String,
    },
    /// A value of the wrong type or out of range.
    #[error("{origin}: {key}: found {found}, allowed: {allowed}")]
    Rejected {
        /// Where the value was given.
        origin: Origin,
        /// The dotted key.
        key: String,
        /// The offending text, shortened; hidden if it is or looks like a secret.
        found: String,
        /// What would have been accepted.
        allowed: String,
    },
    /// A setting without a default was not given anywhere.
    #[error("{key}: not set; give it {ways} (allowed: {allowed})")]
    Missing {
        /// The dotted key.
        key: String,
        /// Where it can be given.
        ways: String,
        /// What would be accepted.
        allowed: String,
    },
    /// Two settings that are fine alone but not together.
    #[error("{origin}: {key}: {reason}")]
    Conflict {
        /// Where the value was given.
        origin: Origin,
        /// The dotted key.
        key: String,
        /// Why the two exclude each other, naming the other one.
        reason: String,
    },
}

impl Problem {
    /// The dotted key of the setting, or of what was taken for one.
    pub(super) fn key(&self) -> Option<&str> {
        match self {
            Self::Unreadable { .. } | Self::Syntax { .. } => None,
            Self::Unknown { key, .. }
            | Self::Rejected { key, .. }
            | Self::Missing { key, .. }
            | Self::Conflict { key, .. } => Some(key),
        }
    }

    /// The order in which problems are reported: the file from top to bottom, the environment, flags, what is missing.
    fn rank(&self) -> (u8, usize) {
        match self {
            Self::Unreadable { .. } => (0, 0),
            Self::Missing { .. } => (4, 0),
            Self::Syntax { origin, .. }
            | Self::Unknown { origin, .. }
            | Self::Rejected { origin, .. }
            | Self::Conflict { origin, .. } => match origin {
                Origin::File { line, .. } => (1, *line),
                Origin::Variable(_) => (2, 0),
                Origin::Flag(_) => (3, 0),
                Origin::Default => (4, 0),
            },
        }
    }
}

/// Every problem of a configuration, in reading order. Displays as one line for each.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problems {
    problems: Vec<Problem>,
    warnings: Vec<String>,
}

impl Problems {
    pub(super) fn new(mut problems: Vec<Problem>, warnings: Vec<String>) -> Self {
        problems.sort_by_key(Problem::rank);
        Self { problems, warnings }
    }

    /// The problems; at least one.
    pub fn iter(&self) -> impl Iterator<Item = &Problem> {
        self.problems.iter()
    }

    /// What was ignored meanwhile, such as a variable with a mistyped name: often the cause of a problem.
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let count = self.problems.len();
        write!(f, "{count} {} in the configuration", if count == 1 { "problem" } else { "problems" })?;
        for problem in &self.problems {
            write!(f, "\n  {problem}")?;
        }
        for warning in &self.warnings {
            write!(f, "\n  note: {warning}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Problems {}

/// The candidate closest to `wanted`, if it is close enough to be a slip of the finger or of the table.
pub(super) fn closest<'c>(wanted: &str, candidates: impl Iterator<Item = &'c str>) -> Option<&'c str> {
    let last = |key: &str| key.rsplit('.').next().map(str::to_owned);
    candidates
        .filter_map(|candidate| {
            let distance = edit_distance(wanted, candidate);
            // The right name in the wrong table is as close as one slip.
            let moved = last(wanted) == last(candidate);
            let near = distance <= 2.max(candidate.len() / 4) && distance < candidate.len();
            (moved || near).then_some((if moved { distance.min(1) } else { distance }, candidate))
        })
        .min()
        .map(|(_, candidate)| candidate)
}

/// Levenshtein distance in characters, one row at a time.
fn edit_distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, from) in a.chars().enumerate() {
        let mut diagonal = i;
        row[0] = i + 1;
        for (j, to) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(from != *to);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn edit_distance_counts_insertions_deletions_and_replacements() {
        for (a, b, distance) in
            [("", "", 0), ("abc", "", 3), ("kitten", "sitting", 3), ("age", "agee", 1), ("ä", "a", 1)]
        {
            assert_eq!(edit_distance(a, b), distance, "{a:?} {b:?}");
            assert_eq!(edit_distance(b, a), distance, "{b:?} {a:?}");
        }
    }

    #[test]
    fn suggestions_are_near_misses_only() {
        let keys = ["listen", "stun.listen", "outbox.age", "key", "key_file"];
        let closest = |wanted| closest(wanted, keys.into_iter());
        assert_eq!(closest("lisen"), Some("listen"));
        assert_eq!(closest("outbox.agee"), Some("outbox.age"));
        assert_eq!(closest("age"), Some("outbox.age"), "the right name in the wrong table");
        assert_eq!(closest("key-file"), Some("key_file"));
        assert_eq!(closest("enable_relay"), None);
        assert_eq!(closest("x"), None);
    }
}
