//! The task that asks the policies again about keys that are connected, and closes those that they no longer allow.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval};
use towpath_relay_forward::DataPlane;
use towpath_relay_proto::admission::admitted::{ARRIVAL, Due, Standing};
use towpath_relay_proto::admission::policies::Verdict;
use towpath_relay_proto::admission::{Answer, NotAdmitted};
use towpath_relay_proto::session::Close;
use towpath_wire::key::NodePublic;
use towpath_wire::sync::lock;
use tracing::info;

use super::state::Record;
use super::{Engine, Question, REFUSAL_HOLDS};
use crate::control::RefusalReason;

/// Keys about which the policies are asked at once. Half of what a backend takes at once is left to logins.
const AT_ONCE: usize = 32;
/// How often the keys that are due are looked at.
const LOOK: Duration = Duration::from_secs(1);

/// The keys that were revoked within [`ARRIVAL`], each with the moment.
type Revoked = VecDeque<(NodePublic, Instant)>;

/// The connections of keys, as far as admission acts on them.
pub(crate) trait Connections: Send + Sync {
    /// Whether a key is connected.
    fn has(&self, key: &NodePublic) -> bool;
    /// Closes the connections of a key.
    fn revoke(&self, key: &NodePublic);
}

impl Connections for DataPlane {
    fn has(&self, key: &NodePublic) -> bool {
        Self::has(self, &(*key).into())
    }

    fn revoke(&self, key: &NodePublic) {
        self.close(&(*key).into(), Close::Revoked);
    }
}

impl Engine {
    /// Asks again about the keys that are due, until it is cancelled.
    pub(crate) async fn keep_confirming(self: Arc<Self>, plane: Arc<dyn Connections>) {
        if self.order.is_open() {
            return;
        }
        let mut looks = interval(LOOK);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut asked: JoinSet<(Due, Verdict)> = JoinSet::new();
        let mut revoked = Revoked::default();
        loop {
            while asked.len() < AT_ONCE {
                let due = lock(&self.keys).take_due(self.clock.seconds(), AT_ONCE - asked.len());
                if due.is_empty() {
                    break;
                }
                for due in due {
                    if plane.has(&due.key) {
                        let (engine, question) =
                            (self.clone(), Question { key: due.key, source: due.source, token: None });
                        asked.spawn(async move { (due, engine.ask_again(question).await) });
                    } else {
                        lock(&self.keys).rest(&due.key, self.clock.seconds());
                    }
                }
            }
            tokio::select! {
                _ = looks.tick() => self.close_revoked(&mut revoked, &*plane),
                Some(answered) = asked.join_next() => {
                    // Cancelled only when the process is about to end.
                    if let Ok((due, verdict)) = answered
                        && !self.judge(&due, verdict)
                    {
                        revoked.push_back((due.key, Instant::now()));
                    }
                }
            }
        }
    }

    /// Asks the policies about a key that is connected. One that panics cannot tell, so that its key is asked about again.
    async fn ask_again(self: Arc<Self>, question: Question) -> Verdict {
        let engine = self.clone();
        let asked = tokio::spawn(async move { engine.ask(question, true).await.verdict }).await;
        asked.unwrap_or_else(|_panicked| {
            let mut verdict = Verdict::default();
            self.order.order.iter().for_each(|&policy| _ = verdict.note(policy, Answer::CannotTell));
            verdict
        })
    }

    /// Closes the connections of revoked keys, also those that begin a little later, because their login was admitted before.
    fn close_revoked(&self, revoked: &mut Revoked, plane: &dyn Connections) {
        while revoked.pop_front_if(|(_, at)| at.elapsed() > Duration::from_secs(ARRIVAL)).is_some() {}
        for (key, _) in revoked {
            if plane.has(key) && !lock(&self.keys).contains(key) {
                plane.revoke(key);
            }
        }
    }

    /// Takes what the policies have said of a key that is connected. Returns whether the key works on.
    fn judge(&self, due: &Due, verdict: Verdict) -> bool {
        let why = match verdict.decide() {
            Ok(policy) => {
                self.metrics.confirmed(Answer::Allow);
                self.confirm(due.key, policy, None);
                return true;
            }
            Err(NotAdmitted::CannotTell) => {
                self.metrics.confirmed(Answer::CannotTell);
                match lock(&self.keys).cannot_tell(&due.key, self.clock.seconds()) {
                    Standing::Works => return true,
                    Standing::Expired => "its policy could not tell for confirm.grace",
                }
            }
            Err(NotAdmitted::Refused) => {
                self.metrics.confirmed(Answer::Refuse);
                lock(&self.keys).remove(&due.key);
                "no policy admits it any more"
            }
        };
        info!(peer = ?due.key, policy = due.policy.label(), "closing the connections of a key: {why}");
        self.metrics.revoked.inc();
        self.metrics.set_known(lock(&self.keys).len());
        // A policy with a backend may have allowed the key before the one that has now.
        self.saver.save(Record { key: due.key, policy: None, confirmed: self.clock.seconds() });
        if let Some(source) = due.source {
            self.note_refusal(due.key, source, RefusalReason::NotAdmitted, REFUSAL_HOLDS, false);
        }
        false
    }
}
