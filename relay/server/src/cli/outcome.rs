//! How a command ends, and what is printed and said on the way.

use std::io::{self, Write};
use std::process::ExitCode;

use anyhow::Context;
use towpath_service::config::{Problems, Resolved};
use towpath_service::logs::say;

/// Why the program ends without success.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failure {
    #[error(transparent)]
    Config(#[from] Problems),
    #[error("{0:#}")]
    Runtime(#[from] anyhow::Error),
    /// A file that was to be looked at.
    #[error("{0:#}")]
    Unreadable(anyhow::Error),
    /// What was looked at is wrong, which has been said.
    #[error("there is something wrong")]
    Wrong,
}

impl From<Failure> for ExitCode {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Config(_) | Failure::Unreadable(_) => 2.into(),
            Failure::Runtime(_) | Failure::Wrong => 1.into(),
        }
    }
}

/// Prints as asked on standard output.
pub(super) fn print(text: &str) -> anyhow::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes()).and_then(|()| out.flush()).context("cannot write to standard output")
}

pub(super) fn warn(resolved: &Resolved) {
    for warning in resolved.warnings() {
        say(&format!("towpath-relay: warning: {warning}"));
    }
}

#[cfg(test)]
mod tests {
    use towpath_relay::RunError;

    use super::*;

    /// So a supervisor starts the relay again.
    #[test]
    fn a_worker_that_panics_is_a_failure_with_its_reason() {
        let failure = Failure::from(anyhow::Error::from(RunError::Worker));
        let said = "a worker of the data plane panicked; the relay cannot go on without it";
        assert_eq!(failure.to_string(), said);
        // Exit codes can only be printed.
        assert_eq!(format!("{:?}", ExitCode::from(failure)), format!("{:?}", ExitCode::from(1)));
    }
}
