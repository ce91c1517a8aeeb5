//! Limits that the kernel puts on the process, and on others that look at it.

use std::fs::File;
use std::io;

use rustix::io::Errno;
use rustix::process::{DumpableBehavior, Resource, getrlimit, set_dumpable_behavior, setrlimit};

/// Raises the soft limit on open files to the hard limit and returns what holds now; `None` is unlimited.
///
/// Each connection is one open file, and the usual soft limit of 1024 is kept low only for programs that still use
/// `select(2)`, which cannot see higher descriptors.
///
/// # Errors
///
/// If the kernel refuses; the old limit then stays.
pub fn raise_open_files() -> io::Result<Option<u64>> {
    let mut limit = getrlimit(Resource::Nofile);
    if limit.current != limit.maximum {
        limit.current = limit.maximum;
        setrlimit(Resource::Nofile, limit)?;
    }
    Ok(getrlimit(Resource::Nofile).current)
}

/// Keeps the memory of the process, in which keys are, to itself: no core dump is written, and no other process of the same
/// user can read or trace it. Root still can.
///
/// # Errors
///
/// If the kernel refuses, which no Linux does.
pub fn forbid_dumps() -> io::Result<()> {
    Ok(set_dumpable_behavior(DumpableBehavior::NotDumpable)?)
}

/// The soft limit on open files; `None` is unlimited.
#[must_use]
pub fn open_files() -> Option<u64> {
    getrlimit(Resource::Nofile).current
}

/// An open file that is closed when no other can be opened, so that one thing can still be done.
#[derive(Debug)]
pub struct SpareFile(Option<File>);

impl SpareFile {
    /// Opens the file, if there is room for it.
    #[must_use]
    pub fn open() -> Self {
        Self(File::open("/dev/null").ok())
    }

    /// Whether `error` says that the process or the system has no room for another open file.
    #[must_use]
    pub fn helps(error: &io::Error) -> bool {
        let code = error.raw_os_error().map(Errno::from_raw_os_error);
        matches!(code, Some(Errno::MFILE | Errno::NFILE))
    }

    /// Closes the file while `task` runs, and opens it again.
    pub async fn lend<T>(&mut self, task: impl Future<Output = T>) -> T {
        self.0 = None;
        let done = task.await;
        *self = Self::open();
        done
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_soft_limit_becomes_the_hard_limit() {
        let mut lowered = getrlimit(Resource::Nofile);
        lowered.current = lowered.maximum.map(|hard| hard.min(4096) - 1);
        setrlimit(Resource::Nofile, lowered).expect("lowering a soft limit is always allowed");
        assert_eq!(raise_open_files().unwrap(), lowered.maximum);
        assert_eq!(getrlimit(Resource::Nofile).current, lowered.maximum);
    }
}
