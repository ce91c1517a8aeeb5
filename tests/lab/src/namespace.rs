//! Network namespaces without names: each lives as long as a descriptor of it is open.
//!
//! A namespace with a name is a mount in `/run/netns`, which stays when the process is killed. One without vanishes with the
//! last descriptor, socket and process in it, and so with this process however it ends. What is in it vanishes with it.

use std::ffi::OsStr;
use std::fs::File;
use std::os::fd::{AsFd, AsRawFd};
use std::panic::resume_unwind;
use std::process::{self, Command};
use std::sync::Arc;
use std::thread;

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::error::LabError;
use crate::runtime::Runtime;
use crate::sys;
use crate::tools::ip;

/// A network namespace. Clones are of the same one.
#[derive(Clone, Debug)]
pub struct Namespace {
    file: Arc<File>,
}

impl Namespace {
    /// A new namespace, with nothing but a loopback interface that is up.
    ///
    /// # Errors
    ///
    /// The system refuses it, as without root.
    pub fn new() -> Result<Self, LabError> {
        let make = || {
            sys::unshare_network()?;
            File::open("/proc/thread-self/ns/net")
        };
        let made = thread::scope(|scope| join(scope.spawn(make)));
        let namespace = Self { file: Arc::new(made.map_err(LabError::of("make a network namespace"))?) };
        ip(&namespace, "link set dev lo up")?;
        Ok(namespace)
    }

    /// Runs a closure on a thread in the namespace, and waits for it. Sockets that it opens, and processes and threads that
    /// it starts, stay in the namespace.
    ///
    /// # Panics
    ///
    /// The closure panics.
    pub fn run<T: Send>(&self, closure: impl FnOnce() -> T + Send) -> T {
        let inside = || {
            self.enter();
            closure()
        };
        thread::scope(|scope| join(scope.spawn(inside)))
    }

    /// A command for a program that will run in the namespace. It is killed when the thread that has started it ends.
    #[must_use]
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net={}", self.path()));
        command.args(["--", "setpriv", "--pdeathsig", "KILL", "--"]).arg(program);
        command
    }

    /// A tokio runtime on a thread in the namespace.
    ///
    /// # Errors
    ///
    /// The system refuses a thread, or the descriptors of a runtime.
    pub fn runtime(&self) -> Result<Runtime, LabError> {
        Runtime::start(self.clone())
    }

    /// A path that leads every process to the namespace while this process lives and has it open.
    #[must_use]
    pub fn path(&self) -> String {
        format!("/proc/{}/fd/{}", process::id(), self.file.as_raw_fd())
    }

    /// Moves the calling thread into the namespace.
    pub(crate) fn enter(&self) {
        move_into_link_name_space(self.file.as_fd(), Some(LinkNameSpaceType::Network))
            .expect("root made the namespace, and enters it");
    }
}

/// What a thread returns; its panic goes on in the caller.
fn join<T>(thread: thread::ScopedJoinHandle<'_, T>) -> T {
    thread.join().unwrap_or_else(|panic| resume_unwind(panic))
}
