//! The CPU time of the calling thread, from the scheduler's accounts.

use std::fs;

use anyhow::{Result, bail};
use serde::{Deserialize, Serialize};

use crate::clock;

/// The share of a CPU that one thread of the load used in a span of time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ThreadUsage {
    /// Nanoseconds in which the thread ran.
    pub cpu: u64,
    /// Nanoseconds in which the thread was ready to run and waited for a CPU.
    pub wait: u64,
    /// The length of the span in nanoseconds.
    pub wall: u64,
}

impl ThreadUsage {
    /// A thread that is busier than this has no reserve: it may have limited the load.
    const MAX_OCCUPANCY: f64 = 0.97;

    /// The share of the span in which the thread did not sleep, 0 to 1.
    #[must_use]
    pub fn occupancy(&self) -> f64 {
        (self.cpu + self.wait) as f64 / self.wall.max(1) as f64
    }

    /// Whether the thread had no reserve left, and so may have limited the load.
    pub(crate) fn is_saturated(&self) -> bool {
        self.occupancy() > Self::MAX_OCCUPANCY
    }

    /// The busiest of several threads.
    pub(crate) fn busiest(of: &[Self]) -> Self {
        of.iter().copied().max_by(|a, b| a.occupancy().total_cmp(&b.occupancy())).unwrap_or_default()
    }

    /// The usage of the calling thread since `self`, an earlier [`of_thread`](Self::of_thread).
    pub(crate) fn until_now(&self) -> Result<Self> {
        let now = Self::of_thread()?;
        Ok(Self { cpu: now.cpu - self.cpu, wait: now.wait - self.wait, wall: now.wall - self.wall })
    }

    /// The total usage of the calling thread since it began.
    pub(crate) fn of_thread() -> Result<Self> {
        let text = fs::read_to_string("/proc/thread-self/schedstat")?;
        let mut numbers = text.split_whitespace().map(str::parse);
        let (Some(Ok(cpu)), Some(Ok(wait))) = (numbers.next(), numbers.next()) else {
            bail!("unexpected text in /proc/thread-self/schedstat: {text:?}");
        };
        Ok(Self { cpu, wait, wall: clock::now() })
    }
}

/// Measures the [`ThreadUsage`] of the calling thread from one time to another, as far as it is called often.
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

    /// Takes a measurement if one of the two times has come. To be called often.
    pub(crate) fn update(&mut self, now: u64) -> Result<()> {
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

    /// The usage over the span; zero if the span is not over.
    pub(crate) fn usage(&self) -> ThreadUsage {
        self.used.unwrap_or_default()
    }
}
