//! The limit on the open files of a process, which bounds its connections.

use anyhow::{Context, Result, bail};
use rustix::process::{Resource, getrlimit, setrlimit};

/// Descriptors that a process needs besides its connections.
const SPARE_FILES: u64 = 64;

/// Raises the limit on open files to what the machine allows, and makes sure that `connections` fit.
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
