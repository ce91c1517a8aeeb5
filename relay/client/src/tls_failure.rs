//! Failures of TLS in the words of an operator.
//!
//! What rustls says is for programmers: `Other(OtherError(CaUsedAsEndEntity))`. Here each failure that a relay can cause says
//! what was found. What to do about it hangs on what dials and is said there, by [`TlsFailureKind`].

use std::error::Error;
use std::{fmt, io};

use rustls::{AlertDescription, CertificateError, OtherError};
use towpath_tls::{HandshakeError, TlsError};

use crate::certificate::plain_name;
use crate::trust::NotTrusted;

/// Why TLS with a relay failed.
#[derive(Debug)]
pub struct TlsFailure {
    kind: TlsFailureKind,
    error: HandshakeError,
}

/// What went wrong in TLS with a relay.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TlsFailureKind {
    /// The certificate may sign others, and so vouches for no server by the rules of the web.
    #[error(
        "the server's certificate is one of an authority (CA:TRUE), as `openssl req -x509` makes it: no root vouches for it as a server's"
    )]
    AuthorityAsServer,
    /// No trusted root has signed the certificate.
    #[error(
        "the server's certificate is self-signed, or none of the trusted roots has signed it, or the server does not show the certificates in between"
    )]
    UnknownIssuer,
    /// The certificate is not valid any more.
    #[error("the server's certificate has expired, or the clock of this host is wrong")]
    Expired,
    /// The certificate is not valid yet.
    #[error("the server's certificate is not valid yet, or the clock of this host is wrong")]
    NotYetValid,
    /// The certificate has other names, these.
    #[error("the server's certificate is for another name: {0}")]
    OtherName(String),
    /// The certificate has no name that clients look at.
    #[error("the server's certificate has no subject alternative name, and its common name does not count")]
    NoName,
    /// The certificate is not the pinned one, or does not come as a pinned one does.
    #[error(transparent)]
    NotPinned(NotTrusted),
    /// The certificate may not be used by servers.
    #[error("the server's certificate is not one for servers (extended key usage)")]
    Purpose,
    /// The relay does not have the key of its certificate, or a signature in its chain is wrong.
    #[error(
        "a signature is wrong: the server has not the key of its certificate, or an authority of that name has another key than the one that is trusted"
    )]
    Signature,
    /// The certificate, or its chain, cannot be used for another reason, this one.
    #[error("the server's certificate cannot be used: {0}")]
    Certificate(String),
    /// The relay shows no certificate.
    #[error("the server shows no certificate")]
    NoCertificate,
    /// The other side speaks HTTP without TLS.
    #[error("the server speaks plain HTTP at this port, not TLS")]
    PlainHttp,
    /// The other side speaks something else.
    #[error("what the server sent is not TLS")]
    NotTls,
    /// The other side closed before the handshake was over.
    #[error("the server closed the connection during the handshake")]
    Closed,
    /// The socket failed.
    #[error("the connection failed during the handshake")]
    Io,
    /// The other side does not know the name that was asked for.
    #[error("the server has no certificate for the name that it was asked for (alert {0})")]
    UnknownName(&'static str),
    /// The other side wants a certificate of the client.
    #[error("the server wants a certificate from its clients, and this program shows none (alert {0})")]
    ClientCertificate(&'static str),
    /// Both sides have no version or algorithm in common.
    #[error(
        "the server has no version or algorithm of TLS in common with this program: it speaks TLS 1.3 and 1.2"
    )]
    NothingInCommon,
    /// The other side ended TLS with this alert.
    #[error("the server ended TLS with the alert {0}")]
    Alert(String),
    /// The other side broke TLS, or this side failed.
    #[error("TLS failed: {0}")]
    Other(String),
}

impl TlsFailure {
    /// What went wrong.
    #[must_use]
    pub const fn kind(&self) -> &TlsFailureKind {
        &self.kind
    }

    /// The error as the TLS library has it.
    #[must_use]
    pub const fn error(&self) -> &HandshakeError {
        &self.error
    }

    /// Takes an error of TLS out of the error of a stream. Returns an error of the socket as it was.
    pub(crate) fn of_stream(error: io::Error) -> Result<Self, io::Error> {
        if !error.get_ref().is_some_and(|inner| inner.is::<TlsError>()) {
            return Err(error);
        }
        let inner = error.into_inner().and_then(|inner| inner.downcast::<TlsError>().ok());
        Ok(HandshakeError::Tls(*inner.expect("the error was looked at")).into())
    }
}

