//! How a command ends, and what is printed and said on the way.

use std::io::{self, Write};
use std::process::ExitCode;

use anyhow::Context;

use crate::config::{Problems, Resolved};
use crate::logs::say;

/// Why the program ends without success.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// The configuration is wrong.
    #[error(transparent)]
    Config(#[from] Problems),
    /// Something failed while running.
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
///
/// # Errors
///
/// If standard output takes nothing.
pub fn print(text: &str) -> anyhow::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes()).and_then(|()| out.flush()).context("cannot write to standard output")
}

/// Says what a program has ignored of its configuration.
pub fn warn(program: &str, resolved: &Resolved) {
    for warning in resolved.warnings() {
        say(&format!("{program}: warning: {warning}"));
    }
}
