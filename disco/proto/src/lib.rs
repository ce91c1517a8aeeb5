//! disco for a node: the state machine that makes two relayed peers direct.
//!
//! A [`Node`] has no socket, no clock and no source of randomness. Its driver hands it packets with the way that they came by,
//! what becomes known of relays and interfaces, and the time; and takes packets to send, the next deadline and events from it.
//! What the application sends goes where [`Node::route`] says.
//!
//! | what | file |
//! |---|---|
//! | packets in and out, routes | [`datagram`] |
//! | what a node and its peers are | `config.rs` |
//! | all peers: which of them a packet is from, and when each is looked at | `node.rs`, `owners.rs` |
//! | one peer: offers to it, probes to its candidates, its path | `peer/` |
//! | the offer that peers without a control plane exchange over a relay | [`hello`] |
//! | the addresses of this node, and the class of its NAT | `endpoints.rs` |
//! | its home region and the one that is kept ready, and the links to relays | `home.rs`, `links.rs` |
//! | requests to STUN servers that wait for their answers | `asked.rs` |
//! | how long an answer may take on a path and on a link | `patience.rs` |
//! | a port that the gateway forwards: PCP, NAT-PMP, UPnP-IGD | `portmap/` |
//! | which addresses are probed, and how much of that an address bears | `candidates.rs`, `budget.rs` |
//! | packets that came over both ways | `doubles.rs` |
//! | pings that the application asks for | `echo.rs` |
//!
//! The sequence of a cold pair, with R for a round trip over the relay and D for a direct one: the first packet goes over the
//! relay with a hello. Its receiver opens its own NAT with a packet that dies on the way, answers with a hello of its own, and
//! both fire their probes when that answer arrives, so that neither reaches a NAT that has not sent yet. Both sides are direct
//! at R + D.

mod asked;
mod budget;
mod candidates;
mod config;
mod context;
pub mod datagram;
mod doubles;
mod echo;
mod endpoints;
mod event;
pub mod hello;
mod home;
mod links;
mod node;
mod owners;
mod patience;
mod peer;
mod portmap;
mod random;

pub use config::{GatewayConfig, NodeConfig, PeerConfig, RelayConfig};
pub use endpoints::MappingClass;
pub use event::Event;
pub use node::Node;
pub use peer::technique::Technique;
pub use peer::why::Why;
pub use portmap::{PortMapping, PortProtocol, UpnpAnswer, UpnpRequest};
