//! The numbers of the data plane.

use std::sync::Arc;

use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;
use towpath_relay_forward::{DataPlane, PlaneStats, Traffic};
use towpath_relay_proto::outbox::DropReason;
use towpath_relay_proto::session::{Close, PacketKind};
use towpath_service::metrics::Families;

/// Reads the data plane when Prometheus asks.
pub(crate) struct PlaneScrape(pub(crate) Arc<DataPlane>);

impl Collector for PlaneScrape {
    fn desc(&self) -> Vec<&Desc> {
        // The families are known only when they are collected. A registry accepts a collector without descriptions.
        Vec::new()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let stats = self.0.stats();
        let mut families = Families::default();
        for gauge in stats.gauges() {
            families.gauge(gauge.name, gauge.help, gauge.value);
        }
        families.gauge("derp_clients_total", "Distinct keys in the region, local and remote", stats.keys());
        for counter in stats.counters() {
            families.counter(counter.name, counter.help, counter.value);
        }
        add_traffic(&mut families, &stats);
        add_closes(&mut families, &stats);
        families.0
    }
}

fn add_traffic(families: &mut Families, stats: &PlaneStats) {
    let (received, sent) = (stats.all_received(), stats.sent());
    families.counter("derp_packets_received", "Packets from clients", received.packets);
    families.counter(
        "derp_bytes_received",
        "Bytes of packets from clients, keys and headers not counted",
        received.bytes,
    );
    let by_kind = PacketKind::ALL.map(|kind| ([("kind", kind.label())], stats.received(kind).packets));
    families.counters("derp_packets_received_kind", "Packets from clients by kind", by_kind);
    let help = "Packets to clients: received from clients and relays, and neither dropped nor sent on; those that wait at this moment are included";
    families.counter("derp_packets_sent", help, sent.packets);
    families.counter("derp_bytes_sent", "Bytes of packets to clients", sent.bytes);
    families.counter("derp_packets_forwarded_in", "Packets from other relays", stats.forwarded_in().packets);
    let help = "Packets to other relays that were not dropped on the way out; those that wait at this moment are included";
    families.counter("derp_packets_forwarded_out", help, stats.forwarded_out().packets);
    let drops = |value: fn(Traffic) -> u64| {
        DropReason::ALL.into_iter().flat_map(move |reason| {
            PacketKind::ALL.map(|kind| {
                ([("kind", kind.label()), ("reason", reason.label())], value(stats.dropped(reason, kind)))
            })
        })
    };
    let packets = drops(|traffic| traffic.packets);
    families.counters(
        "derp_packets_dropped",
        "Packets dropped, by reason and kind; each is counted once",
        packets,
    );
    families.counters(
        "derp_bytes_dropped",
        "Bytes of dropped packets, by reason and kind",
        drops(|traffic| traffic.bytes),
    );
}

fn add_closes(families: &mut Families, stats: &PlaneStats) {
    let closes = Close::ALL.map(|reason| ([("reason", reason.label())], stats.closed(reason)));
    families.counters(
        "towpath_closed_total",
        "Logged-in connections closed, links included, by reason",
        closes,
    );
    let timeouts = stats.closed(Close::WriteTimeout);
    families.counter(
        "derp_sclient_write_timeouts",
        "Connections closed because they took no bytes, as `towpath_closed_total` with `write_timeout`",
        timeouts,
    );
}
