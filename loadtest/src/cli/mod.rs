//! The command line: a subcommand for each scenario, and those that read reports.

use std::io::{self, Write};
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::{ArgMatches, FromArgMatches, Subcommand};

use crate::scenario;
use crate::scenario::interface::RegisteredScenario;

mod reports;

use reports::ReportCommand;

/// The name of the argument of the hidden subcommand `worker`.
const SCENARIO: &str = "scenario";

/// The main function of the program.
///
/// Exit status 1 is a failure and 2 a bad command line. 3 means that the relay duplicated, reordered, changed or
/// misrouted packets.
#[must_use]
pub fn main() -> ExitCode {
    let matches = command().get_matches();
    run(&matches).unwrap_or_else(|error| {
        // A closed standard error does not change the exit status.
        let _ = writeln!(io::stderr(), "towpath-loadtest: {error:#}");
        ExitCode::FAILURE
    })
}

fn command() -> clap::Command {
    let command = clap::Command::new("towpath-loadtest")
        .version(env!("CARGO_PKG_VERSION"))
        .subcommand_required(true)
        .arg_required_else_help(true)
        .subcommands(scenario::all().map(RegisteredScenario::command));
    let worker = clap::Command::new("worker")
        .about("Runs one worker process of a scenario; started by the scenario")
        .hide(true)
        .arg(clap::Arg::new(SCENARIO).required(true));
    ReportCommand::augment_subcommands(command)
        .subcommand(worker)
        .about("Loads a relay, and measures its CPU time, memory, latency and loss")
}

fn run(matches: &ArgMatches) -> Result<ExitCode> {
    let (name, arguments) = matches.subcommand().context("no subcommand")?;
    if name == "worker" {
        let name = arguments.get_one::<String>(SCENARIO).context("no scenario")?;
        let scenario = scenario::named(name).with_context(|| format!("no scenario {name}"))?;
        return Ok((scenario.work)());
    }
    match scenario::named(name) {
        Some(scenario) => (scenario.run)(arguments),
        None => ReportCommand::from_arg_matches(matches)?.run(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        command().debug_assert();
    }

    #[test]
    fn exactly_one_kind_of_trust_is_required() {
        let parse = |args: &str| {
            let line = format!("towpath-loadtest storm --connect 127.0.0.1:1 {args}");
            command().try_get_matches_from(line.split_whitespace()).is_ok()
        };
        assert!(parse("--plain") && parse("--trust-anyone --tls12"));
        assert!(!parse("") && !parse("--plain --trust-anyone") && !parse("--plain --tls12"));
    }
}
