//! The data plane of a DERP relay: plain threads that move frames from connection to connection.
//!
//! Each worker has an epoll of its own, the connections that were handed to it, one buffer to read into and one to seal
//! into. A turn of its loop: wait for events; read each ready connection once, open its records, cut them into frames,
//! and append each frame to the outbox of its destination, whichever worker owns that; then seal and write each outbox
//! that this turn made dirty, once. So a burst costs one read, one record and one write, and a packet one copy.
//!
//! From the outside in:
//!
//! - [`DataPlane`] takes a [`ClientArrival`] or a [`LinkArrival`], each with its [`Transport`], and gives
//!   [`PlaneStats`].
//! - `worker`: the loop; `worker/holds`: connections that are not read for a moment; `worker/timers`: what is due
//!   later; `worker/reporting`: what operators are shown, as a `report`.
//! - `turn`: what one turn shares with everything that handles frames. `inbox`: what other threads ask of a worker.
//! - `connection`: a connection as its owner sees it, in one of two roles: `client` or `link`.
//! - `ingress`: where the packets of a client go. `mesh` and `pairs`: its state for the other relays.
//! - `registry`: which connection has which key; `routes`, `watchers`, `gone_subscribers`, `unannounced`: its parts.
//! - `peer`: a connection as the rest of the data plane sees it. `transport`: how its frames get to and from its
//!   socket.
//! - `coalesce`: when a worker lets packets gather. `wheel`: its timers. `counters`: what it counts.

#![forbid(unsafe_code)]

mod arrival;
mod budget;
mod client;
mod clock;
mod coalesce;
mod config;
mod connection;
mod counters;
mod departures;
mod gone_subscribers;
mod inbox;
mod ingress;
mod key;
mod link;
mod memory;
mod mesh;
mod pairs;
mod peer;
mod plane;
mod registry;
mod report;
mod routes;
mod shared;
#[cfg(test)]
mod testing;
mod transport;
mod turn;
mod unannounced;
mod watchers;
mod wheel;
mod worker;

pub use arrival::{ClientArrival, LinkArrival, LinkEvent, LinkObserver};
pub use config::{DataPlaneConfig, PlaneLimits, PollPolicy};
pub use counters::{PlaneSample, PlaneStats, Traffic};
pub use key::RouteKey;
pub use plane::{DataPlane, LinkHandle, Workers};
pub use report::{ClientReport, ConnectionReport, KeyRoute, ListCursor, ListPage};
pub use transport::{Reply, Transport, TransportKind, Unwrapper, WebSocketEnd, set_socket_options};

/// The fill of an outbox with room for `bytes` above which senders are held back: half of it, and little enough that
/// the packets of one more read still fit.
#[must_use]
pub fn hold_above(bytes: usize) -> usize {
    (bytes / 2).min(bytes.saturating_sub(transport::READ_SIZE))
}
