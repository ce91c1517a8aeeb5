//! The task that keeps the shown certificate what its files hold, and warns of its end.
//!
//! An ACME client replaces the files every few weeks, and few tell the programs that read them. So the relay looks at them by
//! itself, and SIGHUP makes it look at once. Certificate and key are two files, replaced one after the other: the relay reads
//! them only when they have stayed the same for one look.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::spawn_blocking;
use tokio::time::{Instant, interval_at};
use tracing::{error, info, warn};

use super::shown::{CertificateMetrics, ReloadOutcome, ShownCertificate};
use crate::config::CertFiles;

/// The time between two looks at the files. A look is two calls of the system.
const LOOK: Duration = Duration::from_secs(30);
/// The time between two warnings of the same certificate.
const WARN: Duration = Duration::from_secs(24 * 60 * 60);

/// The task, with what it needs.
pub(crate) struct Renewal {
    pub(crate) shown: Arc<ShownCertificate>,
    pub(crate) metrics: CertificateMetrics,
    /// Changes with each SIGHUP. `None` where the program does not pass them on.
    pub(crate) hangups: Option<watch::Receiver<u64>>,
    /// The time in seconds since 1970.
    pub(crate) now: fn() -> i64,
}

/// What tells one state of a file from another.
type Stamp = [Option<(u64, u64, u64, i64, i64, i64, i64)>; 2];

impl Renewal {
    /// Runs until it is cancelled.
    pub(crate) async fn run(mut self) {
        let Some(files) = self.shown.files().cloned() else {
            // So that SIGHUP is answered as by a program that reads nothing again.
            self.hangups = None;
            return self.warn_daily().await;
        };
        let start = Instant::now();
        let (mut look, mut daily) = (interval_at(start + LOOK, LOOK), interval_at(start + WARN, WARN));
        let mut read = stamp(files.clone()).await;
        let mut seen = read;
        loop {
            tokio::select! {
                () = hangup(&mut self.hangups) => {
                    read = stamp(files.clone()).await;
                    seen = read;
                    self.reload(true).await;
                }
                _ = look.tick() => {
                    let now = stamp(files.clone()).await;
                    let settled = now == seen;
                    seen = now;
                    if settled && now != read {
                        read = now;
                        self.reload(false).await;
                    }
                }
                _ = daily.tick() => self.warn(),
            }
        }
    }

    async fn warn_daily(&self) {
        let mut daily = interval_at(Instant::now() + WARN, WARN);
        loop {
            daily.tick().await;
            self.warn();
        }
    }

    fn warn(&self) {
        for warning in self.shown.warnings((self.now)()) {
            warn!("{warning}");
        }
    }

    /// Reads the files again. `asked`: the operator waits for an answer.
    async fn reload(&self, asked: bool) {
        let (shown, now) = (self.shown.clone(), (self.now)());
        let reading = spawn_blocking(move || {
            let mut said = Vec::new();
            (shown.reload(now, &mut said), said)
        });
        // Cancelled only when the process is about to end.
        let Ok((outcome, mut said)) = reading.await else { return };
        self.metrics.reloaded(outcome);
        let refusal = if outcome == ReloadOutcome::Refused { said.pop() } else { None };
        for warning in said {
            warn!("{warning}");
        }
        match (outcome, refusal) {
            (ReloadOutcome::Replaced, _) => {
                info!("the certificate has been replaced; new connections see the new one");
            }
            (ReloadOutcome::Unchanged, _) if asked => {
                info!("the files of the certificate hold the one that is shown");
            }
            (ReloadOutcome::Unchanged, _) => {}
            (ReloadOutcome::Refused, reason) => error!(
                "the certificate has not been replaced, and clients still see the old one: {}",
                reason.unwrap_or_default()
            ),
        }
    }
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

/// The state of the two files. A link counts as the file that it leads to.
async fn stamp(CertFiles { cert, key }: CertFiles) -> Stamp {
    let stamps = spawn_blocking(move || {
        [cert, key].map(|path| {
            let file = fs::metadata(path).ok()?;
            Some((
                file.dev(),
                file.ino(),
                file.size(),
                file.mtime(),
                file.mtime_nsec(),
                file.ctime(),
                file.ctime_nsec(),
            ))
        })
    });
    stamps.await.unwrap_or_default()
}
