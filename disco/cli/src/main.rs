//! `towpath`: the command line of a peer. The library `towpath` does the work.
//!
//! Exit codes: 0 for success, 1 for a failure while running, 2 for a wrong configuration or command line, as clap has it.

mod demo;

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use towpath_service::command::Failure;
use towpath_service::logs;
use towpath_service::logs::say;

use self::demo::Demo;

/// A peer that is reached by its WireGuard key, directly or over relays.
#[derive(Debug, Parser)]
#[command(name = "towpath", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Shows what a peer does: two peers behind simulated NATs become direct, all in this process
    Demo(Demo),
}

fn main() -> ExitCode {
    let Cli { command } = Cli::parse();
    let done = match command {
        Command::Demo(demo) => demo.run(),
    };
    let code = match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            if !matches!(failure, Failure::Wrong) {
                say(&format!("towpath: {failure}"));
            }
            failure.into()
        }
    };
    logs::flush();
    code
}
