//! The configuration of a run, which all scenarios have in common.

use std::path::PathBuf;

use anyhow::Result;

use crate::host::server::ServerProcess;
use crate::target::LoadTarget;

/// The server under load, and where the processes of the load run.
#[derive(Clone, Debug)]
pub(crate) struct RunConfig {
    pub(crate) target: LoadTarget,
    /// The process id of the server, if its CPU time and memory are to be reported.
    pub(crate) server_pid: Option<u32>,
    /// CPUs for the worker processes, one each in turn; an empty list leaves the choice to the kernel.
    pub(crate) cpus: Vec<usize>,
    /// The `towpath-loadtest` program.
    pub(crate) program: PathBuf,
}

impl RunConfig {
    /// The server's process, if its id is known.
    pub(crate) fn server(&self) -> Result<Option<ServerProcess>> {
        self.server_pid.map(ServerProcess::new).transpose()
    }

    /// The CPU of the worker process `index`.
    pub(crate) fn cpu_of(&self, index: usize) -> Option<usize> {
        (!self.cpus.is_empty()).then(|| self.cpus[index % self.cpus.len()])
    }
}
