//! The memory that the process may use.

use std::fs;
use std::path::Path;

/// The bytes of memory that this process may use: the least limit of its cgroups, of version 2 or 1, and at most what the
/// machine has.
///
/// Where none is known, as without procfs, it is 1 GiB.
#[must_use]
pub fn available_memory() -> usize {
    let machine = fs::read_to_string("/proc/meminfo").ok().and_then(|text| total(&text));
    let membership = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let cgroup = cgroup_limit(Path::new("/sys/fs/cgroup"), &membership);
    machine.into_iter().chain(cgroup).min().unwrap_or(1 << 30)
}

/// `MemTotal` of proc_meminfo(5).
fn total(meminfo: &str) -> Option<usize> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kib: usize = line.trim().strip_suffix(" kB")?.parse().ok()?;
    kib.checked_mul(1024)
}

/// The least limit on memory on the way from the cgroups of the process to their roots (cgroups(7)). `membership` is the
/// text of `/proc/self/cgroup`.
fn cgroup_limit(root: &Path, membership: &str) -> Option<usize> {
    let limits = membership.lines().flat_map(|line| {
        let mut fields = line.splitn(3, ':').skip(1);
        let (controllers, path) = (fields.next().unwrap_or_default(), fields.next().unwrap_or_default());
        let (mounted, file) = match controllers {
            "" => (root.to_path_buf(), "memory.max"),
            _ if controllers.split(',').any(|each| each == "memory") => {
                (root.join("memory"), "memory.limit_in_bytes")
            }
            _ => return Vec::new(),
        };
        let folder = mounted.join(path.trim_start_matches('/'));
        let on_the_way = folder.ancestors().take_while(|folder| folder.starts_with(&mounted));
        let texts = on_the_way.filter_map(|folder| fs::read_to_string(folder.join(file)).ok());
        // "max" is no limit. Version 1 has a number instead that is more than any machine has.
        texts.filter_map(|text| text.trim().parse().ok()).collect()
    });
    limits.min()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_machine_has_memory() {
        assert_eq!(total("MemTotal:       24689452 kB\nMemFree: 1 kB\n"), Some(24_689_452 * 1024));
        assert_eq!(total("MemFree: 1 kB\n"), None);
        assert!(available_memory() >= 1 << 24);
    }

    #[test]
    fn the_least_limit_of_the_cgroups_counts() {
        let root = tempfile::tempdir().expect("a directory");
        let write = |file: &str, text: &str| {
            let file = root.path().join(file);
            fs::create_dir_all(file.parent().expect("a folder")).expect("a folder");
            fs::write(file, text).expect("a file");
        };
        write("pod/memory.max", "400\n");
        write("pod/relay/memory.max", "max\n");
        write("memory/old/memory.limit_in_bytes", "300\n");
        write("memory/memory.limit_in_bytes", "9223372036854771712\n");
        let limit = |membership| cgroup_limit(root.path(), membership);
        assert_eq!(limit("0::/pod/relay\n"), Some(400));
        assert_eq!(limit("4:memory:/old\n3:cpu:/pod\n0::/pod\n"), Some(300));
        assert_eq!(limit("4:cpu,memory:/gone\n"), Some(9_223_372_036_854_771_712));
        assert_eq!(limit("0::/\n"), None);
    }
}
