//! A certificate and its key: read from the files that `cert` and `key` name, and judged as a whole.

use std::path::{Path, PathBuf};
use std::{fs, io};

use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use towpath_relay_client::certificate_pin;
use towpath_service::config::SettingKey;
use towpath_service::{ErrorChain, visible_path};
use towpath_wire::pin::CertificatePin;

use super::judge;
use crate::config::{CertFiles, keys};
use crate::secret_file::{self, SecretFileError};

/// The reason why a certificate and its key cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum CertificateError {
    /// The file with the certificate cannot be read.
    #[error("cannot {action} {path}", path = visible_path(path))]
    File {
        /// What was tried.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// The file with the key cannot be used.
    #[error(transparent)]
    Secret(#[from] SecretFileError),
    /// A file holds something else than it should, or a certificate that clients refuse.
    #[error("{path} {reason}", path = visible_path(.0), reason = .1)]
    Unusable(PathBuf, String),
    /// A certificate cannot be made.
    #[error("cannot make a certificate")]
    Make(#[from] rcgen::Error),
}

impl CertificateError {
    pub(super) fn unusable(path: &Path, reason: impl Into<String>) -> Self {
        Self::Unusable(path.into(), reason.into())
    }
}

/// Something wrong with a file, and the setting that names the file.
#[derive(Debug)]
pub(crate) struct Fault<E> {
    pub(crate) key: SettingKey,
    pub(crate) error: E,
}

/// A chain, the relay's own certificate first, and its key, which belongs to it.
#[derive(Debug)]
pub(crate) struct Certificate {
    pub(crate) chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
}

/// The name that a certificate must have, and how strictly.
#[derive(Clone, Debug)]
pub(crate) struct Expected {
    pub(crate) hostname: String,
    /// Whether a certificate without the name is refused, and not only warned of.
    pub(crate) check_name: bool,
}

impl Certificate {
    /// A pair that is known to belong together.
    pub(crate) const fn new(chain: Vec<CertificateDer<'static>>, key: PrivateKeyDer<'static>) -> Self {
        Self { chain, key }
    }

    /// Reads the two files. Adds to `warnings` what should be told and is no fault.
    ///
    /// # Errors
    ///
    /// Everything that is wrong, by the setting that names the file.
    pub(crate) fn read(
        CertFiles { cert, key }: &CertFiles,
        warnings: &mut Vec<String>,
    ) -> Result<Self, Vec<Fault<CertificateError>>> {
        let chain = read_chain(cert).map_err(|error| Fault { key: keys::CERT, error });
        let private = read_key(key, warnings).map_err(|error| Fault { key: keys::KEY, error });
        let certificate = match (chain, private) {
            (Ok(chain), Ok(key)) => Self { chain, key },
            (chain, private) => return Err(chain.err().into_iter().chain(private.err()).collect()),
        };
        match certificate.fault_of_pair(cert, key) {
            Some(fault) => Err(vec![fault]),
            None => Ok(certificate),
        }
    }

    /// What is wrong if certificate and key do not belong together, or if TLS cannot use them.
    fn fault_of_pair(&self, cert: &Path, key: &Path) -> Option<Fault<CertificateError>> {
        let of = |setting, path, reason: String| {
            Some(Fault { key: setting, error: CertificateError::unusable(path, reason) })
        };
        match self.certified(&[]) {
            Ok(_) => None,
            Err(rustls::Error::InconsistentKeys(_)) => {
                let place = (1..self.chain.len()).find(|&place| {
                    let chain = vec![self.chain[place].clone()];
                    Self { chain, key: self.key.clone_key() }.certified(&[]).is_ok()
                });
                match place {
                    Some(place) => {
                        let reason = format!(
                            "has the certificate of {} in place {} and another one first: put the relay's own \
                             certificate first",
                            visible_path(key),
                            place + 1
                        );
                        of(keys::CERT, cert, reason)
                    }
                    None => {
                        let reason = format!("is not the private key of {}", visible_path(cert));
                        of(keys::KEY, key, reason)
                    }
                }
            }
            Err(rustls::Error::InvalidCertificate(error)) => {
                of(keys::CERT, cert, format!("holds a certificate that TLS cannot use: {error:?}"))
            }
            Err(error) => {
                of(keys::KEY, key, format!("holds a key that TLS cannot use: {}", ErrorChain(&error)))
            }
        }
    }

    /// The pair as rustls shows it, with `behind` at the end of the chain.
    pub(crate) fn certified(
        &self,
        behind: &[CertificateDer<'static>],
    ) -> Result<CertifiedKey, rustls::Error> {
        let chain = [&self.chain[..], behind].concat();
        CertifiedKey::from_der(chain, self.key.clone_key(), &aws_lc_rs::default_provider())
    }

    /// Judges the certificate as clients will. What is refused is an error; the rest is added to `warnings`. `path` is the
    /// file for messages.
    pub(crate) fn judge(
        &self,
        path: &Path,
        Expected { hostname, check_name }: &Expected,
        now: i64,
        warnings: &mut Vec<String>,
    ) -> Result<(), CertificateError> {
        let mut refused = Ok(());
        for objection in judge::judge(&self.chain, hostname, now) {
            let told = judge::Told { objection: &objection, hostname };
            if *check_name && objection.is_about_names() {
                let reason = format!("{told}; tls.check_name = false lets the relay start all the same");
                refused = Err(CertificateError::unusable(path, reason));
            } else {
                warnings.push(format!("{} {told}", visible_path(path)));
            }
        }
        refused
    }

    /// The pin by which clients verify the relay, see [`pin`].
    pub(crate) fn pin(&self) -> Option<CertificatePin> {
        pin(&self.chain)
    }
}

/// Returns the pin of a relay that shows the certificates in the file `cert`: see [`pin`].
///
/// # Errors
///
/// [`CertificateError`] if the file is not a certificate.
pub(crate) fn pin_of_file(cert: &Path) -> Result<Option<CertificatePin>, CertificateError> {
    Ok(pin(&read_chain(cert)?))
}

/// Returns the pin of a self-signed certificate, for the `CertName` of a DERP map; `None` for a certificate that an
/// authority has signed, which clients verify by its name.
pub(crate) fn pin(chain: &[CertificateDer<'_>]) -> Option<CertificatePin> {
    let [leaf] = chain else { return None };
    judge::is_self_signed(chain).then(|| certificate_pin(leaf))
}

/// Reads the chain in a PEM file.
fn read_chain(path: &Path) -> Result<Vec<CertificateDer<'static>>, CertificateError> {
    let file = fs::read(path).map_err(|source| CertificateError::File {
        action: "read",
        path: path.into(),
        source,
    })?;
    let chain = CertificateDer::pem_slice_iter(&file)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| CertificateError::unusable(path, damaged(&error)))?;
    let Some(leaf) = chain.first() else {
        let reason = match PrivateKeyDer::from_pem_slice(&file) {
            Ok(_) => "holds a private key and no certificate: cert and key may be exchanged".to_owned(),
            Err(_) => no_pem(&file, "certificate", "openssl x509 -inform der"),
        };
        return Err(CertificateError::unusable(path, reason));
    };
    webpki::EndEntityCert::try_from(leaf).map_err(|error| {
        CertificateError::unusable(path, format!("holds a certificate that clients cannot read: {error:?}"))
    })?;
    Ok(chain)
}

/// Reads the private key in a PEM file.
fn read_key(path: &Path, warnings: &mut Vec<String>) -> Result<PrivateKeyDer<'static>, CertificateError> {
    let file = secret_file::read(path, warnings)?;
    PrivateKeyDer::from_pem_slice(&file).map_err(|error| {
        let has_certificate = || CertificateDer::from_pem_slice(&file).is_ok();
        let has = |text: &[u8]| file.windows(text.len()).any(|bytes| bytes == text);
        let reason = match error {
            pem::Error::NoItemsFound if has_certificate() => {
                "holds a certificate and no private key: cert and key may be exchanged".to_owned()
            }
            pem::Error::NoItemsFound if has(b"ENCRYPTED PRIVATE KEY-----") => {
                "is encrypted, and the relay has no way to ask for the password: decrypt it (openssl pkey)"
                    .to_owned()
            }
            pem::Error::NoItemsFound => no_pem(&file, "private key", "openssl pkey -inform der"),
            error => damaged(&error),
        };
        CertificateError::unusable(path, reason)
    })
}

/// Says that a file has nothing of a kind in PEM form, and what it has.
fn no_pem(file: &[u8], kind: &str, convert: &str) -> String {
    /// The tag of a sequence, with which certificates and keys begin in DER.
    const SEQUENCE: u8 = 0x30;
    match file.first() {
        None => "is empty".into(),
        Some(&SEQUENCE) => {
            format!("holds no {kind} in PEM form, perhaps one in DER form: convert it ({convert})")
        }
        Some(_) => format!("holds no {kind} in PEM form"),
    }
}

/// Says that a PEM file is damaged, and repeats nothing of it: it may hold a key.
fn damaged(error: &pem::Error) -> String {
    let what = match error {
        pem::Error::MissingSectionEnd { .. } => "a section has no end; the file may have been cut off",
        pem::Error::IllegalSectionStart { .. } => "a line that begins a section is malformed",
        pem::Error::Base64Decode(_) => "what is in a section is not Base64",
        _ => "the form is malformed",
    };
    format!("is a damaged PEM file: {what}")
}
