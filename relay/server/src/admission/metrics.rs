//! The metrics of admission.

use prometheus::{IntCounter, IntCounterVec, IntGauge, Opts, Registry};
use towpath_relay_proto::admission::{Answer, PolicyName};

/// The metrics of admission.
#[derive(Clone, Debug)]
pub(crate) struct AdmissionMetrics {
    admitted: IntCounterVec,
    app_names: IntCounterVec,
    confirmations: IntCounterVec,
    known: IntGauge,
    pub(super) allow_list: IntGauge,
    pub(super) revoked: IntCounter,
    pub(super) state_errors: IntCounter,
}

impl AdmissionMetrics {
    pub(crate) fn register(registry: &Registry) -> prometheus::Result<Self> {
        let metrics = Self {
            admitted: IntCounterVec::new(
                Opts::new("towpath_admitted_total", "Logins that were admitted, by policy"),
                &["policy"],
            )?,
            app_names: IntCounterVec::new(
                Opts::new(
                    "towpath_app_name_logins_total",
                    "Logins with an app name that were admitted, by policy",
                ),
                &["policy"],
            )?,
            confirmations: IntCounterVec::new(
                Opts::new(
                    "towpath_confirmations_total",
                    "Keys of connected clients about which the policies were asked again, by answer",
                ),
                &["answer"],
            )?,
            known: IntGauge::new(
                "towpath_known_keys",
                "Keys that policies have allowed and that are remembered",
            )?,
            allow_list: IntGauge::new("towpath_allow_list_keys", "Keys of `allow_list.file`")?,
            revoked: IntCounter::new(
                "towpath_revoked_keys_total",
                "Keys that were admitted and are no longer",
            )?,
            state_errors: IntCounter::new(
                "towpath_state_errors_total",
                "Failures to write the known keys to `state_dir`",
            )?,
        };
        for policy in PolicyName::ALL {
            metrics.admitted.with_label_values(&[policy.label()]);
            metrics.app_names.with_label_values(&[policy.label()]);
        }
        for answer in [Answer::Allow, Answer::Refuse, Answer::CannotTell] {
            metrics.confirmations.with_label_values(&[label(answer)]);
        }
        registry.register(Box::new(metrics.admitted.clone()))?;
        registry.register(Box::new(metrics.app_names.clone()))?;
        registry.register(Box::new(metrics.confirmations.clone()))?;
        registry.register(Box::new(metrics.known.clone()))?;
        registry.register(Box::new(metrics.allow_list.clone()))?;
        registry.register(Box::new(metrics.revoked.clone()))?;
        registry.register(Box::new(metrics.state_errors.clone()))?;
        Ok(metrics)
    }

    /// Counts a login. `has_app_name`: the client states an app name.
    pub(crate) fn admitted(&self, policy: PolicyName, has_app_name: bool) {
        self.admitted.with_label_values(&[policy.label()]).inc();
        if has_app_name {
            self.app_names.with_label_values(&[policy.label()]).inc();
        }
    }

    pub(super) fn set_known(&self, keys: usize) {
        self.known.set(i64::try_from(keys).unwrap_or(i64::MAX));
    }

    #[cfg(test)]
    pub(super) fn confirmations(&self, answer: Answer) -> u64 {
        self.confirmations.with_label_values(&[label(answer)]).get()
    }

    pub(super) fn confirmed(&self, answer: Answer) {
        self.confirmations.with_label_values(&[label(answer)]).inc();
    }
}

const fn label(answer: Answer) -> &'static str {
    match answer {
        Answer::Allow => "allow",
        Answer::Refuse => "refuse",
        Answer::CannotTell => "cannot_tell",
    }
}
