//! The processes of a scenario: started, told and listened to over their standard streams, a line of JSON at a time.

use std::io::{BufRead, BufReader, Write};
use std::ops::Range;
use std::path::PathBuf;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use serde::{Deserialize, Serialize};

use crate::clock::{self, SECOND};
use crate::flow::schedule::Timeline;
use crate::host::affinity;
use crate::host::server::{ServerProcess, ServerUsage};
use crate::target::LoadTarget;
use crate::worker::{WorkerJob, WorkerOutcome};

/// From the word to go until the first packet is due: all processes must have heard it.
const RUN_UP: u64 = SECOND / 4;

/// What all scenarios need to know.
#[derive(Clone, Debug)]
pub struct RunConfig {
    /// The relay.
    pub target: LoadTarget,
    /// The relay's process, where its CPU time and memory shall be reported.
    pub server_pid: Option<u32>,
    /// CPUs for the processes of the load, one each in turn; none leaves the choice to the kernel.
    pub cpus: Vec<usize>,
    /// The `towpath-loadtest` program.
    pub program: PathBuf,
}

impl RunConfig {
    pub(crate) fn server(&self) -> Result<Option<ServerProcess>> {
        self.server_pid.map(ServerProcess::new).transpose()
    }
}

/// What a process says.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum WorkerMessage {
    /// All connections are there.
    Ready,
    /// How far it is; about once a second.
    Progress(WorkerProgress),
    /// It has done the step with this number, the first of which is 1, and waits for [`WorkerCommand::Proceed`].
    Reached(u32),
    /// The end, and what came of it.
    Done(Box<WorkerOutcome>),
    /// The end, and why.
    Failed(String),
}

/// How far a process is: for people to watch.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub(crate) struct WorkerProgress {
    pub(crate) connections: u64,
    pub(crate) sent: u64,
    pub(crate) received: u64,
    pub(crate) damaged: u64,
}

/// What a process is told.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) enum WorkerCommand {
    /// Go on; where that has a meaning, at this time of `CLOCK_MONOTONIC`.
    Proceed(u64),
}

/// What a process is started with.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Assignment {
    pub(crate) target: LoadTarget,
    pub(crate) cpu: Option<usize>,
    pub(crate) job: WorkerJob,
}

struct RunningWorker {
    process: Child,
    orders: ChildStdin,
    ready: bool,
    reached: u32,
    progress: WorkerProgress,
    outcome: Option<WorkerOutcome>,
}

/// `total` things, divided among so many processes.
pub(crate) fn divide(total: u32, processes: u32) -> impl Iterator<Item = Range<u32>> {
    let at = move |process: u32| (u64::from(total) * u64::from(process) / u64::from(processes)) as u32;
    (0..processes).map(move |process| at(process)..at(process + 1))
}

/// The processes of a scenario. They end with this value.
pub(crate) struct WorkerGroup {
    config: RunConfig,
    workers: Vec<RunningWorker>,
    line: Sender<(usize, WorkerMessage)>,
    messages: Receiver<(usize, WorkerMessage)>,
    started: u64,
    reported: u64,
}

impl WorkerGroup {
    /// Starts a process for each job.
    pub(crate) fn start(config: &RunConfig, jobs: Vec<WorkerJob>) -> Result<Self> {
        affinity::pin(&config.cpus)?;
        let (line, messages) = mpsc::channel();
        let started = clock::now();
        let mut workers =
            Self { config: config.clone(), workers: Vec::new(), line, messages, started, reported: started };
        workers.spawn(jobs)?;
        Ok(workers)
    }

    /// Starts a process for each of some more jobs.
    pub(crate) fn spawn(&mut self, jobs: Vec<WorkerJob>) -> Result<()> {
        let config = &self.config;
        for job in jobs {
            let index = self.workers.len();
            let cpu = (!config.cpus.is_empty()).then(|| config.cpus[index % config.cpus.len()]);
            let assignment = Assignment { target: config.target.clone(), cpu, job };
            self.workers.push(start_worker(config, index, &assignment, self.line.clone())?);
        }
        Ok(())
    }

    /// Waits until every process has its connections.
    pub(crate) fn wait_ready(&mut self) -> Result<()> {
        while !self.workers.iter().all(|worker| worker.ready) {
            self.listen(u64::MAX)?;
        }
        Ok(())
    }

    /// Waits until every process has done the step `step`, of which the first is 1.
    pub(crate) fn wait_reached(&mut self, step: u32) -> Result<()> {
        while !self.workers.iter().all(|worker| worker.reached >= step) {
            self.listen(u64::MAX)?;
        }
        Ok(())
    }

