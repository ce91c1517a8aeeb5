//! The kinds of listeners.

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
