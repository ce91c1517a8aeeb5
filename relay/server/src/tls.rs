//! The configuration of rustls: the certificates that the relay shows, and the roots that it trusts.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::{fs, io};

use rustls::client::Resumption;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::server::{NoServerSessionStorage, ResolvesServerCert};
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use towpath_service::visible_path;
use towpath_tls::{ExporterLog, RecordLayer};

/// The configuration of the relay's TLS: versions 1.3 and 1.2, the certificate that `shown` has at that moment, no resumption
/// (Tailscale clients never resume, and tickets would cost every one of them).
///
/// # Errors
///
/// The error of rustls if it does not take the settings.
pub(crate) fn server_config(
    shown: Arc<dyn ResolvesServerCert>,
    records: RecordLayer,
) -> Result<ServerConfig, rustls::Error> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])?
        .with_no_client_auth()
        .with_cert_resolver(shown);
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    config.enable_secret_extraction = records == RecordLayer::Own;
    // For logins that are bound to their connection.
    config.key_log = Arc::new(ExporterLog);
    Ok(config)
}

/// The configuration of TLS to a server of HTTP that these roots vouch for: versions 1.3 and 1.2, no resumption (connections
/// are kept instead).
///
/// # Errors
///
/// The error of rustls if it does not take the settings.
pub(crate) fn client_config(roots: RootCertStore) -> Result<Arc<ClientConfig>, rustls::Error> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])?
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    config.resumption = Resumption::disabled();
    Ok(Arc::new(config))
}

/// The reason why there are no root certificates.
#[derive(Debug, thiserror::Error)]
pub enum RootsError {
    /// The file cannot be read.
    #[error("cannot read {path}", path = visible_path(path))]
    File {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// No certificate can be used, for this reason.
    #[error("{0}")]
    Unusable(String),
}

/// Reads the root certificates in `file`, or those of the system.
///
/// # Errors
///
/// See [`RootsError`].
pub(crate) fn root_certificates(file: Option<&Path>) -> Result<RootCertStore, RootsError> {
    let mut roots = RootCertStore::empty();
    let Some(path) = file else {
        let found = rustls_native_certs::load_native_certs();
        let (added, _) = roots.add_parsable_certificates(found.certs);
        if added == 0 {
            let why = found.errors.first().map_or_else(|| "the system has none".into(), ToString::to_string);
            return Err(RootsError::Unusable(why));
        }
        return Ok(roots);
    };
    let pem = fs::read(path).map_err(|source| RootsError::File { path: path.into(), source })?;
    let bad = |why: String| RootsError::Unusable(format!("{}: {why}", visible_path(path)));
    for certificate in CertificateDer::pem_slice_iter(&pem) {
        let certificate = certificate.map_err(|error| bad(error.to_string()))?;
        roots.add(certificate).map_err(|error| bad(error.to_string()))?;
    }
    if roots.is_empty() {
        return Err(bad("no certificate in PEM form".into()));
    }
    Ok(roots)
}
