//! Dialling a DERP relay: TCP, TLS, the HTTP upgrade with and without fast start, login; then frames.
//!
//! - [`Dialer`] knows a relay and how it is trusted ([`Trust`]). [`Dialer::connect`] goes through all steps under one
//!   deadline and says in [`DialError`] at which it failed.
//! - [`Client`] is what comes of it: packets and batches of packets out, [`Event`]s in. [`Client::split`] makes two
//!   halves for two tasks, [`Client::into_raw`] takes it apart for programs with loops of their own.
//! - DERP is spoken as it is, or in WebSocket messages ([`Dialer::websocket`]); a client works the same over either.
//! - [`Proxy`] is an HTTP proxy in between ([`Dialer::through`]), given as a URL or by the environment.
//!
//! Certificates of relays are read here only as far as DERP asks for it: the node key in the meta certificate, and the
//! names and dates of a leaf that is trusted by its hash.

#![forbid(unsafe_code)]

mod certificate;
mod client;
mod dial;
mod event;
mod http;
mod incoming;
mod login;
mod outgoing;
mod proxy;
mod tcp;
mod tls;
mod tls_failure;
mod trust;
mod websocket;

pub use certificate::{Validity, plain_name, relay_key};
pub use client::{Client, ClientReceiver, ClientSender, Raw};
pub use dial::{CONNECT_TIMEOUT, DialError, DialStep, Dialer, Greeting};
pub use event::Event;
pub use http::{UpgradeError, read_response};
pub use incoming::{READ_TIMEOUT, RecvError};
pub use login::LoginError;
pub use outgoing::SendError;
pub use proxy::{Proxy, ProxyFailure, ProxyUrlError, ProxyVariableError};
pub use tls_failure::{TlsFailure, TlsFailureKind};
pub use trust::{NotTrusted, SetupError, TlsVersions, Trust, certificate_pin, client_config};
