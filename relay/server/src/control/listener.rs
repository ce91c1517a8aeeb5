//! The kinds of listeners, and what is known of a connection that one has accepted.

use std::net::SocketAddr;

/// The kind of listener that accepted a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ListenerKind {
    /// For clients, in TLS.
    Tls,
    /// For proxies, without TLS.
    Plain,
    /// For browsers and captive-portal probes, without TLS; it redirects to HTTPS.
    Redirect,
}

/// What is known of a connection that a listener has accepted.
#[derive(Clone, Copy, Debug)]
pub(super) struct Accepted {
    /// The number by which log lines name the connection.
    pub(super) id: u64,
    /// The address at the other end of the socket, which may be a proxy's.
    pub(super) address: SocketAddr,
    pub(super) kind: ListenerKind,
}
