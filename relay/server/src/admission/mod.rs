//! Admission on the control plane: the policies of the configuration, what they have decided, and the task that asks again.
//!
//! | what | file |
//! |---|---|
//! | a login: what is known of the key, then the policies in their order | `mod.rs` |
//! | connected keys are asked about again, and revoked ones closed | `confirm.rs` |
//! | the policies, each with its source | `allow_list.rs`, read again by `reload.rs`; `tokens.rs`; `backend/` |
//! | what is kept over restarts | `state.rs`, `saver.rs` |
//!
//! What follows from an answer is pure, see `towpath_relay_proto::admission`.

mod allow_list;
pub(crate) mod backend;
mod confirm;
mod metrics;
mod reload;
mod saver;
mod state;
mod tokens;

use std::future::Future;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Mutex;
use std::time::Duration;

use tokio::time::{Instant, timeout};
use towpath_relay_proto::admission::admitted::{AdmittedKeys, ConfirmRules};
use towpath_relay_proto::admission::policies::{PolicyOrder, Verdict};
use towpath_relay_proto::admission::refused::{LastRefusal, RefusedKeys};
use towpath_relay_proto::admission::{Answer, NotAdmitted, PolicyName};
use towpath_relay_proto::token::{TokenError, TokenKeys};
use towpath_wire::derp::info::Introduction;
use towpath_wire::key::NodePublic;
use towpath_wire::sync::lock;

pub use allow_list::AllowListError;
pub(crate) use allow_list::{AllowList, AllowedKeys};
pub use backend::VerifySetupError;
pub(crate) use metrics::AdmissionMetrics;
pub(crate) use reload::subjects;
pub(crate) use saver::Saver;
pub(crate) use tokens::Tokens;
pub use tokens::{TokenFileError, read_token_keys};

use self::backend::{BackendMetrics, Tailscaled, VerifySetup, VerifyUrl};
use crate::config::{AdmissionSettings, TailscaledSettings};
use crate::control::RefusalReason;
use crate::unix_time::unix_now;

/// How long all policies together may take. Those that have not answered then cannot tell.
const ASK_TIMEOUT: Duration = Duration::from_secs(5);
/// Keys that are remembered at most, some 120 bytes of memory each.
const MOST_KEYS: usize = 1 << 18;
/// How long a refusal holds for the same key from the same host.
const REFUSAL_HOLDS: Duration = Duration::from_secs(5);
/// How long it holds where a policy could not tell, which may end at any moment.
const UNKNOWN_HOLDS: Duration = Duration::from_secs(1);

/// What a policy is asked.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Question {
    pub(crate) key: NodePublic,
    /// The address that the client has; `None` for a key that was known before this run and is not connected.
    pub(crate) source: Option<IpAddr>,
    /// What was found of the token in its login; `None` if it logs in at another moment.
    pub(crate) token: Option<Result<(), TokenError>>,
}

/// A policy that asks something outside of the relay.
pub(crate) trait Backend: Send + Sync {
    /// Asks about a key.
    fn ask(&self, question: Question) -> Pin<Box<dyn Future<Output = Answer> + Send + '_>>;
}

/// The policies of a relay, each with what it decides by.
#[derive(Default)]
pub(crate) struct Policies {
    pub(crate) allow_list: Option<AllowList>,
    pub(crate) tokens: Option<Tokens>,
    /// The backend of `verify.url`, until it is among the backends.
    pub(crate) verify: Option<VerifySetup>,
    pub(crate) backends: Vec<(PolicyName, Box<dyn Backend>)>,
}

impl Policies {
    /// Makes the backends that the configuration names. Each connects when it is first asked.
    pub(crate) fn add_backends(&mut self, tailscaled: Option<&TailscaledSettings>, metrics: &BackendMetrics) {
        if let Some(settings) = tailscaled {
            self.backends.push((PolicyName::Tailscaled, Box::new(Tailscaled::new(settings, metrics))));
        }
        if let Some(setup) = self.verify.take() {
            self.backends.push((PolicyName::VerifyUrl, Box::new(VerifyUrl::new(setup, metrics))));
        }
    }
}

