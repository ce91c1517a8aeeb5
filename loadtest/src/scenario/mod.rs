//! The kinds of load, a file or a folder each, and the one list of them.

pub(crate) mod args;
pub(crate) mod config;
pub mod fan_in;
pub mod idle;
pub(crate) mod interface;
pub mod latency;
pub mod own_flood;
pub mod pairs;
pub mod ramp;
pub mod storm;
pub mod stun;

use interface::RegisteredScenario;

/// All scenarios, in the order of the help text.
static SCENARIOS: [RegisteredScenario; 8] = [
    RegisteredScenario::new::<pairs::PairsScenario>(),
    RegisteredScenario::new::<ramp::RampScenario>(),
    RegisteredScenario::new::<latency::LatencyScenario>(),
    RegisteredScenario::new::<own_flood::OwnFloodScenario>(),
    RegisteredScenario::new::<fan_in::FanInScenario>(),
    RegisteredScenario::new::<stun::StunScenario>(),
    RegisteredScenario::new::<idle::IdleScenario>(),
    RegisteredScenario::new::<storm::StormScenario>(),
];

/// All scenarios, in the order of the help text.
pub(crate) fn all() -> impl Iterator<Item = &'static RegisteredScenario> {
    SCENARIOS.iter()
}

/// The scenario with this name.
pub(crate) fn named(name: &str) -> Option<&'static RegisteredScenario> {
    all().find(|scenario| scenario.name == name)
}
