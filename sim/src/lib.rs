//! The internet in a process: NATs, links, STUN servers and relays on virtual time, around nodes that run unchanged.
//!
//! A [`World`] is built from sites, links between them, NATs, relays and hosts, and then run. All of it follows from the
//! seed: the same world with the same seed does the same, to the last packet. What runs on a host is a [`Machine`].

mod action;
mod flow;
mod host;
mod id;
mod link;
mod machine;
mod nat;
mod oracle;
mod pair;
mod queue;
mod random;
mod scenario;
mod sweep;
mod topology;
mod trace;
mod world;

pub use action::Action;
pub use flow::{Account, Delivery, FLOW_MIN_LEN, Flow, Via};
pub use host::{Count, Sent};
pub use id::{FlowId, HostId, NatId, Place, Site};
pub use link::{Link, LinkState, Loss, Traffic};
pub use machine::Machine;
pub use nat::{Allocator, Class, Dependence, Early, Egress, Gateway, Nat, Pooling, Refresh, UnknownClass};
pub use oracle::{Direct, Verdict};
pub use pair::{NotAPair, Pair, Seat, Stage, Timing};
pub use random::Random;
pub use scenario::{Fault, NotAScenario, Scenario};
pub use sweep::{Spread, shrink, sweep};
pub use trace::{Dropped, Happening};
pub use world::World;
