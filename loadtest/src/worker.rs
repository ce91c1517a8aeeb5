//! A process of the load: takes an assignment from its standard input, does it, and says what came of it.

use std::io::{self, BufRead, StdinLock, Write};
use std::process::ExitCode;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use crate::clock::{self, SECOND};
use crate::flow::receiver::{self, Receipts, ReceiveJob};
use crate::flow::sender::{self, SendJob, Sendings};
use crate::host::affinity;
use crate::scenario::{fan_in, idle, latency, own_flood, storm, stun};
use crate::workers::{Assignment, Message, Order, Progress};

/// What a process shall do.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum Job {
    Send(SendJob),
    Receive(ReceiveJob),
    Idle(idle::Job),
    Storm(storm::Job),
    Probe(latency::Job),
    Flood(own_flood::Job),
    Sink(own_flood::Job),
    Deaf(fan_in::Job),
    Stun(stun::Job),
}

/// What came of it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum Outcome {
    Sent(Sendings),
    Received(Receipts),
    Idled(idle::Idled),
    Stormed(storm::Stormed),
    Probed(latency::Probed),
    Deaf(bool),
    Asked(stun::Asked),
}

/// The line to the process that started this one.
#[derive(Debug)]
pub(crate) struct Desk {
    orders: StdinLock<'static>,
    reported: u64,
}

impl Desk {
    pub(crate) fn say(&self, message: &Message) -> Result<()> {
        let mut line = serde_json::to_vec(message)?;
        line.push(b'\n');
        Ok(io::stdout().write_all(&line)?)
    }

    /// Waits for an order; where that has a meaning, it comes with a time.
    pub(crate) fn wait_for_go(&mut self) -> Result<u64> {
        let mut line = String::new();
        self.orders.read_line(&mut line)?;
        let Order::Go(at) = serde_json::from_str(&line).context("an order")?;
        Ok(at)
    }

    /// Says how far things are, once a second.
    pub(crate) fn report(&mut self, now: u64, progress: impl FnOnce() -> Progress) -> Result<()> {
        if now < self.reported + SECOND {
            return Ok(());
        }
        self.reported = now;
        self.say(&Message::Progress(progress()))
    }
}

/// The main function of such a process.
pub(crate) fn main() -> ExitCode {
    let mut desk = Desk { orders: io::stdin().lock(), reported: clock::now() };
    let said = match work(&mut desk) {
        Ok(outcome) => desk.say(&Message::Done(Box::new(outcome))),
        Err(error) => desk.say(&Message::Failed(format!("{error:#}"))),
    };
    // Connections stay open until all processes are done; whether told to go or left alone, this is the end.
    let _ = desk.wait_for_go();
    if said.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn work(desk: &mut Desk) -> Result<Outcome> {
    affinity::become_worker()?;
    let mut line = String::new();
    desk.orders.read_line(&mut line)?;
    let Assignment { target, cpu, job } = serde_json::from_str(&line).context("an assignment")?;
    affinity::pin(cpu.as_slice())?;
    if matches!(job, Job::Flood(_) | Job::Sink(_)) {
        // What a flood leaves of the CPU must not decide when the others send and receive.
        affinity::step_back()?;
    }
    Ok(match job {
        Job::Send(job) => Outcome::Sent(sender::run(&target, job, desk)?),
        Job::Receive(job) => Outcome::Received(receiver::run(&target, job, desk)?),
        Job::Idle(job) => Outcome::Idled(idle::work(&target, &job, desk)?),
        Job::Storm(job) => Outcome::Stormed(storm::work(&target, &job, desk)?),
        Job::Probe(job) => Outcome::Probed(latency::work(&target, &job, desk)?),
        Job::Flood(job) => Outcome::Received(own_flood::flood(&target, &job, desk)?),
        Job::Sink(job) => Outcome::Received(own_flood::sink(&target, &job, desk)?),
        Job::Deaf(job) => Outcome::Deaf(fan_in::be_deaf(&target, &job, desk)?),
        Job::Stun(job) => Outcome::Asked(stun::work(&target, &job, desk)?),
    })
}