impl fmt::Display for TlsFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.kind.fmt(f)
    }
}

impl Error for TlsFailure {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        // What the system says is worth reading. What rustls says has been put into words.
        match &self.error {
            HandshakeError::Io(error) if self.kind == TlsFailureKind::Io => Some(error),
            _ => None,
        }
    }
}

impl From<HandshakeError> for TlsFailure {
    fn from(error: HandshakeError) -> Self {
        let kind = match &error {
            HandshakeError::Io(error) if is_close(error) => TlsFailureKind::Closed,
            HandshakeError::Io(_) => TlsFailureKind::Io,
            HandshakeError::PlainHttp => TlsFailureKind::PlainHttp,
            HandshakeError::NotTls => TlsFailureKind::NotTls,
            HandshakeError::Tls(TlsError::Rustls(error)) => kind_of(error),
            HandshakeError::Tls(_) | HandshakeError::TooLong => TlsFailureKind::Other(error.to_string()),
        };
        Self { kind, error }
    }
}

fn is_close(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe
    )
}

fn kind_of(error: &rustls::Error) -> TlsFailureKind {
    match error {
        rustls::Error::InvalidCertificate(error) => kind_of_certificate(error),
        rustls::Error::AlertReceived(alert) => kind_of_alert(*alert),
        rustls::Error::NoCertificatesPresented => TlsFailureKind::NoCertificate,
        rustls::Error::PeerIncompatible(_) => TlsFailureKind::NothingInCommon,
        rustls::Error::InvalidMessage(_) => TlsFailureKind::NotTls,
        error => TlsFailureKind::Other(error.to_string()),
    }
}

fn kind_of_certificate(error: &CertificateError) -> TlsFailureKind {
    match error {
        CertificateError::UnknownIssuer => TlsFailureKind::UnknownIssuer,
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => TlsFailureKind::Expired,
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            TlsFailureKind::NotYetValid
        }
        CertificateError::NotValidForNameContext { presented, .. } if presented.is_empty() => {
            TlsFailureKind::NoName
        }
        CertificateError::NotValidForNameContext { presented, .. } => {
            let names: Vec<_> = presented
                .iter()
                .take(NAMES_SHOWN)
                // What cannot be seen is spelt out, because the certificate is a stranger's.
                .map(|name| plain_name(name).escape_debug().to_string())
                .collect();
            let more = if presented.len() > NAMES_SHOWN { " and more" } else { "" };
            TlsFailureKind::OtherName(format!("{}{more}", names.join(", ")))
        }
        CertificateError::NotValidForName => TlsFailureKind::NoName,
        CertificateError::InvalidPurpose | CertificateError::InvalidPurposeContext { .. } => {
            TlsFailureKind::Purpose
        }
        // A trusted root with the name of the issuer and a key of another type has not signed it either.
        CertificateError::BadSignature
        | CertificateError::UnsupportedSignatureAlgorithmForPublicKeyContext { .. } => {
            TlsFailureKind::Signature
        }
        CertificateError::UnsupportedSignatureAlgorithmContext { .. } => {
            TlsFailureKind::Certificate("it is signed by an algorithm that is too weak or not known".into())
        }
        CertificateError::UnhandledCriticalExtension => {
            TlsFailureKind::Certificate("it has a critical extension that is not known".into())
        }
        CertificateError::BadEncoding => TlsFailureKind::Certificate("it is malformed".into()),
        CertificateError::Revoked => TlsFailureKind::Certificate("it is revoked".into()),
        CertificateError::Other(other) => kind_of_other(other),
        error => TlsFailureKind::Certificate(error.to_string()),
    }
}

/// Names that a message repeats.
const NAMES_SHOWN: usize = 5;

fn kind_of_other(OtherError(reason): &OtherError) -> TlsFailureKind {
    if let Some(reason) = reason.downcast_ref::<NotTrusted>() {
        return TlsFailureKind::NotPinned(*reason);
    }
    // webpki's error, whose type is not named here: it writes itself as its variant.
    match reason.to_string().as_str() {
        "CaUsedAsEndEntity" => TlsFailureKind::AuthorityAsServer,
        "EndEntityUsedAsCa" => TlsFailureKind::Certificate(
            "a certificate of its chain signs another without the right to (CA:FALSE)".into(),
        ),
        "UnsupportedCertVersion" => {
            TlsFailureKind::Certificate("it is not an X.509 version 3 certificate".into())
        }
        reason => TlsFailureKind::Certificate(reason.into()),
    }
}

