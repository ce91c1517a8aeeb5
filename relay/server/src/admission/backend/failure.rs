//! Why a backend cannot tell: the error in the words of an operator, and its label.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use hyper::StatusCode;
use towpath_relay_client::TlsFailure;
use towpath_service::visible_path;
use towpath_wire::labels;

labels! {
    /// Why a backend of admission gave no answer that counts.
    pub(crate) enum BackendFailure {
        /// The host of `verify.url` could not be looked up.
        Resolve = "resolve",
        /// No connection could be made: nothing listens there, the socket is missing, or the network is down.
        Connect = "connect",
        /// The relay may not open the socket of tailscaled, or tailscaled does not answer it.
        Denied = "denied",
        /// The TLS handshake failed, as with a certificate that the relay does not trust.
        Tls = "tls",
        /// No whole answer came within `verify.timeout`, for tailscaled within 5 s.
        Timeout = "timeout",
        /// The connection broke before the whole answer had come.
        Broken = "broken",
        /// The bytes that came were not HTTP, or the head of the answer was longer than 16 KiB.
        NotHttp = "not_http",
        /// The answer was a redirect, which is not followed.
        Redirect = "redirect",
        /// The backend asked for fewer requests (status 429).
        Throttled = "throttled",
        /// The answer had another status from 400 to 499, as that of a proxy in front of the backend.
        ClientError = "client_error",
        /// The answer had a status from 500 to 599.
        ServerError = "server_error",
        /// The answer had a status that the contract does not have.
        OtherStatus = "other_status",
        /// The body of the answer was longer than it may be.
        TooLong = "too_long",
        /// The body of the answer was not what the contract asks for.
        NotJson = "not_json",
        /// The local tailscaled does not know questions about node keys.
        TooOld = "too_old",
        /// The local tailscaled knows no nodes yet, or is not logged in.
        NotReady = "not_ready",
        /// The program that answered at the socket was not tailscaled.
        NotTailscaled = "not_tailscaled",
        /// Too many other questions waited, or no request of 64 came to an end in time.
        Busy = "busy",
        /// The backend had failed several times in a row and was left in peace for a moment.
        Resting = "resting",
    }
}

labels! {
    /// The part of a question at which its time ran out.
    pub(super) enum Step {
        /// The host is looked up.
        Resolve = "the host was looked up",
        /// A connection is made.
        Connect = "a connection was made",
        /// TLS shakes hands.
        Tls = "TLS shook hands",
        /// The question is sent, and the answer read.
        Answer = "the answer was waited for",
    }
}

/// The reason why a backend gave no answer that counts.
#[derive(Debug, thiserror::Error)]
pub(super) enum AskError {
    #[error("cannot look up {host}")]
    Resolve { host: String, source: io::Error },
    #[error("cannot connect to {to}")]
    Connect { to: String, source: io::Error },
    #[error("{path} may not be opened: give the relay's user the right to read and write it", path = visible_path(path))]
    Denied { path: PathBuf, source: io::Error },
    #[error(
        "tailscaled does not let the relay ask (status {0}): run the relay as root or as the operator of tailscaled"
    )]
    Forbidden(StatusCode),
    #[error("the TLS handshake failed")]
    Tls(#[source] TlsFailure),
    #[error("no whole answer came within {limit:?}; the time ran out while {step}", step = step.label())]
    Timeout { limit: Duration, step: Step },
    #[error("the connection broke before the whole answer had come")]
    Broken(#[source] hyper::Error),
    #[error("what answers there does not speak HTTP/1.1")]
    NotHttp(#[source] hyper::Error),
    #[error("the head of the answer is longer than 16 KiB")]
    LongHead,
    #[error(
        "the answer is a redirect (status {status}) to {to}, which is not followed: name the place that answers"
    )]
    Redirect { status: StatusCode, to: String },
    #[error("the answer has the status {0}, and only 200 counts")]
    Status(StatusCode),
    #[error("the answer is longer than {0} bytes")]
    TooLong(usize),
    #[error("the answer is not {0}")]
    NotJson(&'static str),
    #[error("the local tailscaled is too old to be asked about node keys: update it")]
    TooOld,
    #[error(
        "the local tailscaled has no list of nodes now (its state is {0:?}): log it in, or wait until it has started"
    )]
    NotReady(String),
    #[error("what answers at the socket is not tailscaled: check tailscaled.socket")]
    NotTailscaled,
    #[error(
        "the question waited for others until its time was over: the backend is slower than clients come"
    )]
    Busy,
}

impl AskError {
    /// The label of the failure.
    pub(super) fn failure(&self) -> BackendFailure {
        match self {
            Self::Resolve { .. } => BackendFailure::Resolve,
            Self::Connect { .. } => BackendFailure::Connect,
            Self::Denied { .. } | Self::Forbidden(_) => BackendFailure::Denied,
            Self::Tls(_) => BackendFailure::Tls,
            Self::Timeout { .. } => BackendFailure::Timeout,
            Self::Broken(_) => BackendFailure::Broken,
            Self::NotHttp(_) | Self::LongHead => BackendFailure::NotHttp,
            Self::Redirect { .. } => BackendFailure::Redirect,
            Self::Status(StatusCode::TOO_MANY_REQUESTS) => BackendFailure::Throttled,
            Self::Status(status) if status.is_client_error() => BackendFailure::ClientError,
            Self::Status(status) if status.is_server_error() => BackendFailure::ServerError,
            Self::Status(_) => BackendFailure::OtherStatus,
            Self::TooLong(_) => BackendFailure::TooLong,
            Self::NotJson(_) => BackendFailure::NotJson,
            Self::TooOld => BackendFailure::TooOld,
            Self::NotReady(_) => BackendFailure::NotReady,
            Self::NotTailscaled => BackendFailure::NotTailscaled,
            Self::Busy => BackendFailure::Busy,
        }
    }

    /// The error of a connection that carried the question.
    pub(super) fn of_http(error: hyper::Error) -> Self {
        if error.is_parse_too_large() {
            Self::LongHead
        } else if error.is_parse() {
            Self::NotHttp(error)
        } else {
            Self::Broken(error)
        }
    }
}
