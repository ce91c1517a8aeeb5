//! Histograms of durations, which processes send each other.

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

/// A histogram of durations up to an hour in nanoseconds, to three digits. Longer durations count as an hour.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(from = "HistogramCounts", into = "HistogramCounts")]
pub(crate) struct DurationHistogram(Histogram<u64>);

/// The values of a histogram, each with its count.
#[derive(Serialize, Deserialize)]
struct HistogramCounts(Vec<(u64, u64)>);

const HOUR: u64 = 3_600_000_000_000;

/// The value of a percentile that a lost packet holds, which is infinitely late. It is shown as `∞`.
pub(crate) const LOST: u64 = HOUR;

impl Default for DurationHistogram {
    fn default() -> Self {
        Self(
            Histogram::new_with_bounds(1, HOUR, 3)
                .expect("the bounds are in order, and at most 5 digits are asked for"),
        )
    }
}

impl DurationHistogram {
    pub(crate) fn record(&mut self, nanos: u64) {
        self.0.saturating_record(nanos);
    }

    pub(crate) fn add(&mut self, other: &Self) {
        self.0.add(&other.0).expect("all histograms have the same bounds");
    }

    /// The percentiles, in which each of `lost` more packets counts as infinitely late. `max` is that of the others.
    pub(crate) fn quantiles_with_lost(&self, lost: u64) -> Quantiles {
        let mut all = self.0.clone();
        all.saturating_record_n(LOST, lost);
        Quantiles { count: self.0.len(), max: self.0.max(), ..Self(all).quantiles() }
    }

    pub(crate) fn quantiles(&self) -> Quantiles {
        let at = |quantile| self.0.value_at_quantile(quantile);
        Quantiles {
            count: self.0.len(),
            p50: at(0.5),
            p90: at(0.9),
            p99: at(0.99),
            p999: at(0.999),
            max: self.0.max(),
        }
    }
}

impl From<HistogramCounts> for DurationHistogram {
    fn from(HistogramCounts(values): HistogramCounts) -> Self {
        let mut durations = Self::default();
        for (value, count) in values {
            durations.0.saturating_record_n(value, count);
        }
        durations
    }
}

impl From<DurationHistogram> for HistogramCounts {
    fn from(DurationHistogram(histogram): DurationHistogram) -> Self {
        Self(
            histogram
                .iter_recorded()
                .map(|value| (value.value_iterated_to(), value.count_at_value()))
                .collect(),
        )
    }
}

/// The percentiles of a distribution of durations, in nanoseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Quantiles {
    /// The number of durations.
    pub count: u64,
    /// The median.
    pub p50: u64,
    /// The 90th percentile.
    pub p90: u64,
    /// The 99th percentile.
    pub p99: u64,
    /// The 99.9th percentile.
    pub p999: u64,
    /// The longest duration.
    pub max: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lost_packet_is_infinitely_late() {
        let mut durations = DurationHistogram::default();
        (0..985).for_each(|_| durations.record(1000));
        assert_eq!(durations.quantiles_with_lost(0), durations.quantiles());
        let Quantiles { count, p50, p90, p99, p999, max } = durations.quantiles_with_lost(15);
        assert_eq!((count, p50, p90, max), (985, 1000, 1000, 1000));
        assert!(p99 >= LOST && p999 >= LOST, "{p99} {p999}");
    }

    #[test]
    fn quantiles_survive_serialization() {
        let mut durations = DurationHistogram::default();
        for value in 1..=10_000 {
            durations.record(value * 1000);
        }
        durations.record(2 * HOUR);
        let text = serde_json::to_string(&durations).unwrap();
        let arrived: DurationHistogram = serde_json::from_str(&text).unwrap();
        assert_eq!(arrived.quantiles(), durations.quantiles());
        let Quantiles { count, p50, p99, .. } = arrived.quantiles();
        assert_eq!(count, 10_001);
        assert!(
            (4_990_000..5_010_000).contains(&p50) && (9_890_000..9_910_000).contains(&p99),
            "{p50} {p99}"
        );
    }
}
