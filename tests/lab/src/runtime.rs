//! Tokio in a network namespace.

use std::future::Future;
use std::panic::resume_unwind;
use std::sync::mpsc;
use std::thread::{self, JoinHandle};

use tokio::runtime::{Builder, Handle};
use tokio::sync::oneshot;
use tokio::task;

use crate::error::LabError;
use crate::namespace::Namespace;

/// A tokio runtime of one thread, which is in a network namespace: sockets that its tasks open are in the namespace.
///
/// Its tasks are dropped when it is.
#[derive(Debug)]
pub struct Runtime {
    handle: Handle,
    /// Dropped to end the thread.
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Runtime {
    pub(crate) fn start(namespace: Namespace) -> Result<Self, LabError> {
        let (stop, stopped) = oneshot::channel::<()>();
        let (made, making) = mpsc::sync_channel(1);
        let serve = move || {
            namespace.enter();
            let runtime = Builder::new_current_thread().enable_all().build();
            let handle = runtime.as_ref().map(|runtime| runtime.handle().clone());
            // The maker waits for it.
            _ = made.send(handle.map_err(|error| error.kind().into()));
            if let Ok(runtime) = runtime {
                // An error says that the sender was dropped, which ends the runtime as well.
                _ = runtime.block_on(stopped);
            }
        };
        let refused = || LabError::of("start a runtime in a network namespace");
        let thread = thread::Builder::new().name("lab-runtime".into()).spawn(serve).map_err(refused())?;
        let handle = making.recv().expect("the thread answers before it ends").map_err(refused())?;
        Ok(Self { handle, stop: Some(stop), thread: Some(thread) })
    }

    /// Starts a task in the namespace.
    pub fn spawn<F>(&self, future: F) -> task::JoinHandle<F::Output>
    where
        F: Future<Output: Send> + Send + 'static,
    {
        self.handle.spawn(future)
    }

    /// Runs a future in the namespace, and waits for it on the calling thread, which must not be of a runtime.
    ///
    /// # Panics
    ///
    /// The future panics.
    pub fn block_on<F>(&self, future: F) -> F::Output
    where
        F: Future<Output: Send> + Send + 'static,
    {
        let (done, outcome) = mpsc::sync_channel(1);
        let task = self.spawn(future);
        // The caller waits for it.
        self.spawn(async move { _ = done.send(task.await) });
        let outcome = outcome.recv().expect("the runtime lives as long as it is borrowed");
        outcome.unwrap_or_else(|error| resume_unwind(error.into_panic()))
    }

    /// The runtime's handle, to start tasks by and to enter it with.
    #[must_use]
    pub const fn handle(&self) -> &Handle {
        &self.handle
    }
}

impl Drop for Runtime {
    fn drop(&mut self) {
        self.stop.take();
        if let Some(thread) = self.thread.take() {
            // A panic of the thread was shown when it happened.
            _ = thread.join();
        }
    }
}
