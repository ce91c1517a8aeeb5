//! The pure logic of a DERP relay and its client: logins, sessions, outboxes, presence; no sockets, no clock.
//!
//! - [`account`]: what a source of connections and the process hold, within bounds.
//! - [`proxy_header`]: the client that a proxy of TCP passes on.
//! - [`login`]: the owner of a new connection. [`admission`]: what the owner may use the relay for, with what
//!   [`rights`]. [`token`]: signed grants by which it may be admitted.
//! - [`session`]: what the bytes of a connection ask for, after its login.
//! - [`outbox`]: what waits to be sent to a connection, bounded by bytes and age.
//! - [`egress`]: an outbox that many threads fill and any of them empties, one at a time.
//! - [`presence`]: the connections of one key, of which one is active.
//! - [`key_routes`]: the connections of one key, or the relays of the region that have it.
//! - [`watch_backlog`]: the presence changes that a watcher is still owed.
//!
//! Every reason why a packet is dropped or a connection closed is an enum variant here, and a metric label elsewhere.

pub mod account;
pub mod admission;
pub mod egress;
pub mod key_routes;
pub mod login;
pub mod outbox;
pub mod presence;
pub mod proxy_header;
pub mod rights;
pub mod session;
mod sync;
pub mod token;
pub mod watch_backlog;
