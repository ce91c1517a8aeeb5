//! Trust in a relay: the certificates that a client accepts.

use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{Resumption, WebPkiServerVerifier, verify_server_name};
use rustls::crypto::{CryptoProvider, aws_lc_rs, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::version::{TLS12, TLS13};
use rustls::{
    CertificateError, CipherSuite, ClientConfig, DigitallySignedStruct, Error, OtherError, RootCertStore,
    SignatureScheme, SupportedProtocolVersion,
};
use sha2::{Digest, Sha256};
use towpath_tls::ExporterLog;
use towpath_wire::pin::CertificatePin;

use crate::certificate::{Fields, is_meta};

/// The certificates that are accepted. In each case the handshake proves that the relay holds the certificate's key.
#[derive(Clone, Debug)]
pub enum Trust {
    /// The one whose leaf certificate this pin names, as the `CertName` of a DERP map does.
    ///
    /// Besides meta certificates (`CN=derpkey…`) the relay shows this certificate alone. Its names must cover the
    /// server name and its dates the present. Its issuer does not matter.
    Pin(CertificatePin),
    /// A certificate that these roots vouch for.
    Roots(Arc<RootCertStore>),
    /// Any certificate, so that an attacker on the path can read along: for tests and for measuring.
    Anyone,
}

/// Which versions of TLS are offered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TlsVersions {
    /// 1.3 and 1.2.
    #[default]
    Both,
    /// 1.3 only.
    Only13,
    /// 1.2 only: certificates are sent in clear, so there is no fast start.
    Only12,
}

impl TlsVersions {
    fn list(self) -> Vec<&'static SupportedProtocolVersion> {
        match self {
            Self::Both => vec![&TLS13, &TLS12],
            Self::Only13 => vec![&TLS13],
            Self::Only12 => vec![&TLS12],
        }
    }
}

