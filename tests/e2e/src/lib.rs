//! Peers with real sockets behind real NATs, beside foreign programs, in the laboratory of `towpath-lab`.
//!
//! `cargo test --locked -p towpath-e2e -- --nocapture` as root, after `make build foreign`, says how long each pair has taken.
//! `make lab` measures more, and writes docs/nat.md. `LAB_RUNS` is how many runs are made of what is measured, 3 unless it is set;
//! `LAB_FLOW` is how many thousand packets a second are sent across the switch to the direct path, 5 unless it is set.
//!
//! | what | file |
//! |---|---|
//! | a region: a relay, ours or stock derper, and STUN servers beside it | `region.rs` |
//! | how often something is measured, and the parts of docs/nat.md that are written | `report.rs` |
//! | a peer on Tailscale's own code for paths: the Go program in `magicsock/` | `magicsock.rs` |
//! | an endpoint that is ready to be measured | `endpoint.rs` |
//! | two of our endpoints, and the packets between them | `peers.rs` |
//! | a machine: a host with files, processes and names of its own | `machine.rs` |
//! | two machines with a tunnel of WireGuard, carried by proxies | `tunnel.rs` |
//! | two machines with stock tailscaled, under Headscale | `tailnet.rs` |
//! | pings from one machine to another, and when their answers came | `pings.rs` |
//! | our endpoint and such a peer, and their conversation | `duo.rs`, `talk.rs` |
//! | a router that forwards a port on request: miniupnpd, and a device that is none | `router.rs`, `impostor.rs` |
//! | what a test needs of the machine, and whose turn it is | `turn.rs` |

mod duo;
mod endpoint;
mod impostor;
mod machine;
mod magicsock;
mod peers;
mod pings;
mod region;
mod report;
mod router;
mod tailnet;
mod talk;
mod tunnel;
mod turn;

pub use duo::Duo;
pub use impostor::Impostor;
pub use machine::Machine;
pub use peers::{Flow, Flowing, Peers};
pub use pings::{Pings, Reply};
pub use region::{Kind, REGION};
pub use report::{cells, millis, runs, write_part};
pub use router::{Router, Speaks};
pub use tailnet::Tailnet;
pub use talk::{Fate, First, Outcome};
pub use tunnel::{Tunnel, start_proxy};
pub use turn::{Programs, turn};
