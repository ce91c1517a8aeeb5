//! Why a connection ends before a worker has it.

use std::io;

use towpath_relay_proto::login::LoginError;
use towpath_tls::HandshakeError;
use towpath_wire::derp::info::ClientInfoError;

use crate::forward::websocket::Stop;

/// Why a connection did not become a client. The variants are metric labels.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Refusal {
    #[error("its host holds as many connections that have not logged in as it may")]
    HostLimit,
    #[error("the plain listener is for proxies")]
    NotAProxy,
    #[error("the TLS handshake took too long")]
    HandshakeTimeout,
    #[error("TLS: {0}")]
    Handshake(HandshakeError),
    #[error("HTTP: {0}")]
    Http(hyper::Error),
    #[error("the HTTP connection was idle or too long")]
    HttpTimeout,
    #[error("the login took too long")]
    LoginTimeout,
    #[error("WebSocket without the subprotocol derp")]
    Subprotocol,
    #[error("WebSocket: {0}")]
    WebSocket(Stop),
    #[error("login: {0}")]
    Login(LoginError),
    #[error("the connection broke during the login: {0}")]
    Broken(io::Error),
}

impl Refusal {
    pub(crate) const LABELS: [&'static str; 13] = [
        "host_limit",
        "not_a_proxy",
        "handshake_timeout",
        "handshake",
        "http",
        "http_timeout",
        "login_timeout",
        "subprotocol",
        "websocket",
        "bad_frame",
        "bad_key",
        "bad_info",
        "broken",
    ];

    pub(crate) const fn label(&self) -> &'static str {
        match self {
            Self::HostLimit => "host_limit",
            Self::NotAProxy => "not_a_proxy",
            Self::HandshakeTimeout => "handshake_timeout",
            Self::Handshake(_) => "handshake",
            Self::Http(_) => "http",
            Self::HttpTimeout => "http_timeout",
            Self::LoginTimeout => "login_timeout",
            Self::Subprotocol => "subprotocol",
            Self::WebSocket(Stop::Closed) => "broken",
            Self::WebSocket(_) => "websocket",
            Self::Login(LoginError::NotClientInfo(_) | LoginError::Length(_)) => "bad_frame",
            Self::Login(LoginError::ClientInfo(ClientInfoError::Key | ClientInfoError::Box)) => "bad_key",
            Self::Login(LoginError::ClientInfo(_)) => "bad_info",
            Self::Broken(_) => "broken",
        }
    }
}
