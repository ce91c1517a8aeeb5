//! The server under load, in a form that processes can send each other.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};
use towpath_wire::pin::CertificatePin;

use crate::protocol::RelayProtocol;

/// The server to put load on.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct LoadTarget {
    /// The address that the server listens on.
    pub(crate) address: SocketAddr,
    /// The server's name in TLS and HTTP.
    pub(crate) name: String,
    /// How connections to it are secured.
    pub(crate) security: TargetSecurity,
    /// The protocol that the server speaks.
    pub(crate) protocol: RelayProtocol,
}

/// How connections to the server are secured.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum TargetSecurity {
    /// Plain TCP.
    Plain,
    /// TLS in any version that both sides support.
    Tls(TargetTrust),
    /// TLS 1.2.
    Tls12(TargetTrust),
}

/// The certificates that TLS accepts from the server.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum TargetTrust {
    /// The certificate that this pin names.
    Pin(CertificatePin),
    /// Any certificate.
    Anyone,
}
