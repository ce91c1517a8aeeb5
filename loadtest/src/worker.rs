//! A process of the load: takes an assignment from its standard input, does it, and says what came of it.

use std::io::{self, BufRead, StdinLock, Write};
use std::process::ExitCode;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use crate::clock::{self, SECOND};
use crate::flow::receiver::{self, ReceiveJob, ReceiveOutcome};
use crate::flow::sender::{self, SendJob, SendOutcome};
use crate::host::affinity;
use crate::scenario::{fan_in, idle, latency, own_flood, storm, stun};
use crate::workers::{Assignment, WorkerCommand, WorkerMessage, WorkerProgress};

/// What a process shall do.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum WorkerJob {
    Send(SendJob),
    Receive(ReceiveJob),
    Idle(idle::IdleJob),
    Storm(storm::StormJob),
    Probe(latency::ProbeJob),
    Flood(own_flood::FloodJob),
    Sink(own_flood::FloodJob),
    Deaf(fan_in::UnreadJob),
    Stun(stun::StunJob),
}

/// What came of it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum WorkerOutcome {
    Sent(SendOutcome),
    Received(ReceiveOutcome),
    Idled(idle::IdleOutcome),
    Stormed(storm::StormOutcome),
    Probed(latency::ProbeOutcome),
    Deaf(bool),
    Asked(stun::StunOutcome),
}

/// The line to the process that started this one.
#[derive(Debug)]
pub(crate) struct Parent {
    orders: StdinLock<'static>,
    reported: u64,
}

impl Parent {
    pub(crate) fn send(&self, message: &WorkerMessage) -> Result<()> {
        let mut line = serde_json::to_vec(message)?;
        line.push(b'\n');
        Ok(io::stdout().write_all(&line)?)
    }

    /// Waits for an order; where that has a meaning, it comes with a time.
    pub(crate) fn wait_to_proceed(&mut self) -> Result<u64> {
        let mut line = String::new();
        self.orders.read_line(&mut line)?;
        let WorkerCommand::Proceed(at) = serde_json::from_str(&line).context("an order")?;
        Ok(at)
    }

    /// Says how far things are, once a second.
    pub(crate) fn report(&mut self, now: u64, progress: impl FnOnce() -> WorkerProgress) -> Result<()> {
        if now < self.reported + SECOND {
            return Ok(());
        }
        self.reported = now;
        self.send(&WorkerMessage::Progress(progress()))
    }
}

/// The main function of such a process.
pub(crate) fn main() -> ExitCode {
    let mut parent = Parent { orders: io::stdin().lock(), reported: clock::now() };
    let said = match work(&mut parent) {
        Ok(outcome) => parent.send(&WorkerMessage::Done(Box::new(outcome))),
        Err(error) => parent.send(&WorkerMessage::Failed(format!("{error:#}"))),
    };
    // Connections stay open until all processes are done; whether told to go or left alone, this is the end.
    let _ = parent.wait_to_proceed();
    if said.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn work(parent: &mut Parent) -> Result<WorkerOutcome> {
    affinity::become_worker()?;
    let mut line = String::new();
    parent.orders.read_line(&mut line)?;
    let Assignment { target, cpu, job } = serde_json::from_str(&line).context("an assignment")?;
    affinity::pin(cpu.as_slice())?;
    if matches!(job, WorkerJob::Flood(_) | WorkerJob::Sink(_)) {
        // What a flood leaves of the CPU must not decide when the others send and receive.
        affinity::step_back()?;
    }
    Ok(match job {
        WorkerJob::Send(job) => WorkerOutcome::Sent(sender::run(&target, job, parent)?),
        WorkerJob::Receive(job) => WorkerOutcome::Received(receiver::run(&target, job, parent)?),
        WorkerJob::Idle(job) => WorkerOutcome::Idled(idle::work(&target, &job, parent)?),
        WorkerJob::Storm(job) => WorkerOutcome::Stormed(storm::work(&target, &job, parent)?),
        WorkerJob::Probe(job) => WorkerOutcome::Probed(latency::work(&target, &job, parent)?),
        WorkerJob::Flood(job) => WorkerOutcome::Received(own_flood::flood(&target, &job, parent)?),
        WorkerJob::Sink(job) => WorkerOutcome::Received(own_flood::sink(&target, &job, parent)?),
        WorkerJob::Deaf(job) => WorkerOutcome::Deaf(fan_in::be_deaf(&target, &job, parent)?),
        WorkerJob::Stun(job) => WorkerOutcome::Asked(stun::work(&target, &job, parent)?),
    })
}
