//! The worker processes of a run, as their parent sees them: started, told to proceed, and waited for.

use std::io::{BufRead, BufReader, Write};
use std::ops::Range;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use serde::de::DeserializeOwned;

use crate::clock::{self, SECOND};
use crate::flow::schedule::Timeline;
use crate::host::affinity;
use crate::host::server::{ServerProcess, ServerUsage};
use crate::process::{self, Assignment, WorkerCommand, WorkerMessage, WorkerProgress};
use crate::scenario::config::RunConfig;
use crate::scenario::interface::Scenario;

/// The time from the command to proceed until the first packet is due: all workers must have read it by then.
const LEAD_TIME: u64 = SECOND / 4;

/// The worker processes of a run of the scenario `S`. They are killed when this value is dropped.
pub(crate) struct WorkerGroup<'a, S: Scenario> {
    config: &'a RunConfig,
    server: Option<ServerProcess>,
    workers: Vec<RunningWorker<S::Outcome>>,
    sender: Sender<(usize, WorkerMessage<S::Outcome>)>,
    messages: Receiver<(usize, WorkerMessage<S::Outcome>)>,
    started_at: u64,
    /// When the last progress line was written.
    reported_at: u64,
}

struct RunningWorker<O> {
    process: Child,
    commands: ChildStdin,
    is_ready: bool,
    /// The last step that the worker has done.
    step: u32,
    progress: WorkerProgress,
    outcome: Option<O>,
}

impl<'a, S: Scenario> WorkerGroup<'a, S> {
    /// Starts a process for each job.
    pub(crate) fn start(config: &'a RunConfig, jobs: Vec<S::Job>) -> Result<Self> {
        let server = config.server()?;
        affinity::pin(&config.cpus)?;
        let (sender, messages) = mpsc::channel();
        let now = clock::now();
        let workers = Vec::new();
        let mut group = Self { config, server, workers, sender, messages, started_at: now, reported_at: now };
        group.spawn(jobs)?;
        Ok(group)
    }

    /// Starts a process for each of further jobs.
    pub(crate) fn spawn(&mut self, jobs: Vec<S::Job>) -> Result<()> {
        for job in jobs {
            let index = self.workers.len();
            let cpu = self.config.cpu_of(index);
            let assignment = Assignment { target: self.config.target.clone(), cpu, job };
            let line = process::to_line(&assignment)?;
            self.workers.push(spawn_worker(self.config, S::NAME, index, &line, self.sender.clone())?);
        }
        Ok(())
    }

    /// Waits until every worker has its connections.
    pub(crate) fn wait_ready(&mut self) -> Result<()> {
        self.wait_for(|worker| worker.is_ready)
    }

    /// Waits until every worker has done the step with this number, counted from 1.
    pub(crate) fn wait_reached(&mut self, step: u32) -> Result<()> {
        self.wait_for(|worker| worker.step >= step)
    }

    /// Tells every worker to proceed, at the time `at` if its next step begins at a time.
    pub(crate) fn proceed(&mut self, at: u64) -> Result<()> {
        let line = process::to_line(&WorkerCommand::Proceed(at))?;
        for worker in &mut self.workers {
            worker.commands.write_all(&line).context("telling a load process to proceed")?;
        }
        Ok(())
    }

    /// Runs the load when every worker is ready, and returns what the server used in the measured time.
    pub(crate) fn measure(&mut self, warm_up: Duration, duration: Duration) -> Result<Option<ServerUsage>> {
        self.wait_ready()?;
        let timeline = Timeline::new(clock::now() + LEAD_TIME, warm_up, duration);
        self.proceed(timeline.begin)?;
        self.wait_until(timeline.measure)?;
        let before = self.server.map(|server| server.sample()).transpose()?;
        self.wait_until(timeline.end)?;
        self.server.zip(before.as_ref()).map(|(server, before)| server.usage_since(before)).transpose()
    }

    /// Waits for the outcome of every worker; returns them in the order of the jobs.
    pub(crate) fn outcomes(mut self) -> Result<Vec<S::Outcome>> {
        self.wait_for(|worker| worker.outcome.is_some())?;
        self.proceed(0)?;
        Ok(self.workers.iter_mut().filter_map(|worker| worker.outcome.take()).collect())
    }

    fn wait_for(&mut self, is_so: impl Fn(&RunningWorker<S::Outcome>) -> bool) -> Result<()> {
        while !self.workers.iter().all(&is_so) {
            self.receive(u64::MAX)?;
        }
        Ok(())
    }

    fn wait_until(&mut self, at: u64) -> Result<()> {
        while clock::now() < at {
            self.receive(at)?;
        }
        Ok(())
    }

