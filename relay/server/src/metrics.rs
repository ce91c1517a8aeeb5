//! What the relay tells Prometheus.
//!
//! Names and labels are derper's wherever the thing counted is the same, so that dashboards keep working; what derper
//! does not count begins with `towpath_`. The data plane's numbers are read at scrape time; nothing here is on the path
//! of a packet.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use prometheus::core::{Collector, Desc};
use prometheus::proto::{Counter, Gauge, LabelPair, Metric, MetricFamily, MetricType};
use prometheus::{IntCounter, IntCounterVec, IntGauge, Opts, Registry};
use rustls::ProtocolVersion;
use towpath_relay_client::DialStep;
use towpath_relay_proto::outbox::DropReason;
use towpath_relay_proto::rights::Claim;
use towpath_relay_proto::session::{Close, PacketKind};

use crate::control::Refusal;
use crate::forward::counters::{Counters, Tally, Traffic, kind_index};
use crate::forward::registry::Registry as Peers;

mod stun;

pub(crate) use self::stun::StunScrape;

/// What the control plane counts.
#[derive(Debug)]
pub(crate) struct ControlMetrics {
    accepts: IntCounter,
    websocket_accepts: IntCounter,
    refused: IntCounterVec,
    tls_versions: IntCounterVec,
    /// Accepting itself failed, as a rule for want of file descriptors.
    pub(crate) accept_errors: IntCounter,
    /// Connections that have not logged in.
    pub(crate) pending: IntGauge,
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
                Opts::new("derper_tls_request_version", "TLS handshakes by version"),
                &["version"],
            )?,
            accept_errors: IntCounter::new("towpath_accept_errors_total", "Failures to accept a connection")?,
            pending: IntGauge::new("towpath_pending_connections", "Connections that have not logged in")?,
        };
        for label in Refusal::LABELS {
            metrics.refused.with_label_values(&[label]);
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

    pub(crate) fn accepted(&self, websocket: bool) {
        self.accepts.inc();
        self.websocket_accepts.inc_by(websocket.into());
    }

    pub(crate) fn refused(&self, label: &str) {
        self.refused.with_label_values(&[label]).inc();
    }

    pub(crate) fn tls_version(&self, version: Option<ProtocolVersion>) {
        let version = if version == Some(ProtocolVersion::TLSv1_3) { "1.3" } else { "1.2" };
        self.tls_versions.with_label_values(&[version]).inc();
    }
}

/// What is counted of the mesh outside of the data plane.
#[derive(Clone, Debug)]
pub(crate) struct MeshMetrics {
    /// Relays that this one dials.
    pub(crate) peers: IntGauge,
    dial_failures: IntCounterVec,
    claims: IntCounterVec,
}