fn kind_of_alert(alert: AlertDescription) -> TlsFailureKind {
    match alert {
        AlertDescription::UnrecognisedName => TlsFailureKind::UnknownName("unrecognized_name"),
        // As Go's servers, derper among them, refuse a name.
        AlertDescription::InternalError => TlsFailureKind::UnknownName("internal_error"),
        AlertDescription::CertificateRequired => TlsFailureKind::ClientCertificate("certificate_required"),
        AlertDescription::BadCertificate => TlsFailureKind::ClientCertificate("bad_certificate"),
        AlertDescription::UnknownCA => TlsFailureKind::ClientCertificate("unknown_ca"),
        AlertDescription::ProtocolVersion
        | AlertDescription::HandshakeFailure
        | AlertDescription::InsufficientSecurity
        | AlertDescription::NoApplicationProtocol => TlsFailureKind::NothingInCommon,
        alert => TlsFailureKind::Alert(format!("{alert:?}")),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use rustls::{InvalidMessage, PeerIncompatible};

    use super::*;

    fn told(error: rustls::Error) -> String {
        TlsFailure::from(HandshakeError::Tls(error.into())).to_string()
    }

    #[test]
    fn no_failure_is_told_in_the_words_of_a_library() {
        let name = "relay.example.com".try_into().expect("a name");
        let presented = vec!["DnsName(\"other.example.com\")".into(), "IpAddress(192.0.2.7)".into()];
        for (error, expected) in [
            (
                rustls::Error::InvalidCertificate(CertificateError::NotValidForNameContext {
                    expected: name,
                    presented,
                }),
                "the server's certificate is for another name: other.example.com, 192.0.2.7",
            ),
            (
                rustls::Error::AlertReceived(AlertDescription::InternalError),
                "the server has no certificate for the name that it was asked for (alert internal_error)",
            ),
            (
                rustls::Error::AlertReceived(AlertDescription::CertificateRequired),
                "the server wants a certificate from its clients, and this program shows none (alert certificate_required)",
            ),
            (
                rustls::Error::PeerIncompatible(PeerIncompatible::Tls12NotOffered),
                "the server has no version or algorithm of TLS in common with this program: it speaks TLS 1.3 and 1.2",
            ),
            (
                rustls::Error::InvalidMessage(InvalidMessage::InvalidContentType),
                "what the server sent is not TLS",
            ),
        ] {
            assert_eq!(told(error), expected);
        }
        let signature_algorithm_id = vec![6, 8, 42, 134, 72, 206, 61, 4, 3, 2];
        let public_key_algorithm_id = vec![6, 9, 42, 134, 72, 134, 247, 13, 1, 1, 1, 5, 0];
        let other_key = CertificateError::UnsupportedSignatureAlgorithmForPublicKeyContext {
            signature_algorithm_id: signature_algorithm_id.clone(),
            public_key_algorithm_id,
        };
        assert!(
            told(other_key.into())
                .contains("an authority of that name has another key than the one that is trusted")
        );
        let weak = CertificateError::UnsupportedSignatureAlgorithmContext {
            signature_algorithm_id,
            supported_algorithms: Vec::new(),
        };
        assert_eq!(
            told(weak.into()),
            "the server's certificate cannot be used: it is signed by an algorithm that is too weak or not known"
        );
        let other = |reason| {
            let reason: Arc<dyn Error + Send + Sync> = Arc::new(io::Error::other(reason));
            told(CertificateError::Other(OtherError(reason)).into())
        };
        assert!(other("CaUsedAsEndEntity").contains("one of an authority (CA:TRUE)"));
        assert_eq!(
            other("UnsupportedCertVersion"),
            "the server's certificate cannot be used: it is not an X.509 version 3 certificate"
        );
    }

    #[test]
    fn an_error_of_tls_is_found_in_that_of_a_stream() {
        let alert = TlsError::Rustls(rustls::Error::AlertReceived(AlertDescription::CertificateRequired));
        let failure = TlsFailure::of_stream(io::Error::new(io::ErrorKind::InvalidData, alert)).expect("TLS");
        assert_eq!(failure.kind(), &TlsFailureKind::ClientCertificate("certificate_required"));
        assert!(TlsFailure::of_stream(io::ErrorKind::ConnectionReset.into()).is_err());
    }
}
