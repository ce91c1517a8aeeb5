//! The CPU time of the calling thread, as the scheduler accounts for it.

use std::fs;

use anyhow::{Result, bail};
use serde::{Deserialize, Serialize};

use crate::clock;

/// What the calling thread used of a CPU in a span of time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ThreadUsage {
    /// Nanoseconds on a CPU.
    pub cpu: u64,
    /// Nanoseconds ready to run while others ran.
    pub wait: u64,
    /// Nanoseconds of time.
    pub wall: u64,
}

impl ThreadUsage {
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

/// Takes the [`ThreadUsage`] of the calling thread over a span of time that it is told of in passing.
#[derive(Clone, Copy, Debug)]
pub(crate) struct UsageMeter {
    from: u64,
    to: u64,
    begun: Option<ThreadUsage>,
    used: Option<ThreadUsage>,
}

impl UsageMeter {
    pub(crate) const fn new(from: u64, to: u64) -> Self {
        Self { from, to, begun: None, used: None }
    }

    /// To be called often.
    pub(crate) fn pass(&mut self, now: u64) -> Result<()> {
        if now >= self.from && self.begun.is_none() {
            self.begun = Some(ThreadUsage::of_thread()?);
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
    pub(crate) fn usage(&self) -> ThreadUsage {
        self.used.unwrap_or_default()
    }
}
