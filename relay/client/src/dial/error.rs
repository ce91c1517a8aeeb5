//! The steps of dialling, and why one failed.

use std::io;
use std::net::SocketAddr;

use towpath_wire::labels;

use crate::http::UpgradeError;
use crate::login::LoginError;
use crate::proxy::{Proxy, ProxyFailure};
use crate::tls_failure::TlsFailure;

labels! {
    /// A step of dialling.
    pub enum DialStep {
        /// Looking the host up.
        Resolve = "resolve",
        /// Connecting to one of its addresses.
        Tcp = "tcp",
        /// Connecting to a proxy in place of both, and its tunnel.
        Proxy = "proxy",
        /// The TLS handshake.
        Tls = "tls",
        /// The HTTP upgrade.
        Upgrade = "upgrade",
        /// The DERP login.
        Login = "login",
    }
}

/// Why a relay could not be dialled: one variant for each [`DialStep`], and the deadline.
#[derive(Debug, thiserror::Error)]
pub enum DialError {
    /// The host has no address.
    #[error("cannot resolve {host}")]
    Resolve {
        /// The host.
        host: String,
        /// What the resolver says.
        source: io::Error,
    },
    /// No address of it accepts.
    #[error("cannot connect to {address}")]
    Tcp {
        /// The address that failed last.
        address: SocketAddr,
        /// What the system says.
        source: io::Error,
    },
    /// The proxy makes no tunnel to the relay.
    #[error("no tunnel through the proxy {proxy}")]
    Proxy {
        /// The proxy.
        proxy: Proxy,
        /// What went wrong.
        source: ProxyFailure,
    },
    /// The TLS handshake failed, or the certificate is not trusted.
    #[error("the TLS handshake failed")]
    Tls(#[source] TlsFailure),
    /// The HTTP upgrade failed.
    #[error("the HTTP upgrade failed")]
    Upgrade(#[source] UpgradeError),
    /// The login failed.
    #[error("the login failed")]
    Login(#[source] LoginError),
    /// The deadline was over during this step.
    #[error("the deadline passed during the step `{}`", .0.label())]
    Timeout(DialStep),
}

impl DialError {
    /// The step that failed.
    #[must_use]
    pub const fn step(&self) -> DialStep {
        match self {
            Self::Resolve { .. } => DialStep::Resolve,
            Self::Tcp { .. } => DialStep::Tcp,
            Self::Proxy { .. } => DialStep::Proxy,
            Self::Tls(_) => DialStep::Tls,
            Self::Upgrade(_) => DialStep::Upgrade,
            Self::Login(_) => DialStep::Login,
            Self::Timeout(step) => *step,
        }
    }
}
