//! A peer among peers that are named by their WireGuard keys.
//!
//! An [`Endpoint`] sends packets to a peer by its key. They go over a relay at first, and directly as soon as a path through the NATs of
//! both sides is found; if that breaks, over the relay again, without a packet lost that the network itself does not lose. The packets
//! are the application's, which encrypts and authenticates them as WireGuard does: a relay sees no more than keys, sizes and times.
//!
//! ```no_run
//! use towpath::{Endpoint, Packets, PeerConfig, RelayMap};
//!
//! # async fn talk() -> Result<(), Box<dyn std::error::Error>> {
//! let map = RelayMap::from_file("derpmap.json".as_ref())?;
//! let peer = "nodekey:8c9f4e1b5d3a7f60c2e8b19a4d7f3e6058b1c9d2a3f4e5b6c7d8e9f0a1b2c3d4".parse()?;
//!
//! let endpoint = Endpoint::builder().relay_map(map).peer(PeerConfig::new(peer)).bind().await?;
//! println!("this is {}", endpoint.key());
//! endpoint.online().await?;
//! endpoint.send(&peer, &[b"\x04 a packet"]).await?;
//!
//! let mut packets = Packets::new();
//! endpoint.recv(&mut packets).await?;
//! for packet in packets.iter() {
//!     println!("{} bytes of {} came {:?}", packet.bytes.len(), packet.peer, packet.via);
//! }
//! println!("{}", endpoint.why(&peer).expect("it was added"));
//! endpoint.close().await;
//! # Ok(())
//! # }
//! ```
//!
//! | what | file |
//! |---|---|
//! | the endpoint, and setting it up | `endpoint.rs`, `builder.rs` |
//! | the tasks around the state machine of `towpath_disco` | `shared.rs` |
//! | UDP sockets, or what a program puts in their place | [`datagrams`] |
//! | relays: the map of them, and the links | `relay_map.rs`, `links/` |
//! | interfaces and the gateway of this host | `interfaces.rs` |
//! | a port of the gateway by UPnP-IGD | `upnp.rs` |
//! | packets that wait for the application | `inbox.rs`, `packets.rs` |
//! | what the network of this host lets through | `netcheck/` |
//! | what can be seen: paths, status, counts | `path.rs`, `status.rs`, `stats.rs` |

#![forbid(unsafe_code)]

/// The example of the README, which is compiled as one of this documentation.
#[cfg(doctest)]
#[doc = include_str!("../../../README.md")]
struct Readme;

mod builder;
mod clock;
pub mod datagrams;
mod endpoint;
mod inbox;
mod interfaces;
mod links;
mod netcheck;
mod packets;
mod path;
mod ping;
mod relay_map;
mod shared;
mod stats;
mod status;
mod upnp;

pub use builder::{BindError, Builder};
pub use datagrams::PACKET_MAX;
pub use endpoint::{Closed, Endpoint, Introductions, PathWatch, SendError};
pub use interfaces::NetworkChanges;
pub use netcheck::{Allocator, Dependence, NetReport, RegionReport, netcheck};
pub use packets::{Packet, PacketSink, Packets, Run};
pub use path::{Path, PathClass};
pub use ping::{PingError, Pong, PongVia};
pub use relay_map::{RelayMap, RelayMapError, RelayRegion};
pub use stats::{Stats, TIME_TO_DIRECT_BOUNDS, TimeToDirect, Traffic};
pub use status::{PeerStatus, RelayStatus, Status};
pub use towpath_disco::datagram::Region;
pub use towpath_disco::{MappingClass, PeerConfig, PortMapping, PortProtocol, Technique, Why};
pub use towpath_wire::derp::token::Token;
pub use towpath_wire::disco::key::DiscoPublic;
pub use towpath_wire::key::{NodePrivate, NodePublic};
