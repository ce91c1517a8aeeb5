//! What a DERP relay and its client decide: logins, sessions, outboxes, presence; no sockets, no clock.
//!
//! - [`login`]: who a new connection belongs to.
//! - [`session`]: what the bytes of a connection ask for, after its login.
//! - [`outbox`]: what waits to be sent to a connection, bounded by bytes and age.
//! - [`egress`]: an outbox that many threads fill and any of them empties, one at a time.
//! - [`presence`]: the connections of one key, of which one is active.
//! - [`whereabouts`]: those, or the relays of the region that have the key.
//! - [`rights`]: what a connection may ask for beyond that. [`news`]: what a watcher is still to be told.
//! - [`client`]: the other side of a session.
//!
//! Every reason why a packet is dropped or a connection closed is an enum variant here, and a metric label elsewhere.

pub mod client;
pub mod egress;
pub mod login;
pub mod news;
pub mod outbox;
pub mod presence;
pub mod rights;
pub mod session;
mod sync;
pub mod whereabouts;
