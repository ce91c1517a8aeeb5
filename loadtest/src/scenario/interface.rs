//! The trait that every scenario implements, and the entry by which the command line and worker processes reach it.

use std::process::ExitCode;

use anyhow::Result;
use clap::{ArgMatches, Args, FromArgMatches};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::process::{self, Parent};
use crate::report::ScenarioReport;
use crate::scenario::args::{RunArgs, TargetArgs};
use crate::scenario::config::RunConfig;
use crate::target::LoadTarget;

/// A kind of load.
///
/// [`run`](Self::run) is called in the process that the user starts. It divides the load into jobs, starts a worker
/// process for each, and makes a report of their outcomes. [`work`](Self::work) is called in each worker process.
pub(crate) trait Scenario: Sized + 'static {
    /// The name on the command line and in reports.
    const NAME: &'static str;
    /// The description on the command line.
    const ABOUT: &'static str;
    /// The options that choose the server.
    type Target: TargetArgs;
    /// The options that describe the load.
    type Args: Args;
    /// The part of the load that one worker process makes.
    type Job: Serialize + DeserializeOwned;
    /// The counts and measurements of one worker process.
    type Outcome: Serialize + DeserializeOwned + Send + 'static;
    type Report: ScenarioReport + Serialize;

    /// Runs the load and reports the result.
    fn run(args: &Self::Args, config: &RunConfig) -> Result<Self::Report>;

    /// Does one job.
    fn work(target: &LoadTarget, job: Self::Job, parent: &mut Parent) -> Result<Self::Outcome>;
}

/// A scenario in the list of all, without its types.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RegisteredScenario {
    /// The name on the command line and in reports.
    pub(crate) name: &'static str,
    about: &'static str,
    add_args: fn(clap::Command) -> clap::Command,
    /// Runs the load that the command line describes, and prints the report.
    ///
    /// The exit code is 3 if the server duplicated, reordered, changed or misrouted packets.
    pub(crate) run: fn(&ArgMatches) -> Result<ExitCode>,
    /// The main function of a worker process.
    pub(crate) work: fn() -> ExitCode,
}

/// The options of a scenario's subcommand.
#[derive(Args)]
struct ScenarioArgs<S: Scenario> {
    #[command(flatten)]
    target: S::Target,
    #[command(flatten)]
    run: RunArgs,
    #[command(flatten)]
    load: S::Args,
}

impl RegisteredScenario {
    /// The entry of the scenario `S`.
    pub(crate) const fn new<S: Scenario>() -> Self {
        Self {
            name: S::NAME,
            about: S::ABOUT,
            add_args: ScenarioArgs::<S>::augment_args,
            run: run::<S>,
            work: || process::serve(S::work),
        }
    }

    /// The subcommand that runs the scenario.
    pub(crate) fn command(&self) -> clap::Command {
        (self.add_args)(clap::Command::new(self.name)).about(self.about)
    }
}

fn run<S: Scenario>(matches: &ArgMatches) -> Result<ExitCode> {
    let ScenarioArgs::<S> { target, run, load } =
        ScenarioArgs::from_arg_matches(matches).unwrap_or_else(|error| error.exit());
    let report = S::run(&load, &run.config(target.target()?)?)?;
    run.publish(&report.into_file(S::NAME))
}