/// Why a login is not admitted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Rejection {
    /// The policies have been asked.
    Asked(NotAdmitted),
    /// The policies refuse, and this is what is wrong with the token.
    Token(TokenError),
    /// The host has brought many keys that were refused, and this one is not known.
    Rate,
}

/// What the policies have said of a login.
#[derive(Clone, Copy, Debug, Default)]
struct Asked {
    verdict: Verdict,
    /// A backend was asked.
    backends: bool,
    /// A backend would have been asked, and was not.
    skipped: bool,
}

/// Admission as logins and the looking-in see it.
pub(crate) struct Engine {
    order: PolicyOrder,
    policies: Policies,
    admit_unknown: bool,
    clock: Clock,
    keys: Mutex<AdmittedKeys>,
    refused: Mutex<RefusedKeys<RefusalReason>>,
    saver: Saver,
    pub(crate) metrics: AdmissionMetrics,
}

/// A clock in seconds since 1970 that never goes back while the relay runs.
#[derive(Clone, Copy, Debug)]
struct Clock {
    start: Instant,
    unix_start: u64,
}

impl Clock {
    fn start() -> Self {
        Self { start: Instant::now(), unix_start: u64::try_from(unix_now()).unwrap_or_default() }
    }

    fn seconds(&self) -> u64 {
        self.unix_start + self.start.elapsed().as_secs()
    }

    /// The seconds since 1970 by which tokens expire. A system clock that is set right after the start counts, one that goes back
    /// does not.
    fn unix(&self) -> i64 {
        i64::try_from(self.seconds()).unwrap_or(i64::MAX).max(unix_now())
    }

    fn elapsed(&self) -> Duration {
        self.start.elapsed()
    }
}

impl Engine {
    /// Sets admission up, with what was kept of an earlier run.
    pub(crate) fn new(settings: &AdmissionSettings, policies: Policies, metrics: AdmissionMetrics) -> Self {
        let (clock, confirm) = (Clock::start(), &settings.confirm);
        let rules = ConfirmRules {
            interval: confirm.interval.as_secs(),
            grace: confirm.grace.as_secs(),
            most: MOST_KEYS,
            admit_unknown: confirm.admit_unknown,
        };
        let mut keys = AdmittedKeys::new(rules);
        let (order, now) = (settings.order.clone(), clock.seconds());
        // Nothing is kept of keys for which no backend answers: their policies can always tell.
        let folder = order
            .order
            .iter()
            .any(|&policy| order.has_backend(policy))
            .then_some(settings.state_dir.as_deref());
        let saver = Saver::open(folder.flatten(), &metrics, |record| match record.policy {
            Some(policy) if order.has_backend(policy) && order.order.contains(&policy) => {
                keys.restore(record.key, policy, record.confirmed, now);
            }
            _ => _ = keys.remove(&record.key),
        });
        metrics.set_known(keys.len());
        metrics.allow_list.set(policies.allow_list.as_ref().map_or(0, |list| list.len() as i64));
        Self {
            order,
            policies,
            admit_unknown: confirm.admit_unknown,
            clock,
            keys: Mutex::new(keys),
            refused: Mutex::default(),
            saver,
            metrics,
        }
    }

    /// Whether `key` was refused a moment ago from the host at `source`. The key need not be proved: a host that states the key of
    /// another client is refused as well.
    pub(crate) fn refused_before(&self, key: &NodePublic, source: IpAddr) -> bool {
        !self.order.is_open() && lock(&self.refused).refuses_again(key, source, self.clock.elapsed())
    }

    /// Remembers why a key was refused. `holds`: from the same host it is refused again without asking, for a moment.
    pub(crate) fn note_refusal(
        &self,
        key: NodePublic,
        source: IpAddr,
        reason: RefusalReason,
        holds: Duration,
        asked: bool,
    ) {
        lock(&self.refused).note(key, source, reason, holds, asked, self.clock.elapsed());
    }

    /// The last refusal of a key, and how long ago it was.
    pub(crate) fn last_refusal(&self, key: &NodePublic) -> Option<(LastRefusal<RefusalReason>, Duration)> {
        let last = lock(&self.refused).last(key)?;
        Some((last, self.clock.elapsed().saturating_sub(last.at)))
    }

