//! CPU time and memory of the server's process, from the kernel's accounts.

use std::collections::BTreeMap;
use std::fs;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use crate::clock;

/// The process of the server under load.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ServerProcess {
    pid: u32,
}

/// The CPU time of each thread of the server in nanoseconds, at a point in time.
#[derive(Clone, Debug)]
pub(crate) struct CpuSample {
    at: u64,
    threads: BTreeMap<u32, u64>,
}

/// The server's CPU time and memory over a span of time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServerUsage {
    /// The CPU time of all threads in nanoseconds.
    pub cpu: u64,
    /// The CPU time of the busiest thread in nanoseconds.
    pub busiest: u64,
    /// The length of the span in nanoseconds.
    pub wall: u64,
    /// Resident memory at the end of the span, in bytes.
    pub resident: u64,
    /// The highest resident memory since the process began, in bytes.
    pub peak: u64,
}

impl ServerUsage {
    /// The CPU time of all threads, in percent of one CPU.
    pub(crate) fn cpu_percent(&self) -> f64 {
        self.cpu as f64 / self.wall.max(1) as f64 * 100.0
    }

    /// The CPU time of the busiest thread, in percent of one CPU.
    pub(crate) fn busiest_percent(&self) -> f64 {
        self.busiest as f64 / self.wall.max(1) as f64 * 100.0
    }
}

impl ServerProcess {
    /// Finds the process `pid`.
    pub(crate) fn new(pid: u32) -> Result<Self> {
        let server = Self { pid };
        server
            .sample()
            .with_context(|| format!("reading the CPU time of the process {pid} (--server-pid)"))?;
        Ok(server)
    }

    pub(crate) fn sample(&self) -> Result<CpuSample> {
        let at = clock::now();
        let mut threads = BTreeMap::new();
        for entry in fs::read_dir(format!("/proc/{}/task", self.pid))? {
            let entry = entry?;
            // A thread may end at any time.
            let Ok(text) = fs::read_to_string(entry.path().join("schedstat")) else { continue };
            let id = entry.file_name().to_str().and_then(|name| name.parse().ok());
            let cpu = text.split_whitespace().next().and_then(|number| number.parse().ok());
            if let (Some(id), Some(cpu)) = (id, cpu) {
                threads.insert(id, cpu);
            }
        }
        Ok(CpuSample { at, threads })
    }

    /// The usage since `since`, without threads that have ended.
    pub(crate) fn usage_since(&self, since: &CpuSample) -> Result<ServerUsage> {
        let now = self.sample()?;
        let used =
            now.threads.iter().map(|(id, cpu)| cpu - since.threads.get(id).copied().unwrap_or_default());
        Ok(ServerUsage {
            cpu: used.clone().sum(),
            busiest: used.max().unwrap_or_default(),
            wall: now.at - since.at,
            resident: self.resident()?,
            peak: self.status("VmHWM:")?,
        })
    }

    /// The server's resident memory in bytes.
    pub(crate) fn resident(&self) -> Result<u64> {
        self.status("VmRSS:")
    }

    fn status(&self, field: &str) -> Result<u64> {
        let path = format!("/proc/{}/status", self.pid);
        let status = fs::read_to_string(&path).with_context(|| format!("reading {path}"))?;
        memory(&status, field).with_context(|| format!("no {field} in {path}"))
    }
}

/// Reads a field that the kernel shows in KiB; returns bytes.
fn memory(status: &str, field: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix(field))?;
    let kib: u64 = line.trim().strip_suffix(" kB")?.parse().ok()?;
    Some(kib * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_usage_of_a_process_is_measured() {
        let own = ServerProcess::new(std::process::id()).unwrap();
        let before = own.sample().unwrap();
        // The scheduler accounts for CPU time at ticks, a few milliseconds apart.
        let until = clock::now() + clock::SECOND / 20;
        while clock::now() < until {}
        let usage = own.usage_since(&before).unwrap();
        assert!(usage.busiest > 0 && usage.cpu >= usage.busiest, "{usage:?}");
        assert!(usage.resident > 100 * 1024 && usage.peak >= usage.resident, "{usage:?}");
    }

    #[test]
    fn memory_is_read_from_the_status() {
        let status = "Name:\tx\nVmHWM:\t  99 kB\nVmRSS:\t    1234 kB\nRssAnon:\t1 kB\n";
        assert_eq!(memory(status, "VmRSS:"), Some(1234 * 1024));
        assert_eq!(memory(status, "VmHWM:"), Some(99 * 1024));
        assert_eq!(memory("VmRSS:\t\n", "VmRSS:"), None);
        assert_eq!(memory("Name:\tkthreadd\n", "VmRSS:"), None);
    }
}
