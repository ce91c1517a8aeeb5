//! What the relay's process uses, as the kernel accounts for it.

use std::collections::BTreeMap;
use std::fs;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use crate::clock;

/// The process of the relay under load.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ServerProcess {
    pid: u32,
}

/// CPU time of each of its threads, in nanoseconds, at a point in time.
#[derive(Clone, Debug)]
pub(crate) struct CpuSample {
    at: u64,
    threads: BTreeMap<u32, u64>,
}

/// What it used between two samples.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServerUsage {
    /// CPU time of all threads, in nanoseconds.
    pub cpu: u64,
    /// CPU time of its busiest thread, in nanoseconds.
    pub busiest: u64,
    /// Time between the samples, in nanoseconds.
    pub wall: u64,
    /// Resident memory at the end, in bytes.
    pub resident: u64,
    /// The most resident memory since the process began, in bytes.
    pub peak: u64,
}

impl ServerProcess {
    /// The process `pid`, which must be there.
    pub(crate) fn new(pid: u32) -> Result<Self> {
        let server = Self { pid };
        server.sample().with_context(|| format!("there is no relay with the process id {pid}"))?;
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

    /// What was used since `since`. Threads that ended in the meantime are not seen.
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

    /// Resident memory in bytes.
    pub(crate) fn resident(&self) -> Result<u64> {
        self.status("VmRSS:")
    }

    fn status(&self, field: &str) -> Result<u64> {
        let path = format!("/proc/{}/status", self.pid);
        let status = fs::read_to_string(&path).with_context(|| format!("reading {path}"))?;
        memory(&status, field).with_context(|| format!("no {field} in {path}"))
    }
}

/// A field of bytes, as the kernel shows it in KiB.
fn memory(status: &str, field: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix(field))?;
    let kib: u64 = line.trim().strip_suffix(" kB")?.parse().ok()?;
    Some(kib * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_usage_is_seen() {
        let own = ServerProcess::new(std::process::id()).unwrap();
        let before = own.sample().unwrap();
        // Long enough for the scheduler to account for it.
        let until = clock::now() + clock::SECOND / 20;
        while clock::now() < until {}
        let usage = own.usage_since(&before).unwrap();
        assert!(usage.busiest > 0 && usage.cpu >= usage.busiest, "{usage:?}");
        assert!(usage.resident > 100 * 1024 && usage.peak >= usage.resident, "{usage:?}");
    }

    #[test]
    fn memory_is_found() {
        let status = "Name:\tx\nVmHWM:\t  99 kB\nVmRSS:\t    1234 kB\nRssAnon:\t1 kB\n";
        assert_eq!(memory(status, "VmRSS:"), Some(1234 * 1024));
        assert_eq!(memory(status, "VmHWM:"), Some(99 * 1024));
        assert_eq!(memory("VmRSS:\t\n", "VmRSS:"), None);
        assert_eq!(memory("Name:\tkthreadd\n", "VmRSS:"), None);
    }
}
