//! The memory that an idle connection costs the relay.

use std::process::{Child, Stdio};

use towpath_loadtest::scenario::idle::IdleReport;

use crate::support::{RelayUnderTest, assert_success};

/// The bytes of a connection: TLS state, registry entry and the connection itself, without the kernel's share.
const BUDGET: f64 = 4.0 * 1024.0;

/// Compares two relays with 1,000 and 4,000 connections, after traffic both ways and an idle minute.
#[test]
#[cfg_attr(debug_assertions, ignore = "a budget of the release build")]
fn an_idle_connection_costs_at_most_four_kib() {
    let relays = [(RelayUnderTest::start(), 1000), (RelayUnderTest::start(), 4000)];
    // Both loads run at the same time.
    let loads = relays.each_ref().map(|(relay, connections): &(RelayUnderTest, u32)| -> Child {
        relay
            .load("idle", "idle")
            .args(["--steps", &connections.to_string(), "--rest", "60s"])
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap()
    });
    for load in loads {
        assert_success(&load.wait_with_output().unwrap());
    }
    let [(few, few_bytes), (many, many_bytes)] = relays.map(|(relay, connections)| {
        let report: IdleReport = relay.report("idle");
        assert!(!report.damage.any(), "{:?}", report.damage);
        assert_eq!(report.received, u64::from(connections) * 4);
        assert_eq!(report.weighed[1].0, connections);
        report.weighed[1]
    });
    let slope = (many_bytes as f64 - few_bytes as f64) / f64::from(many - few);
    assert!(slope <= BUDGET, "{slope:.0} bytes a connection: {few_bytes} at {few}, {many_bytes} at {many}");
}
