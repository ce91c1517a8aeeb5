//! The messages between a worker process and its parent.
//!
//! The program starts itself again for every process of a load. Each message is a line of JSON: the parent writes an
//! [`Assignment`] and then [`WorkerCommand`]s to the worker's standard input, the worker writes [`WorkerMessage`]s to
//! its standard output.

use std::io::{self, BufRead, StdinLock, Write};
use std::process::ExitCode;

use anyhow::{Context, Result};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::clock::{self, SECOND};
use crate::host::affinity;
use crate::target::LoadTarget;

/// The first line to a worker process: the job, and where to do it.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Assignment<J> {
    pub(crate) target: LoadTarget,
    /// The CPU to run on; `None` leaves the choice to the kernel.
    pub(crate) cpu: Option<usize>,
    pub(crate) job: J,
}

/// A line to a worker process after its assignment.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) enum WorkerCommand {
    /// Begin the next step of the job, at this time of `CLOCK_MONOTONIC` if the step begins at a time.
    Proceed(u64),
}

/// A line from a worker process whose job has an outcome of the type `O`.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum WorkerMessage<O> {
    /// The worker has all its connections and waits for [`WorkerCommand::Proceed`].
    Ready,
    /// The worker's counts so far, about once a second.
    Progress(WorkerProgress),
    /// The worker has done the step with this number, counted from 1, and waits for [`WorkerCommand::Proceed`].
    Reached(u32),
    /// The job is done.
    Done(Box<O>),
    /// The job failed, for this reason.
    Failed(String),
}

/// The counts that the progress line on the terminal shows.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub(crate) struct WorkerProgress {
    pub(crate) connections: u64,
    pub(crate) sent: u64,
    pub(crate) received: u64,
    pub(crate) damaged: u64,
}

/// The pipes from a worker process to its parent.
#[derive(Debug)]
pub(crate) struct Parent {
    commands: StdinLock<'static>,
    /// When the last progress was sent.
    progress_at: u64,
}

impl Parent {
    /// Tells the parent that all connections of this worker are logged in.
    pub(crate) fn ready(&self) -> Result<()> {
        self.send(&WorkerMessage::<()>::Ready)
    }

    /// Tells the parent that the step with this number is done.
    pub(crate) fn reached(&self, step: u32) -> Result<()> {
        self.send(&WorkerMessage::<()>::Reached(step))
    }

    /// Blocks until the parent sends [`WorkerCommand::Proceed`], and returns the time in it.
    pub(crate) fn wait_to_proceed(&mut self) -> Result<u64> {
        let WorkerCommand::Proceed(at) = self.read().context("reading a command of the parent process")?;
        Ok(at)
    }

    /// Sends the progress, unless it was sent less than a second before `now`.
    pub(crate) fn report(&mut self, now: u64, progress: impl FnOnce() -> WorkerProgress) -> Result<()> {
        if now < self.progress_at + SECOND {
            return Ok(());
        }
        self.progress_at = now;
        self.send(&WorkerMessage::<()>::Progress(progress()))
    }

    fn send<O: Serialize>(&self, message: &WorkerMessage<O>) -> Result<()> {
        Ok(io::stdout().write_all(&to_line(message)?)?)
    }

    fn read<T: DeserializeOwned>(&mut self) -> Result<T> {
        let mut line = String::new();
        self.commands.read_line(&mut line)?;
        Ok(serde_json::from_str(&line)?)
    }
}

/// A message as a line of JSON.
pub(crate) fn to_line(message: &impl Serialize) -> Result<Vec<u8>> {
    let mut line = serde_json::to_vec(message)?;
    line.push(b'\n');
    Ok(line)
}

/// The main function of a worker process, which does its job with `work`.
pub(crate) fn serve<J, O>(work: fn(&LoadTarget, J, &mut Parent) -> Result<O>) -> ExitCode
where
    J: DeserializeOwned,
    O: Serialize,
{
    let mut parent = Parent { commands: io::stdin().lock(), progress_at: clock::now() };
    let sent = match do_assignment(work, &mut parent) {
        Ok(outcome) => parent.send(&WorkerMessage::Done(Box::new(outcome))),
        Err(error) => parent.send(&WorkerMessage::<()>::Failed(format!("{error:#}"))),
    };
    // The process ends when all workers are done, so that its end takes no CPU time from the others, or when the parent
    // is gone.
    let _ = parent.wait_to_proceed();
    if sent.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn do_assignment<J, O>(work: fn(&LoadTarget, J, &mut Parent) -> Result<O>, parent: &mut Parent) -> Result<O>
where
    J: DeserializeOwned,
{
    affinity::become_worker()?;
    let assignment = parent.read().context("reading the assignment of a worker process")?;
    let Assignment { target, cpu, job } = assignment;
    affinity::pin(cpu.as_slice())?;
    work(&target, job, parent)
}
