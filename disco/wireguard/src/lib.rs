//! Carries the packets of any implementation of WireGuard to its peers.
//!
//! The owner of a file of wg-quick(8) keeps WireGuard as it is. A [`Proxy`] gives each of its peers an address on the loopback interface,
//! behind which a [`towpath::Endpoint`] sends the encrypted packets over a relay at once and directly as soon as a path is found. Packets
//! are carried byte for byte; the proxy reads no more of them than their type.
//!
//! | what | file |
//! |---|---|
//! | files of wg-quick(8) | [`quick`] |
//! | the commands `wg` and `ip` | `wg.rs` |
//! | what was found before it was changed | `state.rs` |
//! | names in `/etc/hosts` | [`hosts`] |
//! | packets between WireGuard and the endpoint | `carrier.rs` |
//! | messages, and handshakes that cross | `message.rs`, `handshake/` |
//! | a mesh of two, with one line to paste | [`pair`] |
//! | an interface that comes, goes and is changed by others | `proxy.rs` |

#![forbid(unsafe_code)]

mod carrier;
mod handshake;
pub mod hosts;
mod message;
pub mod pair;
mod proxy;
pub mod quick;
mod state;
mod wg;

pub use carrier::{CarrierStats, LocalSide};
pub use message::MessageKind;
pub use proxy::{Basis, Proxy, ProxyConfig, ProxyError, restore};
pub use wg::WgError;
