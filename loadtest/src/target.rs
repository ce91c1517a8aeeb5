//! The relay under load, in a form that processes can tell each other.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};
use towpath_wire::pin::CertificatePin;

use crate::protocol::RelayProtocol;

/// A relay to put load on.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct LoadTarget {
    /// Where it listens.
    pub address: SocketAddr,
    /// What it is called, in TLS and HTTP.
    pub name: String,
    /// How the connection is secured.
    pub security: TargetSecurity,
    /// What it speaks.
    pub protocol: RelayProtocol,
}

/// How a connection is secured.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum TargetSecurity {
    /// Plain TCP.
    Plain,
    /// TLS in any version that both sides have.
    Tls(TargetTrust),
    /// TLS 1.2.
    Tls12(TargetTrust),
}

/// Whom TLS believes to be the relay.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum TargetTrust {
    /// The certificate that this pin names.
    Pin(CertificatePin),
    /// Anyone who answers.
    Anyone,
}
