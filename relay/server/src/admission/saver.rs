//! The saver: what the admitted keys are to their file.
//!
//! Logins hand their records over and never wait for the disk. Where the disk is full or slow, the keys in memory are the
//! truth: the file is written anew from them as soon as that works.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::spawn_blocking;
use tokio::time::sleep;
use towpath_service::ErrorChain;
use towpath_service::repeated::Repeated;
use towpath_wire::sync::lock;
use tracing::{info, warn};

use super::Engine;
use super::metrics::AdmissionMetrics;
use super::state::{Record, StateError, StateFile};

/// Records that wait for the disk. Beyond that the file is written anew.
const WAITING: usize = 1 << 16;
/// The time between two attempts to write the file anew.
const AGAIN: Duration = Duration::from_secs(10);

/// The way of the admitted keys to their file.
#[derive(Debug)]
pub(crate) struct Saver {
    records: mpsc::Sender<Record>,
    waiting: Mutex<Option<mpsc::Receiver<Record>>>,
    /// `None` where nothing is kept.
    file: Option<Arc<Mutex<StateFile>>>,
    /// A record was dropped.
    overflowed: AtomicBool,
}

impl Saver {
    /// Reads what `folder` has kept into `each`. Without a folder nothing is kept.
    pub(super) fn open(folder: Option<&Path>, metrics: &AdmissionMetrics, each: impl FnMut(Record)) -> Self {
        let (records, waiting) = mpsc::channel(WAITING);
        let file = folder.and_then(|folder| match StateFile::open(folder, each) {
            Ok((file, wrong)) => {
                if wrong > 0 {
                    warn!(
                        lines = wrong,
                        "lines of the known keys in state_dir cannot be read and are dropped"
                    );
                }
                Some(Arc::new(Mutex::new(file)))
            }
            Err(error) => {
                metrics.state_errors.inc();
                warn!("the known keys are not kept, because {}", ErrorChain(&error));
                None
            }
        });
        let overflowed = AtomicBool::new(false);
        Self { records, waiting: Mutex::new(Some(waiting)), file, overflowed }
    }

    /// Hands a record over.
    pub(super) fn save(&self, record: Record) {
        if self.file.is_some() && self.records.try_send(record).is_err() {
            self.overflowed.store(true, Ordering::Relaxed);
        }
    }
}

impl Engine {
    /// Writes records to the file, until it is cancelled.
    pub(crate) async fn keep_saving(self: Arc<Self>) {
        let (Some(file), Some(mut waiting)) = (self.saver.file.clone(), lock(&self.saver.waiting).take())
        else {
            return;
        };
        let (mut records, mut failures) = (Vec::new(), Repeated::default());
        loop {
            let saved = if self.is_worn(&file) {
                // What waits is in memory already, and comes with it.
                while waiting.try_recv().is_ok() {}
                self.rewrite(&file).await
            } else {
                self.append(&file, std::mem::take(&mut records)).await
            };
            match saved {
                Ok(()) => {
                    if failures.clear() > 0 {
                        info!("the known keys are written to state_dir again");
                    }
                    records.clear();
                    if waiting.recv_many(&mut records, WAITING).await == 0 {
                        return;
                    }
                }
                Err(error) => {
                    self.metrics.state_errors.inc();
                    if let Some(times) = failures.note() {
                        warn!(
                            times,
                            "the known keys are not written, so that a restart would forget the newest: {}; make room, or \
                             make state_dir writable for the relay",
                            ErrorChain(&error)
                        );
                    }
                    sleep(AGAIN).await;
                }
            }
        }
    }

    /// Writes everything, at the end of the relay.
    pub(crate) fn save_all(&self) {
        let Some(file) = &self.saver.file else { return };
        if let Err(error) = lock(file).rewrite(&self.records()) {
            self.metrics.state_errors.inc();
            warn!("the known keys were not written at the end: {}", ErrorChain(&error));
        }
    }

    fn is_worn(&self, file: &Mutex<StateFile>) -> bool {
        let keys = lock(&self.keys).len();
        self.saver.overflowed.swap(false, Ordering::Relaxed) || lock(file).is_worn(keys)
    }

    pub(super) fn records(&self) -> Vec<Record> {
        let keys = lock(&self.keys);
        let kept = keys.confirmed().filter(|(_, policy, _)| self.order.has_backend(*policy));
        kept.map(|(key, policy, confirmed)| Record { key: *key, policy: Some(policy), confirmed }).collect()
    }

    async fn rewrite(&self, file: &Arc<Mutex<StateFile>>) -> Result<(), StateError> {
        let (file, records) = (file.clone(), self.records());
        join(spawn_blocking(move || lock(&file).rewrite(&records)).await)
    }

    async fn append(&self, file: &Arc<Mutex<StateFile>>, records: Vec<Record>) -> Result<(), StateError> {
        let file = file.clone();
        join(spawn_blocking(move || lock(&file).append(&records)).await)
    }
}

fn join(joined: Result<Result<(), StateError>, tokio::task::JoinError>) -> Result<(), StateError> {
    // Cancelled only when the process is about to end.
    joined.unwrap_or(Ok(()))
}