impl MeshMetrics {
    pub(crate) fn register(registry: &Registry) -> prometheus::Result<Self> {
        let metrics = Self {
            peers: IntGauge::new("towpath_mesh_peers", "Relays of the region that this one dials")?,
            dial_failures: IntCounterVec::new(
                Opts::new(
                    "towpath_mesh_dial_failures_total",
                    "Failures to dial a relay of the region, by step",
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

    pub(crate) fn dial_failed(&self, step: DialStep) {
        self.dial_failures.with_label_values(&[step.label()]).inc();
    }

    pub(crate) fn claimed(&self, claim: Claim) {
        self.claims.with_label_values(&[claim.label()]).inc();
    }
}

/// Reads the data plane when Prometheus asks.
pub(crate) struct Scrape {
    pub(crate) workers: Vec<Arc<Counters>>,
    pub(crate) peers: Arc<Peers>,
}

impl Collector for Scrape {
    fn desc(&self) -> Vec<&Desc> {
        // What is collected is known when it is collected; a registry takes a collector without descriptions.
        Vec::new()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let mut tally = Tally::default();
        self.workers.iter().for_each(|worker| worker.add_to(&mut tally));
        let mut page = Page::default();
        page.gauges(&self.peers);
        page.traffic(&tally);
        page.frames(&tally);
        page.work(&tally);
        page.0
    }
}

#[derive(Default)]
struct Page(Vec<MetricFamily>);

type Sample<'a> = (&'a [(&'static str, &'static str)], u64);

impl Page {
    fn family(&mut self, kind: MetricType, name: &str, help: &str, samples: &[Sample<'_>]) {
        let metrics = samples.iter().map(|(labels, value)| {
            let mut metric = Metric::default();
            let pairs = labels.iter().map(|(name, value)| {
                let mut pair = LabelPair::default();
                pair.set_name((*name).into());
                pair.set_value((*value).into());
                pair
            });
            metric.set_label(pairs.collect());
            let value = *value as f64;
            if kind == MetricType::GAUGE {
                let mut gauge = Gauge::default();
                gauge.set_value(value);
                metric.set_gauge(gauge);
            } else {
                let mut counter = Counter::default();
                counter.set_value(value);
                metric.set_counter(counter);
            }
            metric
        });
        let metrics = metrics.collect();
        let mut family = MetricFamily::default();
        family.set_name(name.into());
        family.set_help(help.into());
        family.set_field_type(kind);
        family.set_metric(metrics);
        self.0.push(family);
    }

    fn counter(&mut self, name: &str, help: &str, value: u64) {
        self.family(MetricType::COUNTER, name, help, &[(&[], value)]);
    }

    fn gauge(&mut self, name: &str, help: &str, value: u64) {
        self.family(MetricType::GAUGE, name, help, &[(&[], value)]);
    }

    fn gauges(&mut self, peers: &Peers) {
        let gauges = peers.gauges();
        // A gauge that is read between the two halves of a change may be off by one, and never below zero.
        let read = |gauge: &AtomicI64| u64::try_from(gauge.load(Ordering::Relaxed)).unwrap_or(0);
        let (here, elsewhere) = (read(&gauges.keys_here), read(&gauges.keys_elsewhere));
        self.gauge("derp_current_connections", "Logged-in connections", read(&gauges.connections));
        self.gauge(
            "derp_current_home_connections",
            "Connections that call this relay their home",
            read(&gauges.home),
        );
        self.gauge(
            "derp_current_notideal_connections",
            "Connections that another relay of the region would suit better",
            read(&gauges.not_ideal),
        );
        self.gauge("derp_clients_local", "Distinct keys on this relay", here);
        self.gauge("derp_clients_remote", "Distinct keys on other relays of the region alone", elsewhere);
        self.gauge("derp_clients_total", "Distinct keys in the region", here + elsewhere);
        self.gauge("derp_watchers", "Connections that are told who comes and goes", peers.watchers() as u64);
        self.gauge("towpath_mesh_links", "Links to relays of the region that are up", read(&gauges.links));
        let [created, deleted] = &gauges.multi_forwarders;
        let help = "Keys that came to be on a second relay besides another";
        self.counter("derp_multiforwarder_created", help, read(created));
        let help = "Keys that came to be on one relay after having been on several";
        self.counter("derp_multiforwarder_deleted", help, read(deleted));
        self.gauge(
            "derp_current_dup_client_keys",
            "Keys with more than one connection",
            read(&gauges.shared_keys),
        );
        self.gauge(
            "derp_current_dup_client_conns",
            "Connections of such keys",
            read(&gauges.shared_connections),
        );
        self.counter(
            "derp_total_dup_client_conns",
            "Connections that came while their key had one",
            read(&gauges.shared_total),
        );
        self.counter(
            "towpath_contested_keys_total",
            "Times that a key was found to be in use by two clients",
            read(&gauges.contested_total),
        );
    }

    fn traffic(&mut self, tally: &Tally) {
        let (received, sent, out) = (tally.all_received(), tally.sent(), tally.forwarded_out());
        self.counter("derp_packets_received", "Packets from clients", received.packets);
        self.counter("derp_bytes_received", "Bytes of those packets", received.bytes);
        let of_kind = |kind| tally.received[kind_index(kind)].packets;
        self.family(
            MetricType::COUNTER,
            "derp_packets_received_kind",
            "Packets from clients by kind",
            &[
                (&[("kind", "disco")], of_kind(PacketKind::Disco)),
                (&[("kind", "other")], of_kind(PacketKind::Other)),
            ],
        );
        let help = "Packets to clients: received and not dropped, those that wait at this moment included";
        self.counter("derp_packets_sent", help, sent.packets);
        self.counter("derp_bytes_sent", "Bytes of those packets", sent.bytes);
        self.counter("derp_packets_forwarded_in", "Packets from other relays", tally.forwarded_in.packets);
        let help = "Packets to other relays, those that wait at this moment included";
        self.counter("derp_packets_forwarded_out", help, out.packets);
        self.drops("derp_packets_dropped", "Packets dropped, by reason and kind", tally, |drops| {
            drops.packets
        });
        self.drops("derp_bytes_dropped", "Bytes of those packets", tally, |drops| drops.bytes);
    }

    fn drops(&mut self, name: &str, help: &str, tally: &Tally, value: impl Fn(&Traffic) -> u64) {
        let kinds = [("disco", PacketKind::Disco), ("other", PacketKind::Other)];
        let labels: Vec<_> = DropReason::ALL
            .iter()
            .enumerate()
            .flat_map(|(index, reason)| {
                kinds.map(|(label, kind)| {
                    let labels = [("kind", label), ("reason", reason.label())];
                    (labels, value(&tally.rare().dropped[index][kind_index(kind)]))
                })
            })
            .collect();
        let samples: Vec<Sample<'_>> = labels.iter().map(|(labels, value)| (&labels[..], *value)).collect();
        self.family(MetricType::COUNTER, name, help, &samples);
    }

    fn frames(&mut self, tally: &Tally) {
        let rare = tally.rare();
        let closes: Vec<_> =
            Close::ALL.iter().zip(rare.closed).map(|(reason, n)| ([("reason", reason.label())], n)).collect();
        let samples: Vec<Sample<'_>> = closes.iter().map(|(labels, value)| (&labels[..], *value)).collect();
        self.family(
            MetricType::COUNTER,
            "towpath_closed_total",
            "Logged-in connections closed, by reason",
            &samples,
        );
        let timeouts =
            Close::ALL.iter().position(|reason| *reason == Close::WriteTimeout).map(|at| rare.closed[at]);
        self.counter(
            "derp_sclient_write_timeouts",
            "Connections closed because they took no bytes",
            timeouts.unwrap_or(0),
        );
        self.counter("derp_got_ping", "Ping frames received", rare.pings);
        self.counter("derp_sent_pong", "Pong frames sent", rare.pongs);
        let help = "PeerGone frames to receivers of a key that left";
        self.counter("derp_peer_gone_disconnected_frames", help, rare.gone_disconnected);
        let help = "PeerGone frames to senders of disco to a key that is not here";
        self.counter("derp_peer_gone_not_here_frames", help, rare.gone_not_here);
        self.counter(
            "derp_unknown_frames",
            "Frames of unknown types, which are skipped",
            rare.unknown_frames,
        );
        let help = "Keys that another relay took back without having announced them";
        self.counter("derp_packet_forwarder_delete_other_value", help, rare.unfounded_gone);
        self.counter("towpath_keepalives_total", "KeepAlive frames sent", rare.keepalives);
        let help = "Frames other than packets that found no room or a closed connection";
        self.counter("towpath_control_frames_dropped_total", help, rare.control_dropped);
    }

    fn work(&mut self, tally: &Tally) {
        self.counter("towpath_reads_total", "Reads from sockets of clients", tally.reads);
        self.counter("towpath_writes_total", "Writes to sockets of clients", tally.writes);
        self.counter("towpath_wakeups_total", "Times that a worker of the data plane woke up", tally.polls);
        let help = "Times that a sender was held back for a destination that could not keep up";
        self.counter("towpath_holds_total", help, tally.rare().pauses);
    }
}
