//! Accounts: how many connections a source and the process hold, and which of them are pending.
//!
//! A principal is a prefix of source addresses ([`SourcePrefix`]) or the process. A connection is charged to all of its
//! principals at once. They overlap and do not nest: the /64, the /56 and the /48 of an IPv6 address each have a bound.
//!
//! | what is charged | from | until | where |
//! |---|---|---|---|
//! | a pending place | it is accepted | it has logged in or is closed | [`places`] |
//! | a connection | it is accepted | it is closed | [`connections`] |
//!
//! Before its login a connection has no principal but these. A bound is never met by waiting: [`Exceeded`] refuses the new
//! connection, or an older one loses its place.
//!
//! [`SourcePrefix`]: towpath_wire::host::SourcePrefix

pub mod connections;
pub mod places;

#[cfg(test)]
mod tests;

use towpath_wire::host::Host;

/// The origin of a connection, as far as it is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// The host of a client. The bounds on its prefixes hold.
    Client(Host),
    /// A proxy, which has not named the client yet. No bound but that of the process holds, because all clients of a proxy
    /// come from its address.
    Proxy(Host),
}

impl Origin {
    /// The host of the client, if it is known.
    #[must_use]
    pub const fn client(self) -> Option<Host> {
        match self {
            Self::Client(host) => Some(host),
            Self::Proxy(_) => None,
        }
    }
}

/// The bound that a new connection would exceed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Exceeded {
    /// A prefix of the source holds its pending places, and none of them can be taken from a silent connection.
    #[error(
        "the host has as many connections that have not logged in as it may (login.max_pending_per_host)"
    )]
    PendingOfSource,
    /// A prefix of the source holds its connections.
    #[error("the host has as many connections as it may (login.max_connections_per_host)")]
    ConnectionsOfSource,
    /// The process holds all of its connections.
    #[error("the relay has as many connections as it may (login.max_connections)")]
    Connections,
}
