//! Metric families that are made at scrape time from plain numbers.

use prometheus::proto::{Counter, Gauge, LabelPair, Metric, MetricFamily, MetricType};

/// The families, in the order in which they were added.
#[derive(Default)]
pub(super) struct Families(pub(super) Vec<MetricFamily>);

/// A value, and the labels that tell it from others of its family.
pub(super) type Labelled<const N: usize> = ([(&'static str, &'static str); N], u64);

impl Families {
    fn add(&mut self, kind: MetricType, name: &str, help: &str, metrics: Vec<Metric>) {
        let mut family = MetricFamily::default();
        family.set_name(name.into());
        family.set_help(help.into());
        family.set_field_type(kind);
        family.set_metric(metrics);
        self.0.push(family);
    }

    /// Adds a number that only grows.
    pub(super) fn counter(&mut self, name: &str, help: &str, value: u64) {
        self.counters(name, help, [([], value)]);
    }

    /// Adds a family of numbers that only grow.
    pub(super) fn counters<const N: usize>(
        &mut self,
        name: &str,
        help: &str,
        values: impl IntoIterator<Item = Labelled<N>>,
    ) {
        let metrics = values.into_iter().map(|(labels, value)| {
            let mut counter = Counter::default();
            counter.set_value(value as f64);
            let mut metric = labelled(&labels);
            metric.set_counter(counter);
            metric
        });
        self.add(MetricType::COUNTER, name, help, metrics.collect());
    }

    /// Adds a number that grows and shrinks.
    pub(super) fn gauge(&mut self, name: &str, help: &str, value: u64) {
        let mut gauge = Gauge::default();
        gauge.set_value(value as f64);
        let mut metric = Metric::default();
        metric.set_gauge(gauge);
        self.add(MetricType::GAUGE, name, help, vec![metric]);
    }
}

fn labelled(labels: &[(&'static str, &'static str)]) -> Metric {
    let pairs = labels.iter().map(|(name, value)| {
        let mut pair = LabelPair::default();
        pair.set_name((*name).into());
        pair.set_value((*value).into());
        pair
    });
    let mut metric = Metric::default();
    metric.set_label(pairs.collect());
    metric
}