    /// Judges the token in a login at the relay with the key `relay`; `None` unless tokens are asked for.
    pub(crate) fn judge_token(
        &self,
        introduction: &Introduction,
        relay: &NodePublic,
    ) -> Option<Result<(), TokenError>> {
        Some(self.policies.tokens.as_ref()?.answer(introduction, relay, self.clock.unix()))
    }

    /// Decides on the login of a key that has been proved, from the address `source`, with what was found of its token.
    pub(crate) async fn admit(
        &self,
        key: NodePublic,
        source: IpAddr,
        token: Option<Result<(), TokenError>>,
    ) -> Result<PolicyName, Rejection> {
        if self.order.is_open() {
            return Ok(PolicyName::Open);
        }
        let question = Question { key, source: Some(source), token };
        if let Some(policy) = self.known(question, source) {
            return Ok(policy);
        }
        let may_ask = lock(&self.refused).may_ask(source, self.clock.elapsed());
        let Asked { verdict, backends, skipped } = self.ask(question, may_ask).await;
        match (verdict.decide(), verdict.cannot_tell()) {
            (Err(_), _) if skipped => {
                self.note_refusal(key, source, RefusalReason::RefusalRate, UNKNOWN_HOLDS, false);
                Err(Rejection::Rate)
            }
            (Ok(policy), _) => {
                self.confirm(key, policy, Some(source));
                Ok(policy)
            }
            (Err(NotAdmitted::CannotTell), Some(policy)) if self.admit_unknown => {
                lock(&self.keys).admit_unconfirmed(key, policy, source, self.clock.seconds());
                Ok(policy)
            }
            (Err(why), _) => {
                let (rejection, reason, holds) = match (why, self.fault_of(question)) {
                    (NotAdmitted::Refused, Some(fault)) => {
                        (Rejection::Token(fault), RefusalReason::of_token(fault), REFUSAL_HOLDS)
                    }
                    (NotAdmitted::Refused, None) => {
                        (Rejection::Asked(why), RefusalReason::NotAdmitted, REFUSAL_HOLDS)
                    }
                    (NotAdmitted::CannotTell, _) => {
                        (Rejection::Asked(why), RefusalReason::AdmissionUnknown, UNKNOWN_HOLDS)
                    }
                };
                let is_charged = backends && why == NotAdmitted::Refused;
                self.note_refusal(key, source, reason, holds, is_charged);
                Err(rejection)
            }
        }
    }

    /// What is wrong with the token of a login that is refused, if that is what the client should hear of. A client without a token
    /// is told so only where nothing else could have admitted it.
    fn fault_of(&self, question: Question) -> Option<TokenError> {
        let fault = question.token?.err()?;
        let needs_token = match self.order.order[..] {
            [PolicyName::Tokens] => true,
            [PolicyName::Require] => self.order.asks(PolicyName::Tokens),
            _ => false,
        };
        (fault != TokenError::Missing || needs_token).then_some(fault)
    }

    /// The policy by which a key works without being asked about. What can be decided here and now is decided anew.
    fn known(&self, question: Question, source: IpAddr) -> Option<PolicyName> {
        let policy = lock(&self.keys).return_of(&question.key, source, self.clock.seconds())?;
        let holds =
            match policy {
                PolicyName::Require => self.order.require.iter().all(|&inner| {
                    self.answer_here(inner, question).is_none_or(|answer| answer == Answer::Allow)
                }),
                _ => true,
            };
        (self.order.has_backend(policy) && holds).then_some(policy)
    }

    /// Notes that a policy has allowed a key.
    fn confirm(&self, key: NodePublic, policy: PolicyName, source: Option<IpAddr>) {
        let now = self.clock.seconds();
        let mut keys = lock(&self.keys);
        let is_news = keys.confirm(key, policy, source, now);
        self.metrics.set_known(keys.len());
        drop(keys);
        if is_news && self.order.has_backend(policy) {
            self.saver.save(state::Record { key, policy: Some(policy), confirmed: now });
        }
        lock(&self.refused).admitted(&key);
    }

