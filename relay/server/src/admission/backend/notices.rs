//! What the log says of a backend: that it has stopped answering, and that it answers again.

use towpath_service::ErrorChain;
use towpath_service::repeated::Repeated;
use tracing::{debug, info, warn};

use super::failure::AskError;

/// The lines of one backend, as often as [`Repeated`] lets them. They name no client.
#[derive(Debug)]
pub(super) struct Notices {
    policy: &'static str,
    /// Where the backend is.
    backend: String,
    is_down: bool,
    failures: Repeated,
    recoveries: Repeated,
}

impl Notices {
    pub(super) fn new(policy: &'static str, backend: String) -> Self {
        let (failures, recoveries) = (Repeated::default(), Repeated::default());
        Self { policy, backend, is_down: false, failures, recoveries }
    }

    pub(super) fn failed(&mut self, error: &AskError) {
        self.is_down = true;
        let (policy, backend, failure) = (self.policy, &self.backend, error.failure().label());
        let error = ErrorChain(error);
        match self.failures.note() {
            Some(times) => {
                warn!(
                    times,
                    policy,
                    backend,
                    failure,
                    "the backend of admission gave no answer, so what is known of each key decides: {error}"
                );
            }
            None => {
                debug!(policy, backend, failure, "the backend of admission gave no answer again: {error}");
            }
        }
    }

    pub(super) fn answered(&mut self) {
        if !std::mem::take(&mut self.is_down) {
            return;
        }
        let (policy, backend) = (self.policy, &self.backend);
        match self.recoveries.note() {
            Some(times) => {
                let times = (times > 1).then_some(times);
                info!(times, policy, backend, "the backend of admission answers again");
            }
            None => debug!(policy, backend, "the backend of admission answers once more"),
        }
    }
}
