//! The limit on open files, which bounds the connections of a process.

use anyhow::{Context, Result, bail};
use rustix::process::{Resource, getrlimit, setrlimit};

/// The descriptors that a process needs besides its connections.
const SPARE_FILES: u64 = 64;

/// Raises the limit on open files to the hard limit, and checks that `connections` fit.
pub(crate) fn allow_connections(connections: u64) -> Result<()> {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    setrlimit(Resource::Nofile, limit).context("raising the limit on open files")?;
    let needed = connections + SPARE_FILES;
    match limit.maximum {
        Some(allowed) if allowed < needed => bail!(
            "{connections} connections in one process need {needed} open files; the hard limit is {allowed} \
             (raise it with `ulimit -Hn {needed}` as root)"
        ),
        _ => Ok(()),
    }
}
