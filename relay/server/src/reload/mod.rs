//! What the relay reads again while it runs, and when.
//!
//! A [`Subject`] is read from files: the configuration, the certificate and its key, the allow list, the keys for tokens. The relay reads all subjects again on
//! SIGHUP, and one whose files have changed by itself. The kernel tells of changes in the directories of the files
//! ([`events`]), and the relay looks at the files every [`LOOK`] besides, for file systems that tell nothing. A change counts
//! once the files have stayed the same for [`settling::SETTLE`]: a certificate and its key are two files, replaced one
//! after the other, and a file that is written in place is not whole for a moment.
//!
//! What is read takes effect as a whole or not at all. A subject that cannot be used is an error in the log and in the metrics,
//! and what was read before stays.

mod events;
mod settling;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use prometheus::{IntCounterVec, Opts, Registry};
use tokio::sync::watch;
use tokio::task::spawn_blocking;
use tokio::time::{Instant, MissedTickBehavior, interval_at, sleep_until};
use towpath_wire::labels;

use events::Events;
use settling::{Settling, Stamp, stamp};

/// The time between two looks at the files of which the kernel has told no change. A look is a call of the system for each file.
const LOOK: Duration = Duration::from_secs(30);

labels! {
    /// What is read again.
    pub(crate) enum What {
        /// The configuration file, with every file that it names.
        Configuration = "configuration",
        /// The files that `cert` and `key` name.
        Certificate = "certificate",
        /// The file that `allow_list.file` names.
        AllowList = "allow_list",
        /// The file that `tokens.key_file` names.
        TokenKeys = "token_keys",
    }
}

labels! {
    /// What became of files that were read again.
    pub(crate) enum ReloadOutcome {
        /// What they hold now is in use: new connections see the new certificate, and new values of settings hold.
        Replaced = "replaced",
        /// They hold what is in use already, or changes that need a restart.
        Unchanged = "unchanged",
        /// They cannot be used, and what was read before stays in use.
        Refused = "refused",
    }
}

/// Something that is read from files and can be read again.
pub(crate) trait Subject: Send + Sync {
    /// The name in metrics.
    fn what(&self) -> What;

    /// The files whose changes matter; none if it is read again on SIGHUP only.
    fn files(&self) -> Vec<PathBuf>;

    /// Reads the files again, and puts what they hold to use if it is sound. Logs what became of it; that nothing has changed
    /// only if the operator has `asked`. May block.
    fn reload(&self, asked: bool) -> ReloadOutcome;
}

/// Counts what became of reading again.
#[derive(Clone, Debug)]
pub(crate) struct ReloadMetrics {
    reloads: IntCounterVec,
}

impl ReloadMetrics {
    pub(crate) fn register(registry: &Registry) -> prometheus::Result<Self> {
        let reloads = IntCounterVec::new(
            Opts::new(
                "towpath_reloads_total",
                "Times that files were read again while the relay ran, by what they hold and what became of it",
            ),
            &["what", "outcome"],
        )?;
        for what in What::ALL {
            for outcome in ReloadOutcome::ALL {
                reloads.with_label_values(&[what.label(), outcome.label()]);
            }
        }
        registry.register(Box::new(reloads.clone()))?;
        Ok(Self { reloads })
    }

    fn count(&self, what: What, outcome: ReloadOutcome) {
        self.reloads.with_label_values(&[what.label(), outcome.label()]).inc();
    }

    #[cfg(test)]
    pub(crate) fn reloads(&self, what: What, outcome: ReloadOutcome) -> u64 {
        self.reloads.with_label_values(&[what.label(), outcome.label()]).get()
    }
}

/// The task that reads subjects again, with what it needs.
pub(crate) struct Reload {
    /// In the order in which they are read on SIGHUP.
    pub(crate) subjects: Vec<Arc<dyn Subject>>,
    pub(crate) metrics: ReloadMetrics,
    /// Changes with each SIGHUP. `None` where the program does not pass them on.
    pub(crate) hangups: Option<watch::Receiver<u64>>,
}

/// A subject, and how its files were seen.
struct Watched {
    subject: Arc<dyn Subject>,
    files: Vec<PathBuf>,
    settling: Settling,
}

impl Reload {
    /// Runs until it is cancelled.
    pub(crate) async fn run(self) {
        let Self { subjects, metrics, mut hangups } = self;
        let files = subjects.iter().flat_map(|subject| subject.files()).collect();
        let Some(mut events) = watch_files(Events::new(), files).await else { return };
        let mut watched = Vec::new();
        for subject in subjects {
            let files = subject.files();
            let settling = Settling::new(stamps(files.clone()).await);
            // The files may have changed since the start has read them, before anything watched them.
            let outcome = read_again(&subject, false).await;
            if let Some(outcome) = outcome.filter(|outcome| *outcome != ReloadOutcome::Unchanged) {
                metrics.count(subject.what(), outcome);
            }
            watched.push(Watched { subject, files, settling });
        }
        let mut look = interval_at(Instant::now() + LOOK, LOOK);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let files: Vec<_> = watched.iter().flat_map(|watched| &watched.files).cloned().collect();
            let Some(watching) = watch_files(events, files).await else { return };
            events = watching;
            let due = watched.iter().filter_map(|watched| watched.settling.due()).min();
            let asked = tokio::select! {
                () = hangup(&mut hangups) => true,
                () = events.changed() => false,
                _ = look.tick() => false,
                () = until(due) => false,
            };
            for Watched { subject, files, settling } in &mut watched {
                let seen = stamps(files.clone()).await;
                if asked {
                    settling.note_read(seen);
                } else if !settling.look(seen, Instant::now()) {
                    continue;
                }
                if let Some(outcome) = read_again(subject, asked).await {
                    metrics.count(subject.what(), outcome);
                }
            }
        }
    }
}

/// Watches these files and no others; `None` if the process is about to end, or after a panic, which has been reported.
async fn watch_files(mut events: Events, files: Vec<PathBuf>) -> Option<Events> {
    let watching = spawn_blocking(move || {
        events.watch(&files);
        events
    });
    watching.await.ok()
}

/// What became of reading a subject again; `None` as for [`watch_files`].
async fn read_again(subject: &Arc<dyn Subject>, asked: bool) -> Option<ReloadOutcome> {
    let reading = subject.clone();
    spawn_blocking(move || reading.reload(asked)).await.ok()
}

/// Waits for the next SIGHUP.
async fn hangup(hangups: &mut Option<watch::Receiver<u64>>) {
    let came = match hangups {
        Some(changes) => changes.changed().await.is_ok(),
        None => false,
    };
    if !came {
        // There are none, or none will come any more.
        std::future::pending::<()>().await;
    }
}

async fn until(due: Option<Instant>) {
    match due {
        Some(due) => sleep_until(due).await,
        None => std::future::pending().await,
    }
}

/// The states of the files.
async fn stamps(files: Vec<PathBuf>) -> Vec<Stamp> {
    let states = spawn_blocking(move || files.iter().map(|path| stamp(path)).collect());
    states.await.unwrap_or_default()
}

#[cfg(test)]
mod tests;
