//! Signals that ask the process to end.
//!
//! The first SIGTERM or SIGINT starts an orderly shutdown, the second one ends the process at once, for when the first
//! takes too long. What comes within a second of the first is no second wish but the first one told twice, as when
//! `timeout` signals a process and then its group, or a terminal and a script both pass an interrupt on. SIGHUP, whose
//! default is to kill, is caught, and passed on to the part of the process that can read something again.
//!
//! A thread of its own waits for them, so that the second signal works however stuck the rest of the process is.

use std::time::{Duration, Instant};
use std::{io, thread};

use tokio::select;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;
use tracing::{debug, info, warn};

use crate::logs;

/// The exit code after a second signal: the shutdown was not completed.
const CUT_SHORT: i32 = 1;

/// How long after the first signal further signals count as echoes of it. No operator loses patience sooner.
const ECHO: Duration = Duration::from_secs(1);

/// The process's wish to end, as told by signals. Clones share it.
#[derive(Clone, Debug)]
pub struct Shutdown {
    requested: watch::Receiver<bool>,
    hangups: watch::Sender<u64>,
}

impl Shutdown {
    /// Catches the signals from now on, for the rest of the process's life.
    ///
    /// # Errors
    ///
    /// If the thread or the signal handlers cannot be set up.
    pub fn install() -> io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
        let (request, requested) = watch::channel(false);
        let hangups = watch::Sender::new(0);
        let signals = {
            let _inside = runtime.enter();
            Signals {
                terminate: signal(SignalKind::terminate())?,
                interrupt: signal(SignalKind::interrupt())?,
                hangup: signal(SignalKind::hangup())?,
                hangups: hangups.clone(),
            }
        };
        thread::Builder::new()
            .name("signals".into())
            .spawn(move || runtime.block_on(signals.watch(&request)))?;
        Ok(Self { requested, hangups })
    }

    /// The number of SIGHUPs from now on, for the part of the process that reads its files again at each. A process without
    /// such a part logs that it ignores them.
    pub fn hangups(&self) -> watch::Receiver<u64> {
        self.hangups.subscribe()
    }

    /// Waits for the first signal. Completes at once if it has arrived already.
    pub async fn requested(mut self) {
        if self.requested.wait_for(|requested| *requested).await.is_err() {
            // Only if the thread is gone: no signal will be told any more, which is no reason to end.
            std::future::pending::<()>().await;
        }
    }
}

struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
    hangups: watch::Sender<u64>,
}

impl Signals {
    async fn watch(mut self, request: &watch::Sender<bool>) {
        let first = self.next().await;
        info!(signal = first, "shutting down; a second signal ends the process at once");
        let echoes_end = Instant::now() + ECHO;
        request.send_replace(true);
        let second = loop {
            let signal = self.next().await;
            if Instant::now() >= echoes_end {
                break signal;
            }
            debug!(signal, "duplicate of the first signal; ignored");
        };
        warn!(signal = second, "second signal: ending at once, without a clean shutdown");
        logs::flush();
        std::process::exit(CUT_SHORT);
    }

    /// The next signal that asks for an end.
    async fn next(&mut self) -> &'static str {
        loop {
            select! {
                _ = self.terminate.recv() => return "SIGTERM",
                _ = self.interrupt.recv() => return "SIGINT",
                _ = self.hangup.recv() => self.pass_on_hangup(),
            }
        }
    }

    fn pass_on_hangup(&self) {
        if self.hangups.receiver_count() == 0 {
            return warn!("SIGHUP ignored: restart the process to apply a new configuration");
        }
        info!("SIGHUP: the configuration and the files that it names are read again");
        self.hangups.send_modify(|hangups| *hangups += 1);
    }
}
