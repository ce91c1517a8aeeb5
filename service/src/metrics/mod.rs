//! Metrics that every process has, and families that are made at scrape time.

mod families;

use prometheus::process_collector::ProcessCollector;
use prometheus::{IntGauge, Opts, Registry};

use crate::logs;

pub use self::families::{Families, Labelled};

/// Registers `process_…` (memory, CPU, file descriptors, start time), `towpath_build_info` and
/// `towpath_log_lines_dropped_total`.
///
/// # Errors
///
/// When the registry already has metrics of these names.
pub fn register_process(registry: &Registry, binary: &str, version: &str) -> prometheus::Result<()> {
    registry.register(Box::new(ProcessCollector::for_self()))?;
    registry.register(Box::new(logs::LINES_DROPPED.clone()))?;
    let build = Opts::new("towpath_build_info", "Always 1; the labels say what runs")
        .const_label("binary", binary)
        .const_label("version", version);
    let build = IntGauge::with_opts(build)?;
    build.set(1);
    registry.register(Box::new(build))
}
