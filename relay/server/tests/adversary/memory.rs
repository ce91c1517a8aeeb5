//! The memory of this process.

use std::fs;

/// The resident memory of this process, in bytes (`VmRSS` of proc_pid_status(5)).
pub(crate) fn resident() -> usize {
    let status = fs::read_to_string("/proc/self/status").expect("procfs");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("VmRSS");
    let kib: usize = line.trim().trim_end_matches(" kB").parse().expect("a number");
    kib * 1024
}
