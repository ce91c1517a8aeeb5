//! The desk of a backend: what it is asked at once, how long each question may take, and what a dead backend costs.
//!
//! A key is asked for once at a time, and whatever else wants to know of it shares the answer. At most [`IN_FLIGHT`] requests
//! are on their way, at most [`WAITING`] questions are there in all, and each has its deadline from the moment at which it
//! came. A question goes on when what asked it has gone, because others may share it and its answer is worth having.

use std::collections::HashMap;
use std::future::Future;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::{Semaphore, watch};
use tokio::time::{Instant, timeout_at};
use towpath_wire::key::NodePublic;
use towpath_wire::sync::lock;

use super::circuit::Circuit;
use super::failure::{AskError, BackendFailure, Step};
use super::metrics::PolicyMetrics;
use super::notices::Notices;
use super::{Question, Told};

/// Requests that are on their way at once.
pub(super) const IN_FLIGHT: usize = 64;
/// Questions that are there at once, those on their way included.
pub(super) const WAITING: usize = 16 * 1024;

/// How a program is asked about a key.
pub(super) trait Ask: Send + Sync + 'static {
    /// Asks whether the client may use the relay. Notes in `step` how far the question is.
    fn ask(
        &self,
        question: Question,
        deadline: Instant,
        step: &mut Step,
    ) -> impl Future<Output = Result<bool, AskError>> + Send;
}

/// The desk of one backend.
#[derive(Debug)]
pub(super) struct Desk<B>(Arc<Shared<B>>);

#[derive(Debug)]
struct Shared<B> {
    backend: B,
    limit: Duration,
    /// The questions that are there, by key. Their answers come once.
    asked: Mutex<HashMap<NodePublic, watch::Receiver<Option<Told>>>>,
    slots: Semaphore,
    circuit: Mutex<Circuit>,
    notices: Mutex<Notices>,
    metrics: PolicyMetrics,
}

impl<B: Ask> Desk<B> {
    /// A desk whose questions may take `limit` each.
    pub(super) fn new(backend: B, limit: Duration, notices: Notices, metrics: PolicyMetrics) -> Self {
        Self(Arc::new(Shared {
            backend,
            limit,
            asked: Mutex::default(),
            slots: Semaphore::new(IN_FLIGHT),
            circuit: Mutex::default(),
            notices: Mutex::new(notices),
            metrics,
        }))
    }

    /// Asks the backend, or shares the answer to the same question that is on its way.
    pub(super) async fn ask(&self, question: Question) -> Told {
        let mut answer = match self.find_or_ask(question) {
            Ok(answer) => answer,
            Err(failure) => {
                self.0.metrics.failed(failure);
                return Told::CannotTell(failure);
            }
        };
        // The task that would send it can only have panicked.
        let broken = Told::CannotTell(BackendFailure::Broken);
        answer.wait_for(Option::is_some).await.map_or(broken, |told| told.unwrap_or(broken))
    }

    fn find_or_ask(&self, question: Question) -> Result<watch::Receiver<Option<Told>>, BackendFailure> {
        let shared = &self.0;
        let mut asked = lock(&shared.asked);
        if let Some(answer) = asked.get(&question.key) {
            shared.metrics.coalesced();
            return Ok(answer.clone());
        }
        if lock(&shared.circuit).is_resting(Instant::now()) {
            return Err(BackendFailure::Resting);
        }
        if asked.len() >= WAITING {
            lock(&shared.notices).failed(&AskError::Busy);
            return Err(BackendFailure::Busy);
        }
        let (tell, answer) = watch::channel(None);
        asked.insert(question.key, answer.clone());
        let entry = Entry { shared: shared.clone(), key: question.key };
        tokio::spawn(async move {
            let told = entry.shared.answer(question).await;
            // All that asked may have gone.
            let _ = tell.send(Some(told));
            drop(entry);
        });
        Ok(answer)
    }
}

/// A question among those that are asked. It leaves them when this is dropped, also by a panic.
struct Entry<B> {
    shared: Arc<Shared<B>>,
    key: NodePublic,
}

impl<B> Drop for Entry<B> {
    fn drop(&mut self) {
        lock(&self.shared.asked).remove(&self.key);
    }
}

impl<B: Ask> Shared<B> {
    /// Waits for a slot, and asks.
    async fn answer(&self, question: Question) -> Told {
        let deadline = Instant::now() + self.limit;
        let slot = timeout_at(deadline, self.slots.acquire()).await;
        let now = Instant::now();
        // A slot that becomes free at the deadline is of no use.
        let Some(slot) = slot.ok().and_then(Result::ok).filter(|_| now < deadline) else {
            lock(&self.notices).failed(&AskError::Busy);
            return self.cannot_tell(BackendFailure::Busy);
        };
        // The backend may have begun to rest while the question waited.
        if !lock(&self.circuit).enter(now, deadline) {
            return self.cannot_tell(BackendFailure::Resting);
        }
        let answered = {
            let _in_flight = self.metrics.begin();
            let mut step = Step::Answer;
            // On the heap, so that a question that waits is small.
            let asking = Box::pin(self.backend.ask(question, deadline, &mut step));
            let answered = timeout_at(deadline, asking).await;
            answered.unwrap_or_else(|_elapsed| Err(AskError::Timeout { limit: self.limit, step }))
        };
        drop(slot);
        match answered {
            Ok(may) => {
                lock(&self.circuit).answered();
                lock(&self.notices).answered();
                self.metrics.answered(may);
                if may { Told::Allow } else { Told::Refuse }
            }
            Err(error) => {
                lock(&self.circuit).failed(Instant::now(), random());
                lock(&self.notices).failed(&error);
                self.cannot_tell(error.failure())
            }
        }
    }

    fn cannot_tell(&self, failure: BackendFailure) -> Told {
        self.metrics.failed(failure);
        Told::CannotTell(failure)
    }
}

/// A random byte, or a constant if the system has none: then ends of rests are not spread.
fn random() -> u8 {
    let mut byte = [0];
    getrandom::fill(&mut byte).map_or(u8::MAX, |()| byte[0])
}
