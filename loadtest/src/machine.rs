//! What a process of the load asks of the machine it runs on.

use std::fs;
use std::num::NonZeroU64;

use anyhow::{Context, Result, bail};
use rustix::process::{Resource, Signal, getrlimit, nice, set_parent_process_death_signal, setrlimit};
use rustix::thread::{CpuSet, sched_setaffinity, set_current_timer_slack};
use serde::{Deserialize, Serialize};

use crate::clock;

/// Descriptors that a process needs besides its connections.
const SPARE_FILES: u64 = 64;

/// Raises the limit on open files to what the machine allows, and makes sure that `connections` fit.
pub(crate) fn allow_connections(connections: u64) -> Result<()> {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    setrlimit(Resource::Nofile, limit).context("raising the limit on open files")?;
    let needed = connections + SPARE_FILES;
    match limit.maximum {
        Some(allowed) if allowed < needed => bail!(
            "{connections} connections in one process need {needed} open files; the hard limit is {allowed} \
             (raise it with `ulimit -Hn {needed}` as root)"
        ),
        _ => Ok(()),
    }
}

/// Runs the calling process on these CPUs only; on any where none is given.
pub(crate) fn pin(cpus: &[usize]) -> Result<()> {
    if cpus.is_empty() {
        return Ok(());
    }
    let mut set = CpuSet::new();
    for &cpu in cpus {
        if cpu >= CpuSet::MAX_CPU {
            bail!("there is no CPU {cpu}");
        }
        set.set(cpu);
    }
    sched_setaffinity(None, &set).with_context(|| format!("running on CPU {cpus:?}"))
}

/// Ends with the process that started this one, and wakes from sleeps when they are over.
pub(crate) fn become_worker() -> Result<()> {
    set_parent_process_death_signal(Some(Signal::KILL))?;
    // The default is 50 µs, in which a relay forwards a dozen packets.
    set_current_timer_slack(NonZeroU64::new(1))?;
    Ok(())
}

/// Leaves the CPU to the other processes of the load whenever they want it.
pub(crate) fn step_back() -> Result<()> {
    nice(10).context("lowering the priority")?;
    Ok(())
}

/// What the calling thread used of a CPU in a span of time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Usage {
    /// Nanoseconds on a CPU.
    pub cpu: u64,
    /// Nanoseconds ready to run while others ran.
    pub wait: u64,
    /// Nanoseconds of time.
    pub wall: u64,
}

impl Usage {
    /// The share of the time in which the thread did not sleep, 0 to 1. Near 1 it has no reserve left.
    #[must_use]
    pub fn occupancy(&self) -> f64 {
        (self.cpu + self.wait) as f64 / self.wall.max(1) as f64
    }

    /// What the calling thread used since `self`, which is its own total of earlier.
    pub(crate) fn until_now(&self) -> Result<Self> {
        let now = Self::of_thread()?;
        Ok(Self { cpu: now.cpu - self.cpu, wait: now.wait - self.wait, wall: now.wall - self.wall })
    }

    /// The totals of the calling thread.
    pub(crate) fn of_thread() -> Result<Self> {
        let text = fs::read_to_string("/proc/thread-self/schedstat")?;
        let mut numbers = text.split_whitespace().map(str::parse);
        let (Some(Ok(cpu)), Some(Ok(wait))) = (numbers.next(), numbers.next()) else {
            bail!("unexpected text in /proc/thread-self/schedstat: {text:?}");
        };
        Ok(Self { cpu, wait, wall: clock::now() })
    }
}

/// Takes the [`Usage`] of the calling thread over a span of time that it is told of in passing.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Stopwatch {
    from: u64,
    to: u64,
    begun: Option<Usage>,
    used: Option<Usage>,
}

impl Stopwatch {
    pub(crate) const fn new(from: u64, to: u64) -> Self {
        Self { from, to, begun: None, used: None }
    }

    /// To be called often.
    pub(crate) fn pass(&mut self, now: u64) -> Result<()> {
        if now >= self.from && self.begun.is_none() {
            self.begun = Some(Usage::of_thread()?);
        }
        if let Some(begun) = &self.begun
            && now >= self.to
            && self.used.is_none()
        {
            self.used = Some(begun.until_now()?);
        }
        Ok(())
    }

    /// What was used; nothing when the span is not over.
    pub(crate) fn usage(&self) -> Usage {
        self.used.unwrap_or_default()
    }
}
