//! Why a connection ends before a worker has it.

use std::io;

use towpath_relay_forward::WebSocketEnd;
use towpath_relay_proto::admission::NotAdmitted;
use towpath_relay_proto::login::LoginError;
use towpath_tls::HandshakeError;
use towpath_wire::derp::info::ClientInfoError;
use towpath_wire::labels;

/// Why a connection did not become a client, with what was found. Its [`reason`](Self::reason) is a metric label.
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
    WebSocket(WebSocketEnd),
    #[error("login: {0}")]
    Login(LoginError),
    #[error(transparent)]
    NotAdmitted(NotAdmitted),
    #[error("the connection broke during the login: {0}")]
    Broken(io::Error),
}

labels! {
    /// The reason of a [`Refusal`], as metrics have it.
    pub(crate) enum RefusalReason {
        /// The host has as many connections that have not logged in as it may.
        HostLimit = "host_limit",
        /// The plain listener was dialled by something that is no configured proxy.
        NotAProxy = "not_a_proxy",
        /// The TLS handshake took too long.
        HandshakeTimeout = "handshake_timeout",
        /// The TLS handshake failed.
        Handshake = "handshake",
        /// The client broke HTTP.
        Http = "http",
        /// The HTTP connection was idle or lived too long.
        HttpTimeout = "http_timeout",
        /// The login took too long.
        LoginTimeout = "login_timeout",
        /// A WebSocket handshake without the subprotocol of DERP.
        Subprotocol = "subprotocol",
        /// The client broke WebSocket.
        WebSocket = "websocket",
        /// The first frame is not a ClientInfo of a plausible length.
        BadFrame = "bad_frame",
        /// The client has not proved its key.
        BadKey = "bad_key",
        /// The ClientInfo cannot be read.
        BadInfo = "bad_info",
        /// No policy admits the key.
        NotAdmitted = "not_admitted",
        /// No policy admits the key, and at least one cannot tell.
        AdmissionUnknown = "admission_unknown",
        /// The connection broke during the login.
        Broken = "broken",
    }
}

impl Refusal {
    pub(crate) const fn reason(&self) -> RefusalReason {
        match self {
            Self::HostLimit => RefusalReason::HostLimit,
            Self::NotAProxy => RefusalReason::NotAProxy,
            Self::HandshakeTimeout => RefusalReason::HandshakeTimeout,
            Self::Handshake(_) => RefusalReason::Handshake,
            Self::Http(_) => RefusalReason::Http,
            Self::HttpTimeout => RefusalReason::HttpTimeout,
            Self::LoginTimeout => RefusalReason::LoginTimeout,
            Self::Subprotocol => RefusalReason::Subprotocol,
            Self::WebSocket(WebSocketEnd::Closed) => RefusalReason::Broken,
            Self::WebSocket(_) => RefusalReason::WebSocket,
            Self::Login(LoginError::NotClientInfo(_) | LoginError::Length(_)) => RefusalReason::BadFrame,
            Self::Login(LoginError::ClientInfo(ClientInfoError::Key | ClientInfoError::Box)) => {
                RefusalReason::BadKey
            }
            Self::Login(LoginError::ClientInfo(_)) => RefusalReason::BadInfo,
            Self::NotAdmitted(NotAdmitted::Refused) => RefusalReason::NotAdmitted,
            Self::NotAdmitted(NotAdmitted::CannotTell) => RefusalReason::AdmissionUnknown,
            Self::Broken(_) => RefusalReason::Broken,
        }
    }
}