    /// Asks the policies in their order, until one allows. Unless `may_ask`, those with a backend are passed over.
    async fn ask(&self, question: Question, may_ask: bool) -> Asked {
        let mut asked = Asked::default();
        let deadline = Instant::now() + ASK_TIMEOUT;
        for &policy in &self.order.order {
            let here = match policy {
                PolicyName::Require => self.refuse_here(question),
                _ => self.answer_here(policy, question),
            };
            let answer = match here {
                Some(answer) => answer,
                None if !may_ask => {
                    asked.skipped = true;
                    continue;
                }
                None => {
                    asked.backends = true;
                    match policy {
                        PolicyName::Require => self.ask_all(question, deadline).await,
                        _ => self.ask_one(policy, question, deadline).await,
                    }
                }
            };
            if !asked.verdict.note(policy, answer) {
                break;
            }
        }
        asked
    }

    /// The answer of `require` if its backends need not be asked: one of its other policies refuses, or it has no backend.
    fn refuse_here(&self, question: Question) -> Option<Answer> {
        let here = self.order.require.iter().filter_map(|&policy| self.answer_here(policy, question));
        let answer = here.fold(Answer::Allow, Answer::and);
        (answer == Answer::Refuse || !self.order.has_backend(PolicyName::Require)).then_some(answer)
    }

    /// Asks the backends of `require`, whose other policies have allowed. Those must still allow when the last backend has answered.
    async fn ask_all(&self, question: Question, deadline: Instant) -> Answer {
        let mut answer = Answer::Allow;
        for &policy in &self.order.require {
            if answer != Answer::Refuse && self.answer_here(policy, question).is_none() {
                answer = answer.and(self.ask_one(policy, question, deadline).await);
            }
        }
        answer.and(self.refuse_here(question).unwrap_or(Answer::Allow))
    }

    async fn ask_one(&self, policy: PolicyName, question: Question, deadline: Instant) -> Answer {
        let backend = self.policies.backends.iter().find(|(name, _)| *name == policy);
        let Some((_, backend)) = backend else { return Answer::CannotTell };
        let left = deadline.saturating_duration_since(Instant::now());
        timeout(left, backend.ask(question)).await.unwrap_or(Answer::CannotTell)
    }

    /// The answer of a policy that needs nothing from outside.
    fn answer_here(&self, policy: PolicyName, Question { key, token, .. }: Question) -> Option<Answer> {
        match policy {
            PolicyName::AllowList => {
                let is_in = self.policies.allow_list.as_ref().is_some_and(|list| list.contains(&key));
                Some(if is_in { Answer::Allow } else { Answer::Refuse })
            }
            PolicyName::Tokens => {
                let again = |tokens: &Tokens| tokens.answer_again(&key, self.clock.unix());
                let is_good = token.or_else(|| self.policies.tokens.as_ref().map(again));
                Some(if is_good == Some(Ok(())) { Answer::Allow } else { Answer::Refuse })
            }
            _ => None,
        }
    }

    /// Takes another allow list. Clients that are no longer in it are asked about at once.
    pub(crate) fn replace_allow_list(&self, list: AllowedKeys) -> bool {
        let Some(allow_list) = &self.policies.allow_list else { return false };
        self.metrics.allow_list.set(list.len() as i64);
        let changed = allow_list.replace(list);
        if changed {
            let now = self.clock.seconds();
            lock(&self.keys).hurry(now, |key, policy| {
                matches!(policy, PolicyName::AllowList | PolicyName::Require) && !allow_list.contains(key)
            });
            lock(&self.refused).release();
        }
        changed
    }

    /// Accepts tokens of these keys from now on. Clients that other tokens have admitted are asked about at once.
    pub(crate) fn replace_token_keys(&self, keys: TokenKeys) -> bool {
        let Some(tokens) = &self.policies.tokens else { return false };
        let changed = tokens.replace(keys);
        if changed {
            let (now, unix) = (self.clock.seconds(), self.clock.unix());
            lock(&self.keys).hurry(now, |key, policy| {
                matches!(policy, PolicyName::Tokens | PolicyName::Require)
                    && tokens.answer_again(key, unix).is_err()
            });
            lock(&self.refused).release();
        }
        changed
    }
}

impl std::fmt::Debug for Policies {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Policies").field("allow_list", &self.allow_list).finish_non_exhaustive()
    }
}

impl std::fmt::Debug for Engine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Engine").field("order", &self.order).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
