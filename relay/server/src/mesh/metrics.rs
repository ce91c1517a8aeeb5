//! The metrics of the mesh outside of the data plane.

use prometheus::{IntCounterVec, IntGauge, Opts, Registry};
use towpath_relay_client::DialStep;
use towpath_relay_proto::rights::Claim;

/// The metrics of the mesh outside of the data plane.
#[derive(Clone, Debug)]
pub(crate) struct MeshMetrics {
    /// The relays that this relay dials.
    pub(super) peers: IntGauge,
    dial_failures: IntCounterVec,
    claims: IntCounterVec,
}

impl MeshMetrics {
    pub(crate) fn register(registry: &Registry) -> prometheus::Result<Self> {
        let metrics = Self {
            peers: IntGauge::new(
                "towpath_mesh_peers",
                "Relays of the region that this one dials: `mesh.peers` without itself",
            )?,
            dial_failures: IntCounterVec::new(
                Opts::new(
                    "towpath_mesh_dial_failures_total",
                    "Failures to dial a relay of the region, by the step that failed",
                ),
                &["step"],
            )?,
            claims: IntCounterVec::new(
                Opts::new("towpath_mesh_claims_total", "Logins with a mesh key, by what became of the claim"),
                &["claim"],
            )?,
        };
        for step in DialStep::ALL {
            metrics.dial_failures.with_label_values(&[step.label()]);
        }
        for claim in Claim::ALL {
            metrics.claims.with_label_values(&[claim.label()]);
        }
        registry.register(Box::new(metrics.peers.clone()))?;
        registry.register(Box::new(metrics.dial_failures.clone()))?;
        registry.register(Box::new(metrics.claims.clone()))?;
        Ok(metrics)
    }

    pub(super) fn dial_failed(&self, step: DialStep) {
        self.dial_failures.with_label_values(&[step.label()]).inc();
    }

    pub(crate) fn claimed(&self, claim: Claim) {
        self.claims.with_label_values(&[claim.label()]).inc();
    }
}
