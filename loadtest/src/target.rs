//! The relay under load, in a form that processes can tell each other.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};
use towpath_wire::pin::CertificatePin;

use crate::protocol::Protocol;

/// A relay to put load on.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Target {
    /// Where it listens.
    pub address: SocketAddr,
    /// What it is called, in TLS and HTTP.
    pub name: String,
    /// How the connection is secured.
    pub security: Security,
    /// What it speaks.
    pub protocol: Protocol,
}

/// How a connection is secured.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Security {
    /// Plain TCP.
    Plain,
    /// TLS in any version that both sides have.
    Tls(TrustIn),
    /// TLS 1.2.
    Tls12(TrustIn),
}

/// Whom TLS believes to be the relay.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum TrustIn {
    /// The certificate that this pin names.
    Pin(CertificatePin),
    /// Anyone who answers.
    Anyone,
}
