//! The metrics of the control plane.

use prometheus::{IntCounter, IntCounterVec, IntGauge, Opts, Registry};
use rustls::ProtocolVersion;

use super::refusal::RefusalReason;

/// The metrics of the control plane.
#[derive(Debug)]
pub(crate) struct ControlMetrics {
    accepts: IntCounter,
    websocket_accepts: IntCounter,
    refused: IntCounterVec,
    tls_versions: IntCounterVec,
    /// Accepting itself failed, as a rule for want of file descriptors.
    pub(super) accept_errors: IntCounter,
    /// Connections that have not logged in.
    pub(super) pending: IntGauge,
}

impl ControlMetrics {
    pub(crate) fn register(registry: &Registry) -> prometheus::Result<Self> {
        let metrics = Self {
            accepts: IntCounter::new("derp_accepts", "Connections that asked for DERP")?,
            websocket_accepts: IntCounter::new(
                "derp_websocket_accepts",
                "Connections that asked for DERP in WebSocket",
            )?,
            refused: IntCounterVec::new(
                Opts::new("towpath_refused_total", "Connections that ended before their login, by reason"),
                &["reason"],
            )?,
            tls_versions: IntCounterVec::new(
                Opts::new("derper_tls_request_version", "TLS handshakes, by version"),
                &["version"],
            )?,
            accept_errors: IntCounter::new(
                "towpath_accept_errors_total",
                "Failures to accept a connection, as a rule for want of file descriptors",
            )?,
            pending: IntGauge::new(
                "towpath_pending_connections",
                "Connections that have not logged in, at most `login.max_pending`",
            )?,
        };
        for reason in RefusalReason::ALL {
            metrics.refused.with_label_values(&[reason.label()]);
        }
        for version in ["1.2", "1.3"] {
            metrics.tls_versions.with_label_values(&[version]);
        }
        registry.register(Box::new(metrics.accepts.clone()))?;
        registry.register(Box::new(metrics.websocket_accepts.clone()))?;
        registry.register(Box::new(metrics.refused.clone()))?;
        registry.register(Box::new(metrics.tls_versions.clone()))?;
        registry.register(Box::new(metrics.accept_errors.clone()))?;
        registry.register(Box::new(metrics.pending.clone()))?;
        Ok(metrics)
    }

    pub(super) fn accepted(&self, websocket: bool) {
        self.accepts.inc();
        self.websocket_accepts.inc_by(websocket.into());
    }

    pub(super) fn refused(&self, reason: RefusalReason) {
        self.refused.with_label_values(&[reason.label()]).inc();
    }

    pub(super) fn tls_version(&self, version: Option<ProtocolVersion>) {
        let version = if version == Some(ProtocolVersion::TLSv1_3) { "1.3" } else { "1.2" };
        self.tls_versions.with_label_values(&[version]).inc();
    }
}