    /// Receives a message, or none until `until`, and writes the progress line once a second.
    fn receive(&mut self, until: u64) -> Result<()> {
        let wake = until.min(self.reported_at + SECOND);
        match self.messages.recv_timeout(clock::until(wake)) {
            Ok((index, message)) => {
                let worker = &mut self.workers[index];
                match message {
                    WorkerMessage::Ready => worker.is_ready = true,
                    WorkerMessage::Progress(progress) => worker.progress = progress,
                    WorkerMessage::Reached(step) => worker.step = step,
                    WorkerMessage::Done(outcome) => worker.outcome = Some(*outcome),
                    WorkerMessage::Failed(reason) => bail!("{reason}"),
                }
            }
            // The thread that reads a worker's output sends a message when the worker ends.
            Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {}
        }
        if clock::now() >= self.reported_at + SECOND {
            self.reported_at += SECOND;
            self.write_progress();
        }
        Ok(())
    }

    fn write_progress(&self) {
        let sum = |field: fn(&WorkerProgress) -> u64| {
            self.workers.iter().map(|worker| field(&worker.progress)).sum::<u64>()
        };
        let seconds = (self.reported_at - self.started_at) / SECOND;
        // A closed standard error is no reason to stop the run.
        let _ = writeln!(
            std::io::stderr(),
            "{seconds:>4} s: {} connections, {} packets sent, {} received, {} damaged",
            sum(|progress| progress.connections),
            sum(|progress| progress.sent),
            sum(|progress| progress.received),
            sum(|progress| progress.damaged),
        );
    }
}

impl<S: Scenario> Drop for WorkerGroup<'_, S> {
    fn drop(&mut self) {
        for worker in &mut self.workers {
            // Both fail for a worker that has ended by itself.
            let _ = worker.process.kill();
            let _ = worker.process.wait();
        }
    }
}

/// Starts `worker SCENARIO` and gives it its assignment.
fn spawn_worker<O: DeserializeOwned + Send + 'static>(
    config: &RunConfig,
    scenario: &str,
    index: usize,
    assignment: &[u8],
    messages: Sender<(usize, WorkerMessage<O>)>,
) -> Result<RunningWorker<O>> {
    let mut process = Command::new(&config.program)
        .args(["worker", scenario])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .with_context(|| format!("starting {}", config.program.display()))?;
    let mut commands = process.stdin.take().ok_or_else(|| anyhow!("no standard input"))?;
    let output = process.stdout.take().ok_or_else(|| anyhow!("no standard output"))?;
    commands.write_all(assignment).context("giving a load process its assignment")?;
    thread::spawn(move || forward_messages(output, index, &messages));
    let progress = WorkerProgress::default();
    Ok(RunningWorker { process, commands, is_ready: false, step: 0, progress, outcome: None })
}

/// Passes on the messages of the worker `index`, and a failure if it ends without an outcome.
fn forward_messages<O: DeserializeOwned>(
    output: ChildStdout,
    index: usize,
    messages: &Sender<(usize, WorkerMessage<O>)>,
) {
    let mut ended = false;
    for line in BufReader::new(output).lines() {
        let message = line
            .map_err(anyhow::Error::from)
            .and_then(|line| Ok(serde_json::from_str(&line)?))
            .unwrap_or_else(|error| {
                WorkerMessage::Failed(format!("malformed message from a load process: {error}"))
            });
        ended |= matches!(message, WorkerMessage::Done(_) | WorkerMessage::Failed(_));
        if messages.send((index, message)).is_err() {
            return;
        }
    }
    if !ended {
        let reason = "a load process ended without an outcome; its standard error may say why";
        let _ = messages.send((index, WorkerMessage::Failed(reason.to_owned())));
    }
}

/// Divides the numbers below `total` into as many ranges as there are processes, which differ by 1 in length at most.
pub(crate) fn divide(total: u32, processes: u32) -> impl Iterator<Item = Range<u32>> {
    let at = move |process: u32| (u64::from(total) * u64::from(process) / u64::from(processes)) as u32;
    (0..processes).map(move |process| at(process)..at(process + 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn divided_ranges_cover_all_numbers_once() {
        for (total, processes) in [(1000, 3), (7, 7), (2, 5), (u32::MAX, 2)] {
            let parts: Vec<_> = divide(total, processes).collect();
            assert_eq!(parts.len(), processes as usize);
            assert_eq!((parts[0].start, parts[parts.len() - 1].end), (0, total));
            assert!(parts.windows(2).all(|pair| pair[0].end == pair[1].start), "{parts:?}");
            let sizes = parts.iter().map(ExactSizeIterator::len);
            assert!(sizes.clone().max() <= sizes.min().map(|least| least + 1), "{parts:?}");
        }
    }
}
