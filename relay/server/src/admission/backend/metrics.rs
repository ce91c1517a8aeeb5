//! The metrics of the backends of admission.

use prometheus::{
    Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry,
};
use tokio::time::Instant;
use towpath_relay_proto::admission::PolicyName;

use super::failure::BackendFailure;

/// The outcomes that are answers, and their meanings.
pub(crate) const ANSWERS: [(&str, &str); 2] =
    [(ALLOW, "The backend allowed the key."), (REFUSE, "The backend refused the key.")];

const ALLOW: &str = "allow";
const REFUSE: &str = "refuse";

/// The policies that ask a backend.
const POLICIES: [&str; 2] = [PolicyName::Tailscaled.label(), PolicyName::VerifyUrl.label()];

/// Bounds of the classes of time, in seconds, up to the longest deadline.
const SECONDS: [f64; 10] = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.1, 0.25, 1.0, 2.5, 10.0];

/// The metrics of all backends.
#[derive(Clone, Debug)]
pub(crate) struct BackendMetrics {
    outcomes: IntCounterVec,
    coalesced: IntCounterVec,
    in_flight: IntGaugeVec,
    seconds: HistogramVec,
}

impl BackendMetrics {
    pub(crate) fn register(registry: &Registry) -> prometheus::Result<Self> {
        let metrics = Self {
            outcomes: IntCounterVec::new(
                Opts::new(
                    "towpath_admission_questions_total",
                    "Questions to the backends of admission, by policy and by what came of them",
                ),
                &["policy", "outcome"],
            )?,
            coalesced: IntCounterVec::new(
                Opts::new(
                    "towpath_admission_questions_shared_total",
                    "Times that a question about the same key was on its way already, and its answer was shared",
                ),
                &["policy"],
            )?,
            in_flight: IntGaugeVec::new(
                Opts::new(
                    "towpath_admission_requests_in_flight",
                    "Requests that a backend of admission has not answered yet, at most 64",
                ),
                &["policy"],
            )?,
            seconds: HistogramVec::new(
                HistogramOpts::new(
                    "towpath_admission_request_seconds",
                    "Time from a request to a backend of admission to its answer or failure",
                )
                .buckets(SECONDS.into()),
                &["policy"],
            )?,
        };
        for policy in POLICIES {
            for outcome in ANSWERS
                .map(|(outcome, _)| outcome)
                .into_iter()
                .chain(BackendFailure::ALL.map(BackendFailure::label))
            {
                metrics.outcomes.with_label_values(&[policy, outcome]);
            }
            metrics.coalesced.with_label_values(&[policy]);
            metrics.in_flight.with_label_values(&[policy]);
            metrics.seconds.with_label_values(&[policy]);
        }
        registry.register(Box::new(metrics.outcomes.clone()))?;
        registry.register(Box::new(metrics.coalesced.clone()))?;
        registry.register(Box::new(metrics.in_flight.clone()))?;
        registry.register(Box::new(metrics.seconds.clone()))?;
        Ok(metrics)
    }

    /// The metrics of the backend of one policy.
    pub(super) fn of(&self, policy: &'static str) -> PolicyMetrics {
        PolicyMetrics {
            policy,
            outcomes: self.outcomes.clone(),
            coalesced: self.coalesced.with_label_values(&[policy]),
            in_flight: self.in_flight.with_label_values(&[policy]),
            seconds: self.seconds.with_label_values(&[policy]),
        }
    }
}

/// The metrics of one backend.
#[derive(Debug)]
pub(super) struct PolicyMetrics {
    policy: &'static str,
    outcomes: IntCounterVec,
    coalesced: IntCounter,
    in_flight: IntGauge,
    seconds: Histogram,
}

impl PolicyMetrics {
    /// Counts a request until what it returns is dropped.
    pub(super) fn begin(&self) -> InFlight<'_> {
        self.in_flight.inc();
        InFlight { metrics: self, begun: Instant::now() }
    }

    pub(super) fn answered(&self, may: bool) {
        self.came_to(if may { ALLOW } else { REFUSE });
    }

    pub(super) fn failed(&self, failure: BackendFailure) {
        self.came_to(failure.label());
    }

    pub(super) fn coalesced(&self) {
        self.coalesced.inc();
    }

    fn came_to(&self, outcome: &str) {
        self.outcomes.with_label_values(&[self.policy, outcome]).inc();
    }
}

/// A request that is on its way.
pub(super) struct InFlight<'a> {
    metrics: &'a PolicyMetrics,
    begun: Instant,
}

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        self.metrics.in_flight.dec();
        self.metrics.seconds.observe(self.begun.elapsed().as_secs_f64());
    }
}
