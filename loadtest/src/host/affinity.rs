//! Scheduling of the calling process: its CPUs, its priority, and the precision of its timers.

use std::num::NonZeroU64;

use anyhow::{Context, Result, bail};
use rustix::process::{Signal, nice, set_parent_process_death_signal};
use rustix::thread::{CpuSet, sched_setaffinity, set_current_timer_slack};

/// Restricts the calling process to these CPUs; an empty list leaves it where it is.
pub(crate) fn pin(cpus: &[usize]) -> Result<()> {
    if cpus.is_empty() {
        return Ok(());
    }
    let mut set = CpuSet::new();
    for &cpu in cpus {
        if cpu >= CpuSet::MAX_CPU {
            bail!("CPU {cpu} does not exist (--cpus)");
        }
        set.set(cpu);
    }
    sched_setaffinity(None, &set)
        .with_context(|| format!("restricting a load process to the CPUs {cpus:?} (--cpus)"))
}

/// Makes the calling process end with its parent, and its sleeps end on time.
pub(crate) fn become_worker() -> Result<()> {
    set_parent_process_death_signal(Some(Signal::KILL))?;
    // The default slack is 50 µs, in which a relay forwards a dozen packets.
    set_current_timer_slack(NonZeroU64::new(1))?;
    Ok(())
}

/// Lowers the priority of the calling process, so that other processes of the load run first.
pub(crate) fn lower_priority() -> Result<()> {
    nice(10).context("lowering the priority of a load process")?;
    Ok(())
}
