//! Limits that the kernel puts on the process, and on others that look at it.

use std::io;

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
