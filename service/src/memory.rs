//! The memory that the process may use.

use std::fs;

/// The bytes of memory that this process may use: the limit of its cgroup (v2), or of the nearest one above that has one,
/// and at most what the machine has.
///
/// Where neither is known, as without procfs, it is 1 GiB.
#[must_use]
pub fn available_memory() -> usize {
    let machine = fs::read_to_string("/proc/meminfo").ok().and_then(|text| total(&text));
    let cgroup = fs::read_to_string("/proc/self/cgroup").ok().and_then(|text| cgroup_limit(&text));
    machine.into_iter().chain(cgroup).min().unwrap_or(1 << 30)
}

/// `MemTotal` of proc_meminfo(5).
fn total(meminfo: &str) -> Option<usize> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kib: usize = line.trim().strip_suffix(" kB")?.parse().ok()?;
    kib.checked_mul(1024)
}

/// The least `memory.max` on the way from the cgroup of the process to the root (cgroups(7)).
fn cgroup_limit(membership: &str) -> Option<usize> {
    let path = membership.lines().find_map(|line| line.strip_prefix("0::/"))?;
    let folders = std::path::Path::new("/sys/fs/cgroup").join(path);
    let limits = folders.ancestors().filter_map(|folder| fs::read_to_string(folder.join("memory.max")).ok());
    // "max" is no limit.
    limits.filter_map(|text| text.trim().parse().ok()).min()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_machine_has_memory() {
        assert_eq!(total("MemTotal:       24689452 kB\nMemFree: 1 kB\n"), Some(24_689_452 * 1024));
        assert_eq!(total("MemFree: 1 kB\n"), None);
        assert_eq!(cgroup_limit("12:cpu:/a\n"), None, "cgroups of version 1 are not looked at");
        assert!(available_memory() >= 1 << 24);
    }
}
