//! The certificate as the relay reads it again, and the task that warns of its end.
//!
//! An ACME client replaces the files every few weeks, and few tell the programs that read them. So the relay reads them again
//! by itself ([`crate::reload`]).

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, interval_at};
use tracing::{error, info, warn};

use super::shown::ShownCertificate;
use crate::config::CertFiles;
use crate::reload::{ReloadOutcome, Subject, What};

/// The time between two warnings of the same certificate.
const WARN: Duration = Duration::from_secs(24 * 60 * 60);

/// The certificate that the relay shows, as it changes with its files and with time.
#[derive(Clone, Debug)]
pub(crate) struct Renewal {
    pub(crate) shown: Arc<ShownCertificate>,
    /// The time in seconds since 1970.
    pub(crate) now: fn() -> i64,
}

impl Renewal {
    /// Logs once a day what clients do not like about the certificate. Runs until it is cancelled.
    pub(crate) async fn warn_daily(self) {
        let mut daily = interval_at(Instant::now() + WARN, WARN);
        loop {
            daily.tick().await;
            for warning in self.shown.warnings((self.now)()) {
                warn!("{warning}");
            }
        }
    }
}

impl Subject for Renewal {
    fn what(&self) -> What {
        What::Certificate
    }

    fn files(&self) -> Vec<PathBuf> {
        let files = self.shown.files();
        files.map(|CertFiles { cert, key }| vec![cert.clone(), key.clone()]).unwrap_or_default()
    }

    fn reload(&self, asked: bool) -> ReloadOutcome {
        let mut said = Vec::new();
        let outcome = self.shown.reload((self.now)(), &mut said);
        if outcome == ReloadOutcome::Unchanged && !asked {
            // What clients do not like about it has been told.
            return outcome;
        }
        let refusal = if outcome == ReloadOutcome::Refused { said.pop() } else { None };
        for warning in said {
            warn!("{warning}");
        }
        match (outcome, refusal) {
            (ReloadOutcome::Replaced, _) => {
                info!("the certificate has been replaced; new connections see the new one");
            }
            (ReloadOutcome::Unchanged, _) if self.shown.files().is_some() => {
                info!("the files of the certificate hold the one that is shown");
            }
            (ReloadOutcome::Unchanged, _) => {}
            (ReloadOutcome::Refused, reason) => error!(
                "the certificate has not been replaced, and clients still see the old one: {}",
                reason.unwrap_or_default()
            ),
        }
        outcome
    }
}
