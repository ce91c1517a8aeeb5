//! The metrics of a running peer, made when Prometheus asks.

use std::sync::Arc;

use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;
use towpath::{Endpoint, PathClass, Stats, TIME_TO_DIRECT_BOUNDS, Traffic};
use towpath_service::metrics::Families;
use towpath_wireguard::{CarrierStats, Proxy};

/// What a scrape looks at.
pub(crate) struct Scrape {
    pub(crate) endpoint: Endpoint,
    /// The proxy that the endpoint is for.
    pub(crate) proxy: Option<Arc<Proxy>>,
}

impl Collector for Scrape {
    fn desc(&self) -> Vec<&Desc> {
        // The families are known only when they are collected. A registry accepts a collector without descriptions.
        Vec::new()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let (stats, status) = (self.endpoint.stats(), self.endpoint.status());
        let mut families = Families::default();
        let help = "Packets of the application, by direction and by the class of the path";
        families.counters("towpath_peer_packets_total", help, traffic(&stats, |traffic| traffic.packets));
        let help = "Bytes of packets of the application, by direction and by the class of the path";
        families.counters("towpath_peer_bytes_total", help, traffic(&stats, |traffic| traffic.bytes));
        families.counters(
            "towpath_peer_lost_total",
            "Packets that were not passed on, by reason",
            lost(&stats),
        );
        let of_class =
            |class: PathClass| status.peers.iter().filter(|peer| peer.class == class).count() as u64;
        let peers = PathClass::ALL.map(|class| ([("path", class.label())], of_class(class)));
        families.gauges("towpath_peer_peers", "Peers, by the class of the path to each", peers);
        let regions: Vec<_> =
            status.relays.iter().map(|relay| (relay.region.to_string(), relay.up)).collect();
        let relays = regions.iter().map(|(region, is_up)| ([("region", region.as_str())], u64::from(*is_up)));
        families.gauges("towpath_peer_relay_up", "Whether the link to the relay of a region is up", relays);
        let bounds = TIME_TO_DIRECT_BOUNDS.map(|millis| millis as f64 / 1000.0);
        let (counts, sum) = (&stats.time_to_direct.counts, stats.time_to_direct.sum_us as f64 / 1e6);
        let help = "From the first packet that was to go directly until the path was direct";
        families.histogram("towpath_peer_time_to_direct_seconds", help, &bounds, counts, sum);
        if let Some(proxy) = &self.proxy {
            collect_proxy(&mut families, proxy.stats());
        }
        families.0
    }
}

fn collect_proxy(families: &mut Families, stats: CarrierStats) {
    let lost = [("strange", stats.strange), ("no_relay", stats.unsent), ("no_wireguard", stats.undelivered)];
    families.counters(
        "towpath_proxy_lost_total",
        "Packets between WireGuard and the peers that were not passed on, by reason",
        lost.map(|(reason, count)| ([("reason", reason)], count)),
    );
    let handshakes = [("crossed", stats.crossed_handshakes), ("repeated", stats.repeated_initiations)];
    families.counters(
        "towpath_proxy_handshakes_total",
        "Handshakes of WireGuard that the proxy has helped, by what it did",
        handshakes.map(|(help, count)| ([("help", help)], count)),
    );
}

fn traffic(
    stats: &Stats,
    count: impl Fn(&Traffic) -> u64 + Copy,
) -> impl Iterator<Item = ([(&'static str, &'static str); 2], u64)> {
    [("sent", stats.sent), ("received", stats.received)].into_iter().flat_map(move |(direction, traffic)| {
        PathClass::ALL.into_iter().zip(traffic).map(move |(class, traffic)| {
            ([("direction", direction), ("path", class.label())], count(&traffic))
        })
    })
}

fn lost(stats: &Stats) -> impl Iterator<Item = ([(&'static str, &'static str); 1], u64)> {
    let reasons = [
        ("inbox_full", stats.inbox_dropped),
        ("relay_slow", stats.relay_dropped),
        ("relay_slow_copy", stats.copies_left_out),
        ("refused", stats.send_refused),
        ("too_long", stats.too_long),
        ("disco", stats.disco_lost),
        ("no_way", stats.unroutable),
    ];
    reasons.into_iter().map(|(reason, count)| ([("reason", reason)], count))
}
