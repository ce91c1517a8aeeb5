//! The node key that a relay shows to any client, as `mesh.peers` of another one needs it.
//!
//! A derper never says its public key anywhere else.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use towpath_relay_client::{DialError, Dialer, Greeting, SetupError, TlsFailureKind, TlsVersions, Trust};
use towpath_wire::host::bracketed;
use towpath_wire::key::NodePublic;
use towpath_wire::pin::CertificatePin;
use towpath_wire::ports;

use crate::config::host_and_port;
use crate::identity::pin_of_chain;
use crate::tls::root_certificates;

/// A relay to ask.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    host: String,
    port: u16,
    tls: bool,
}

/// A text that names no relay.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "expected a DNS name or an IP address, with a port unless it is 443, such as relay.example.com or [2001:db8::1]:8443; http://HOST:PORT asks without TLS"
)]
pub struct TargetTextError;

impl FromStr for Target {
    type Err = TargetTextError;

    fn from_str(text: &str) -> Result<Self, TargetTextError> {
        let (tls, rest) = match text.split_once("://") {
            None => (true, text),
            Some(("https", rest)) => (true, rest),
            Some(("http", rest)) => (false, rest),
            Some(_) => return Err(TargetTextError),
        };
        let (host, port) = host_and_port(rest.strip_suffix('/').unwrap_or(rest)).ok_or(TargetTextError)?;
        // A URL without a port means another one than 443 here.
        let has_port = rest.trim_end_matches('/').ends_with(&format!(":{port}"));
        let port = if tls || has_port { port } else { ports::HTTP };
        Ok(Self { host, port, tls })
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", bracketed(&self.host), self.port)
    }
}

/// What a relay shows.
#[derive(Clone, Debug)]
pub struct ShownKey {
    /// The node key.
    pub key: NodePublic,
    /// The pin of its certificate, if that is self-signed.
    pub pin: Option<CertificatePin>,
    /// Why no root vouches for the answer, so that something on the way could have given it.
    pub doubt: Option<String>,
}

/// The reason why a relay's key is not known.
#[derive(Debug, thiserror::Error)]
pub enum ShownKeyError {
    /// The relay cannot be asked.
    #[error("cannot ask {target}{hint}")]
    Dial {
        /// The relay.
        target: Target,
        /// What to try instead, after a semicolon; or nothing.
        hint: String,
        /// Why.
        source: DialError,
    },
    /// This program cannot ask it.
    #[error("cannot ask {0}")]
    Setup(Target, #[source] SetupError),
}

/// Asks a relay for its key. It is asked with the system's roots first, and if they do not vouch for it, with any certificate.
///
/// # Errors
///
/// See [`ShownKeyError`].
pub async fn ask(target: &Target) -> Result<ShownKey, ShownKeyError> {
    if !target.tls {
        let greeting = Dialer::plain(&target.host, target.port).greet().await;
        let greeting = greeting.map_err(|source| failed(target, source))?;
        return Ok(shown(greeting, Some("the connection is plain HTTP".into())));
    }
    let doubt = match root_certificates(None) {
        Ok(roots) => match greet(target, &Trust::Roots(Arc::new(roots))).await? {
            Ok(greeting) => return Ok(shown(greeting, None)),
            Err(DialError::Tls(failure)) if is_doubt(failure.kind()) => failure.to_string(),
            Err(error) => return Err(failed(target, error)),
        },
        Err(error) => format!("this host has no root certificates: {error}"),
    };
    match greet(target, &Trust::Anyone).await? {
        Ok(greeting) => Ok(shown(greeting, Some(doubt))),
        Err(error) => Err(failed(target, error)),
    }
}

async fn greet(target: &Target, trust: &Trust) -> Result<Result<Greeting, DialError>, ShownKeyError> {
    let dialer = Dialer::tls(&target.host, target.port, trust, TlsVersions::Both)
        .map_err(|error| ShownKeyError::Setup(target.clone(), error))?;
    Ok(dialer.greet().await)
}

fn shown(Greeting { relay, chain }: Greeting, doubt: Option<String>) -> ShownKey {
    ShownKey { key: relay, pin: pin_of_chain(&chain), doubt }
}

/// Whether the relay answers in TLS, with a certificate that is not trusted.
const fn is_doubt(kind: &TlsFailureKind) -> bool {
    matches!(
        kind,
        TlsFailureKind::AuthorityAsServer
            | TlsFailureKind::UnknownIssuer
            | TlsFailureKind::Expired
            | TlsFailureKind::NotYetValid
            | TlsFailureKind::OtherName(_)
            | TlsFailureKind::NoName
            | TlsFailureKind::Purpose
            | TlsFailureKind::Signature
            | TlsFailureKind::Certificate(_)
    )
}

fn failed(target: &Target, source: DialError) -> ShownKeyError {
    let hint = match &source {
        DialError::Tls(failure) if *failure.kind() == TlsFailureKind::PlainHttp => {
            format!("; http://{target} asks without TLS")
        }
        DialError::Tls(failure) if matches!(failure.kind(), TlsFailureKind::UnknownName(_)) => {
            "; give the name that its certificate is for".into()
        }
        DialError::Upgrade(_) if !target.tls => format!("; {target} asks with TLS"),
        _ => String::new(),
    };
    ShownKeyError::Dial { target: target.clone(), hint, source }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_relay_is_named_by_host_and_port_and_perhaps_without_tls() {
        for (text, host, port, tls) in [
            ("relay.example.com", "relay.example.com", 443, true),
            ("relay.example.com:8443", "relay.example.com", 8443, true),
            ("https://relay.example.com/", "relay.example.com", 443, true),
            ("[2001:db8::1]:8443", "2001:db8::1", 8443, true),
            ("http://192.0.2.1:3340", "192.0.2.1", 3340, false),
            ("http://relay.example.com", "relay.example.com", 80, false),
        ] {
            assert_eq!(text.parse(), Ok(Target { host: host.into(), port, tls }), "{text}");
        }
        for text in ["", "ftp://relay.example.com", "relay.example.com/derp", "relay.example.com:0", "a b"] {
            assert_eq!(text.parse::<Target>(), Err(TargetTextError), "{text}");
        }
    }
}