/// Why a relay cannot be dialled with these settings.
#[derive(Debug, thiserror::Error)]
pub enum SetupError {
    /// Neither a DNS name nor an address.
    #[error("{0:?} is not a server name")]
    ServerName(String),
    /// No roots are given.
    #[error("no usable root certificates")]
    Roots(#[from] rustls::client::VerifierBuilderError),
    /// rustls does not take the settings.
    #[error(transparent)]
    Tls(#[from] Error),
}

/// Why a certificate is not the pinned one. Found inside the [`rustls::Error`] of a failed handshake.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotTrusted {
    /// The leaf has another hash.
    #[error("the certificate is not the pinned one: its SHA-256 is {0:x}")]
    OtherCertificate(CertificatePin),
    /// The relay shows a chain of certificates, which proves nothing about a pin.
    #[error("the relay shows {0} certificates besides its meta certificate instead of the pinned one alone")]
    MoreThanOne(usize),
}

/// The pin of a certificate, by which [`Trust::Pin`] knows it.
#[must_use]
pub fn certificate_pin(certificate: &CertificateDer<'_>) -> CertificatePin {
    CertificatePin::from_sha256(Sha256::digest(certificate).into())
}

/// Creates the configuration of rustls. Without resumption: a resumed session shows the chain of the first one, and
/// with it the node key that the relay had then. AES-128 is offered before AES-256, as by Go's clients, and relays that
/// leave the choice to the client take it.
///
/// # Errors
///
/// See [`SetupError`].
pub fn client_config(trust: &Trust, versions: TlsVersions) -> Result<Arc<ClientConfig>, SetupError> {
    config_for(trust, versions, None)
}

/// As [`client_config`]; the certificate is to be valid for `certificate_name` where there is one, whatever name is dialled.
pub(crate) fn config_for(
    trust: &Trust,
    versions: TlsVersions,
    certificate_name: Option<ServerName<'static>>,
) -> Result<Arc<ClientConfig>, SetupError> {
    let mut provider = aws_lc_rs::default_provider();
    provider.cipher_suites.sort_by_key(|suite| !AES_128.contains(&suite.suite()));
    let provider = Arc::new(provider);
    let builder =
        ClientConfig::builder_with_provider(provider.clone()).with_protocol_versions(&versions.list())?;
    let mut verifier: Arc<dyn ServerCertVerifier> = match trust {
        Trust::Pin(pin) => Arc::new(LeafVerifier { pin: Some(*pin), provider }),
        Trust::Anyone => Arc::new(LeafVerifier { pin: None, provider }),
        Trust::Roots(roots) => {
            WebPkiServerVerifier::builder_with_provider(roots.clone(), provider).build()?
        }
    };
    if let Some(name) = certificate_name {
        verifier = Arc::new(OtherNameVerifier { verifier, name });
    }
    let mut config = builder.dangerous().with_custom_certificate_verifier(verifier).with_no_client_auth();
    config.resumption = Resumption::disabled();
    // For the record layer of `tls` and for the binding of logins; the secrets go nowhere else.
    config.enable_secret_extraction = true;
    config.key_log = Arc::new(ExporterLog);
    Ok(Arc::new(config))
}

/// The suites that come first.
const AES_128: [CipherSuite; 3] = [
    CipherSuite::TLS13_AES_128_GCM_SHA256,
    CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
    CipherSuite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
];

/// Looks at the leaf alone.
#[derive(Debug)]
struct LeafVerifier {
    /// `None` takes any.
    pin: Option<CertificatePin>,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for LeafVerifier {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        if let Some(pinned) = self.pin {
            // The leaf it must be: its key is the one that signs the handshake.
            let pin = certificate_pin(leaf);
            if pin != pinned {
                return Err(not_trusted(NotTrusted::OtherCertificate(pin)));
            }
            let others = intermediates.iter().filter(|other| !is_meta(other)).count();
            if others > 0 {
                return Err(not_trusted(NotTrusted::MoreThanOne(1 + others)));
            }
            verify_server_name(&ParsedCertificate::try_from(leaf)?, server_name)?;
            verify_dates(leaf, now)?;
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(
            message,
            certificate,
            signature,
            &self.provider.signature_verification_algorithms,
        )
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(
            message,
            certificate,
            signature,
            &self.provider.signature_verification_algorithms,
        )
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

/// Looks for another name than the one that was dialled.
#[derive(Debug)]
struct OtherNameVerifier {
    verifier: Arc<dyn ServerCertVerifier>,
    name: ServerName<'static>,
}

impl ServerCertVerifier for OtherNameVerifier {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _dialled: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        self.verifier.verify_server_cert(leaf, intermediates, &self.name, ocsp_response, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.verifier.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.verifier.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.verifier.supported_verify_schemes()
    }
}

fn not_trusted(reason: NotTrusted) -> Error {
    CertificateError::Other(OtherError(Arc::new(reason))).into()
}

fn verify_dates(leaf: &CertificateDer<'_>, now: UnixTime) -> Result<(), Error> {
    let fields = Fields::read(leaf).ok_or(CertificateError::BadEncoding)?;
    let now = i64::try_from(now.as_secs()).unwrap_or(i64::MAX);
    if now < fields.not_before {
        return Err(CertificateError::NotValidYet.into());
    }
    if now > fields.not_after {
        return Err(CertificateError::Expired.into());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn aes_128_is_offered_first() {
        for (versions, first) in [
            (TlsVersions::Both, CipherSuite::TLS13_AES_128_GCM_SHA256),
            (TlsVersions::Only12, CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256),
        ] {
            let config = client_config(&Trust::Anyone, versions).unwrap();
            let offered = config
                .crypto_provider()
                .cipher_suites
                .iter()
                .filter(|suite| versions == TlsVersions::Both || suite.version() == &TLS12);
            assert_eq!(offered.map(|suite| suite.suite()).next(), Some(first));
        }
    }
}
