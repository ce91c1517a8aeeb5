//! What a DERP relay and its client decide: logins, sessions, outboxes, presence; no sockets, no clock.
//!
//! - [`login`]: who a new connection belongs to.
//! - [`session`]: what the bytes of a connection ask for, after its login.
//! - [`outbox`]: what waits to be sent to a connection, bounded by bytes and age.
//! - [`egress`]: an outbox that many threads fill and any of them empties, one at a time.
//! - [`presence`]: the connections of one key, of which one is active.
//! - [`client`]: the other side of a session.
//!
//! Every reason why a packet is dropped or a connection closed is an enum variant here, and a metric label elsewhere.

pub mod client;
pub mod egress;
pub mod login;
pub mod outbox;
pub mod presence;
pub mod session;
mod sync;