    /// Waits until `at`.
    pub(crate) fn wait_until(&mut self, at: u64) -> Result<()> {
        while clock::now() < at {
            self.listen(at)?;
        }
        Ok(())
    }

    /// Has every process begin when it is ready, and waits until the measured time is over: what the relay used in it.
    pub(crate) fn measure(
        &mut self,
        server: Option<ServerProcess>,
        warm_up: Duration,
        duration: Duration,
    ) -> Result<Option<ServerUsage>> {
        self.wait_ready()?;
        let timeline = Timeline::new(clock::now() + RUN_UP, warm_up, duration);
        self.tell(WorkerCommand::Proceed(timeline.begin))?;
        self.wait_until(timeline.measure)?;
        let before = server.map(|server| server.sample()).transpose()?;
        self.wait_until(timeline.end)?;
        server.zip(before.as_ref()).map(|(server, before)| server.usage_since(before)).transpose()
    }

    /// Waits for the outcome of every process, in the order of the jobs.
    pub(crate) fn outcomes(mut self) -> Result<Vec<WorkerOutcome>> {
        while !self.workers.iter().all(|worker| worker.outcome.is_some()) {
            self.listen(u64::MAX)?;
        }
        self.tell(WorkerCommand::Proceed(0))?;
        Ok(self.workers.iter_mut().filter_map(|worker| worker.outcome.take()).collect())
    }

    /// Tells every process.
    pub(crate) fn tell(&mut self, order: WorkerCommand) -> Result<()> {
        for worker in &mut self.workers {
            let mut line = serde_json::to_vec(&order)?;
            line.push(b'\n');
            worker.orders.write_all(&line).context("telling a process of the load")?;
        }
        Ok(())
    }

    /// Takes one message, or none until `until`, and says how things stand once a second.
    fn listen(&mut self, until: u64) -> Result<()> {
        let wake = until.min(self.reported + SECOND);
        match self.messages.recv_timeout(clock::until(wake)) {
            Ok((index, message)) => {
                let worker = &mut self.workers[index];
                match message {
                    WorkerMessage::Ready => worker.ready = true,
                    WorkerMessage::Progress(progress) => worker.progress = progress,
                    WorkerMessage::Reached(step) => worker.reached = step,
                    WorkerMessage::Done(outcome) => worker.outcome = Some(*outcome),
                    WorkerMessage::Failed(reason) => bail!("{reason}"),
                }
            }
            // A process that ends without a word has its end reported by whoever reads its output.
            Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {}
        }
        if clock::now() >= self.reported + SECOND {
            self.reported += SECOND;
            self.report_progress();
        }
        Ok(())
    }

    fn report_progress(&self) {
        let sum = |field: fn(&WorkerProgress) -> u64| {
            self.workers.iter().map(|worker| field(&worker.progress)).sum::<u64>()
        };
        let seconds = (self.reported - self.started) / SECOND;
        // Whoever has closed the stream does not want to know.
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

impl Drop for WorkerGroup {
    fn drop(&mut self) {
        for worker in &mut self.workers {
            // Where it has ended by itself there is nothing to kill.
            let _ = worker.process.kill();
            let _ = worker.process.wait();
        }
    }
}

fn start_worker(
    config: &RunConfig,
    index: usize,
    assignment: &Assignment,
    messages: Sender<(usize, WorkerMessage)>,
) -> Result<RunningWorker> {
    let mut process = Command::new(&config.program)
        .arg("worker")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .with_context(|| format!("starting {}", config.program.display()))?;
    let mut orders = process.stdin.take().ok_or_else(|| anyhow!("no standard input"))?;
    let output = process.stdout.take().ok_or_else(|| anyhow!("no standard output"))?;
    let mut line = serde_json::to_vec(assignment)?;
    line.push(b'\n');
    orders.write_all(&line).context("telling a process of the load its job")?;
    thread::spawn(move || {
        let mut ended = false;
        for line in BufReader::new(output).lines() {
            let message = line
                .map_err(anyhow::Error::from)
                .and_then(|line| Ok(serde_json::from_str(&line)?))
                .unwrap_or_else(|error| {
                    WorkerMessage::Failed(format!("a process of the load says nonsense: {error}"))
                });
            ended |= matches!(message, WorkerMessage::Done(_) | WorkerMessage::Failed(_));
            if messages.send((index, message)).is_err() {
                return;
            }
        }
        if !ended {
            let _ =
                messages.send((index, WorkerMessage::Failed("a process of the load has died".to_owned())));
        }
    });
    Ok(RunningWorker {
        process,
        orders,
        ready: false,
        reached: 0,
        progress: WorkerProgress::default(),
        outcome: None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_is_divided_and_nothing_twice() {
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
