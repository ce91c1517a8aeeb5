//! The control plane: from an accepted socket to a connection that the data plane reads.
//!
//! Everything that takes long happens here, on threads that give way to the data plane's. A connection goes through these
//! stages, each with a deadline, and each ends it with a refusal, whose reason is a metric label:
//!
//! | stage | what | file |
//! |---|---|---|
//! | accept | a socket, within the bounds on connections | `accept.rs`, `accounts.rs` |
//! | read the proxy's header | the client that a proxy of TCP names, where one is configured | `proxy_protocol.rs` |
//! | turn away | an answer to a neighbouring protocol that the listener does not speak | `neighbour.rs` |
//! | secure | the TLS handshake, unless the listener is plain | `tls.rs` |
//! | read the request | HTTP, until a request asks for DERP | `http/` |
//! | introduce | the DERP login: the client proves its key | `login.rs` |
//! | admit | what the client may use the relay for | `crate::admission`, `towpath_relay_proto::admission` |
//! | attach | the connection is handed to the data plane | `attach.rs` |
//!
//! `frontend.rs` runs them in order.

mod accept;
mod accounts;
mod attach;
mod frontend;
mod http;
mod listener;
mod login;
mod metrics;
mod neighbour;
mod proxy_protocol;
mod refusal;
mod stream;
mod tls;

pub(crate) use accept::accept;
pub(crate) use accounts::Accounts;
pub(crate) use frontend::Frontend;
pub(crate) use http::{Bootstrap, Http, Proxies, Site};
pub(crate) use listener::ListenerKind;
pub(crate) use login::NodeKeys;
pub(crate) use metrics::ControlMetrics;
pub(crate) use neighbour::NeighbourLog;
pub(crate) use proxy_protocol::ProxyProtocol;
pub(crate) use refusal::RefusalReason;
