//! Refusals: why a connection ends before a worker has it.

use std::borrow::Cow;
use std::io;

use towpath_relay_forward::WebSocketEnd;
use towpath_relay_proto::account::Exceeded;
use towpath_relay_proto::admission::NotAdmitted;
use towpath_relay_proto::login::{LoginError, refusal_text};
use towpath_relay_proto::proxy_header::ProxyHeaderError;
use towpath_relay_proto::token::TokenError;
use towpath_tls::HandshakeError;
use towpath_wire::derp::info::ClientInfoError;
use towpath_wire::labels;

use super::neighbour::Neighbour;

/// The reason why a connection did not become a client, with details. Its [`reason`](Self::reason) is a metric label.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Refusal {
    #[error(transparent)]
    Exceeded(Exceeded),
    #[error("another connection took its place before it had logged in (login.max_pending)")]
    Displaced,
    #[error("no more files can be opened")]
    OpenFiles,
    #[error("no byte came in time (login.first_byte_timeout)")]
    FirstByteTimeout,
    #[error("a proxy of proxy_protocol.sources sent no whole header in time (login.first_byte_timeout)")]
    ProxyHeaderTimeout,
    #[error("a proxy of proxy_protocol.sources sent no header that can be used")]
    ProxyHeader(#[source] ProxyHeaderError),
    #[error(transparent)]
    Neighbour(Neighbour),
    #[error("the host asks for TLS handshakes too fast while the relay is busy")]
    HandshakeRate,
    #[error(
        "not one of the proxies that may connect to the plain listener (http.proxies, proxy_protocol.sources)"
    )]
    NotAProxy,
    #[error("the TLS handshake took too long (login.handshake_timeout)")]
    HandshakeTimeout,
    #[error("the TLS handshake failed")]
    Handshake(#[source] HandshakeError),
    #[error("the HTTP connection failed")]
    Http(#[source] hyper::Error),
    #[error("the HTTP connection was idle or open for too long")]
    HttpTimeout,
    #[error("the HTTP connection has had as many answers as it may")]
    HttpRequests,
    #[error("the login took too long (login.login_timeout)")]
    LoginTimeout,
    #[error("the WebSocket handshake lacks the subprotocol derp")]
    Subprotocol,
    #[error("the WebSocket connection ended before the login")]
    WebSocket(#[source] WebSocketEnd),
    #[error("the login failed")]
    Login(#[source] LoginError),
    #[error(
        "the login is bound to another TLS connection than it came on: something between client and relay ends TLS, or the login \
         is repeated"
    )]
    BoundElsewhere,
    #[error(transparent)]
    NotAdmitted(NotAdmitted),
    #[error(transparent)]
    Token(TokenError),
    #[error("the key was refused from this host a moment ago, and nothing has been asked again")]
    RefusedBefore,
    #[error("the host has brought too many keys that no policy admits, and this one is not known")]
    KeyRate,
    #[error("clients with the app name that it states are refused (login.refuse_app_names)")]
    AppName,
    #[error("the connection broke during the login")]
    Broken(#[source] io::Error),
}

labels! {
    /// The reason of a [`Refusal`], as metrics have it.
    pub(crate) enum RefusalReason {
        /// The host of the client held `login.max_pending_per_host` places already, and each had sent something.
        HostLimit = "host_limit",
        /// The host of the client held `login.max_connections_per_host` connections already.
        HostConnectionLimit = "host_connection_limit",
        /// The relay held `login.max_connections` connections already.
        ConnectionLimit = "connection_limit",
        /// A newer connection took the place: all were taken, and this connection was the oldest of a host with the most, as a
        /// rule one that had sent nothing.
        Displaced = "displaced",
        /// The process could open no more files, which `login.max_connections` prevents by default.
        OpenFiles = "open_files",
        /// The connection sent nothing for `login.first_byte_timeout`.
        FirstByteTimeout = "first_byte_timeout",
        /// The host of the client asked for more than 128 TLS handshakes a second while more than half of the
        /// `login.max_pending` places were taken.
        HandshakeRate = "handshake_rate",
        /// The connection to `http.listen` came from an address that is not in `http.proxies`, nor in
        /// `proxy_protocol.sources`.
        NotAProxy = "not_a_proxy",
        /// HTTP without TLS came to `listen`, which speaks TLS. The answer is 400.
        HttpOnTls = "http_on_tls",
        /// A header of the PROXY protocol came from an address that is not in `proxy_protocol.sources`.
        ProxyHeader = "proxy_header",
        /// A connection from `proxy_protocol.sources` began without a header of the PROXY protocol.
        ProxyHeaderMissing = "proxy_header_missing",
        /// A connection from `proxy_protocol.sources` began with a header that is malformed, or of another version than 1 and 2.
        ProxyHeaderInvalid = "proxy_header_invalid",
        /// A connection from `proxy_protocol.sources` sent no whole header for `login.first_byte_timeout`.
        ProxyHeaderTimeout = "proxy_header_timeout",
        /// TLS came to `http.listen` or `http.redirect_listen`, which are without TLS.
        TlsOnPlain = "tls_on_plain",
        /// HTTP/2 came without TLS, and the relay speaks HTTP/1.1.
        Http2 = "http2",
        /// The TLS handshake took longer than `login.handshake_timeout`.
        HandshakeTimeout = "handshake_timeout",
        /// The TLS handshake failed, as with a port scan, a client that does not trust the certificate, or a
        /// message above 16 KiB.
        Handshake = "handshake",
        /// The bytes that came were not HTTP.
        Http = "http",
        /// No request came for `login.idle_http_timeout`, or the HTTP connection lived longer than five minutes.
        HttpTimeout = "http_timeout",
        /// The HTTP connection had 16 answers, and none of its requests asked for DERP.
        HttpRequests = "http_requests",
        /// The login took longer than `login.login_timeout`.
        LoginTimeout = "login_timeout",
        /// The WebSocket client did not offer the subprotocol `derp`.
        Subprotocol = "subprotocol",
        /// The client broke WebSocket during the login.
        WebSocket = "websocket",
        /// The first frame is not a ClientInfo, or its length is impossible.
        BadFrame = "bad_frame",
        /// The client does not own its key, or means another relay, or its key is of small order or not canonical.
        BadKey = "bad_key",
        /// The message of the login is not a client's.
        BadInfo = "bad_info",
        /// The client stated an app name of more than 32 bytes, or with others than printable ASCII.
        BadAppName = "bad_app_name",
        /// The login is bound to another TLS connection than it came on. Something between client and relay ends TLS, or an attacker
        /// repeats a login that it has read.
        BoundElsewhere = "bound_elsewhere",
        /// No policy admits the key.
        NotAdmitted = "not_admitted",
        /// No policy admits the key, and at least one could not tell in time.
        AdmissionUnknown = "admission_unknown",
        /// The client presented no token, and only a token could have admitted it.
        TokenMissing = "token_missing",
        /// The client presented something else than a token.
        TokenMalformed = "token_malformed",
        /// No key in `tokens.key_file` has signed the token.
        TokenForged = "token_forged",
        /// The token has expired.
        TokenExpired = "token_expired",
        /// The token is not valid yet, or the clock of the relay is behind.
        TokenNotYetValid = "token_not_yet_valid",
        /// The token is for another node key.
        TokenOtherKey = "token_other_key",
        /// The token is for another relay.
        TokenOtherRelay = "token_other_relay",
        /// The key was refused from the same host in the last 5 s (1 s where a policy could not tell), so nothing was asked.
        RefusedBefore = "refused_before",
        /// The host has brought more than 32 keys in a second that no policy admits, and this key is not known either.
        RefusalRate = "refusal_rate",
        /// The client states an app name of `login.refuse_app_names`.
        AppName = "app_name",
        /// The connection broke during the login.
        Broken = "broken",
    }
}

impl RefusalReason {
    /// The reason of a refusal because of a token.
    pub(crate) const fn of_token(fault: TokenError) -> Self {
        match fault {
            TokenError::Missing => Self::TokenMissing,
            TokenError::Malformed => Self::TokenMalformed,
            TokenError::Forged => Self::TokenForged,
            TokenError::Expired => Self::TokenExpired,
            TokenError::NotYetValid => Self::TokenNotYetValid,
            TokenError::OtherKey => Self::TokenOtherKey,
            TokenError::OtherRelay => Self::TokenOtherRelay,
        }
    }
}

impl Refusal {
    /// The text by which a client that has proved its key is told, in a Health frame before the close. One that was told a
    /// moment ago is not told again.
    pub(super) fn health(&self) -> Option<Cow<'static, str>> {
        match self {
            // The clients of this project know the reason by its label.
            Self::BoundElsewhere | Self::Token(_) => {
                Some(refusal_text(self.reason().label(), &self.to_string()).into())
            }
            Self::NotAdmitted(NotAdmitted::Refused) => {
                Some("this relay does not admit the node key of this device; ask its operator".into())
            }
            Self::NotAdmitted(NotAdmitted::CannotTell) => Some(
                "this relay cannot ask whether it may admit this device; it tries again when the device does"
                    .into(),
            ),
            Self::AppName => Some("this relay refuses the app name of this device".into()),
            _ => None,
        }
    }

    pub(crate) const fn reason(&self) -> RefusalReason {
        match self {
            Self::Exceeded(Exceeded::PendingOfSource) => RefusalReason::HostLimit,
            Self::Exceeded(Exceeded::ConnectionsOfSource) => RefusalReason::HostConnectionLimit,
            Self::Exceeded(Exceeded::Connections) => RefusalReason::ConnectionLimit,
            Self::Displaced => RefusalReason::Displaced,
            Self::OpenFiles => RefusalReason::OpenFiles,
            Self::FirstByteTimeout => RefusalReason::FirstByteTimeout,
            Self::ProxyHeaderTimeout => RefusalReason::ProxyHeaderTimeout,
            Self::ProxyHeader(ProxyHeaderError::Missing) => RefusalReason::ProxyHeaderMissing,
            Self::ProxyHeader(_) => RefusalReason::ProxyHeaderInvalid,
            Self::Neighbour(Neighbour::HttpOnTls) => RefusalReason::HttpOnTls,
            Self::Neighbour(Neighbour::ProxyHeader) => RefusalReason::ProxyHeader,
            Self::Neighbour(Neighbour::TlsOnPlain) => RefusalReason::TlsOnPlain,
            Self::Neighbour(Neighbour::Http2) => RefusalReason::Http2,
            Self::HandshakeRate => RefusalReason::HandshakeRate,
            Self::NotAProxy => RefusalReason::NotAProxy,
            Self::HandshakeTimeout => RefusalReason::HandshakeTimeout,
            Self::Handshake(_) => RefusalReason::Handshake,
            Self::Http(_) => RefusalReason::Http,
            Self::HttpTimeout => RefusalReason::HttpTimeout,
            Self::HttpRequests => RefusalReason::HttpRequests,
            Self::LoginTimeout => RefusalReason::LoginTimeout,
            Self::Subprotocol => RefusalReason::Subprotocol,
            Self::WebSocket(WebSocketEnd::Closed) => RefusalReason::Broken,
            Self::WebSocket(_) => RefusalReason::WebSocket,
            Self::Login(LoginError::NotClientInfo(_) | LoginError::Length(_)) => RefusalReason::BadFrame,
            Self::Login(LoginError::ClientInfo(ClientInfoError::Key | ClientInfoError::Box)) => {
                RefusalReason::BadKey
            }
            Self::Login(LoginError::ClientInfo(ClientInfoError::AppName)) => RefusalReason::BadAppName,
            Self::Login(LoginError::ClientInfo(ClientInfoError::Short | ClientInfoError::Json)) => {
                RefusalReason::BadInfo
            }
            Self::BoundElsewhere => RefusalReason::BoundElsewhere,
            Self::NotAdmitted(NotAdmitted::Refused) => RefusalReason::NotAdmitted,
            Self::NotAdmitted(NotAdmitted::CannotTell) => RefusalReason::AdmissionUnknown,
            Self::Token(fault) => RefusalReason::of_token(*fault),
            Self::RefusedBefore => RefusalReason::RefusedBefore,
            Self::KeyRate => RefusalReason::RefusalRate,
            Self::AppName => RefusalReason::AppName,
            Self::Broken(_) => RefusalReason::Broken,
        }
    }
}

#[cfg(test)]
mod tests {
    use towpath_relay_proto::login::BOUND_ELSEWHERE;

    use super::*;

    /// Clients know the reason by its label.
    #[test]
    fn the_reason_that_clients_look_for_is_the_label() {
        assert_eq!(Refusal::BoundElsewhere.reason().label(), BOUND_ELSEWHERE);
        for fault in TokenError::ALL {
            assert_eq!(Refusal::Token(fault).reason().label(), fault.label());
        }
    }
}
