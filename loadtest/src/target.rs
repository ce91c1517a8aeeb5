//! The relay under load, in a form that processes can tell each other.

use std::net::SocketAddr;

use anyhow::Result;
use relay_client::{Dialer, TlsVersions, Trust};
use serde::{Deserialize, Serialize};

/// A relay to put load on.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Target {
    /// Where it listens.
    pub address: SocketAddr,
    /// What it is called, in TLS and HTTP.
    pub name: String,
    /// How the connection is secured.
    pub security: Security,
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
    /// The certificate with this SHA-256.
    Pin([u8; 32]),
    /// Anyone who answers.
    Anyone,
}

impl Target {
    pub(crate) fn dialer(&self) -> Result<Dialer> {
        let (trust, versions) = match &self.security {
            Security::Plain => return Ok(Dialer::plain(&self.name, self.address.port()).at(self.address)),
            Security::Tls(trust) => (trust, TlsVersions::Both),
            Security::Tls12(trust) => (trust, TlsVersions::Only12),
        };
        let trust = match trust {
            TrustIn::Pin(hash) => Trust::Pin(*hash),
            TrustIn::Anyone => Trust::Anyone,
        };
        Ok(Dialer::tls(&self.name, self.address.port(), &trust, versions)?.at(self.address))
    }
}
