//! The kinds of listeners, and what is known of a connection that one has accepted.

use std::net::SocketAddr;

use towpath_relay_proto::account::Origin;
use towpath_wire::host::Host;

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
    /// The address at the other end of the socket, or of the client that a header of the PROXY protocol names. It may be that of
    /// a proxy of HTTP.
    pub(super) address: SocketAddr,
    pub(super) kind: ListenerKind,
    /// What the connection is charged to before its first request.
    pub(super) origin: Origin,
}

impl Accepted {
    /// What is known of the connection once a header of the PROXY protocol has named its client.
    pub(super) fn named_by_header(self, client: SocketAddr) -> Self {
        Self { address: client, origin: Origin::Client(Host::of(client.ip())), ..self }
    }
}
