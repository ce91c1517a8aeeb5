//! Which CPUs a process of the load runs on, at which priority, and how exactly its timers wake it.

use std::num::NonZeroU64;

use anyhow::{Context, Result, bail};
use rustix::process::{Signal, nice, set_parent_process_death_signal};
use rustix::thread::{CpuSet, sched_setaffinity, set_current_timer_slack};

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
