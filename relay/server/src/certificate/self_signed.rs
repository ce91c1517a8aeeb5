//! The certificate that the relay makes by itself, and keeps beside `key_file` so that a pin outlives a restart.
//!
//! Nothing that clients may have pinned is ever replaced, and what they pin is the certificate. The key is made first, whole
//! and on disk before the certificate is begun. So a process that ends between the two, or a disk that is full between them,
//! leaves a key for which there never was a certificate: the next start makes one, and no person is needed. The reverse is no
//! state of a crash: a certificate without its key may be pinned, and its key in a backup.

use std::path::Path;

use rcgen::{
    CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, KeyPair, KeyUsagePurpose,
    PKCS_ECDSA_P256_SHA256,
};
use rustls::pki_types::PrivateKeyDer;
use time::{Duration, OffsetDateTime};
use towpath_service::visible_path;
use zeroize::Zeroizing;

use super::judge;
use super::pair::{Certificate, CertificateError, Expected, Fault};
use crate::config::{CertFiles, self_signed_files};
use crate::secret_file;

/// The life of a self-signed certificate. A client that pins it checks its dates, so an earlier end would be an
/// unplanned outage. Clients trust the pin, not the date.
pub(crate) const LIFE: Duration = Duration::days(3650);
/// Clocks of clients are off by up to this much.
pub(crate) const CLOCK_SKEW: Duration = Duration::days(30);

/// The pair of files beside a key file, as it was found.
#[derive(Debug)]
pub(crate) enum SelfSigned {
    /// Both files are there.
    Kept {
        /// What is in them.
        certificate: Certificate,
        /// Where it is kept.
        files: CertFiles,
    },
    /// There is no certificate.
    Missing {
        /// Where it is kept.
        files: CertFiles,
        /// Whether its key is there already.
        has_key: bool,
    },
}

impl SelfSigned {
    /// Looks at the files beside `key_file` and writes nothing.
    pub(crate) fn read(
        key_file: &Path,
        expected: &Expected,
        now: i64,
        warnings: &mut Vec<String>,
    ) -> Result<Self, CertificateError> {
        let files = self_signed_files(key_file);
        match (is_there(&files.cert)?, is_there(&files.key)?) {
            (true, true) => {
                Ok(Self::Kept { certificate: read_kept(&files, expected, now, warnings)?, files })
            }
            (true, false) => Err(CertificateError::unusable(
                &files.cert,
                format!(
                    "is there without {}: restore the key, or remove the certificate and print the map again",
                    visible_path(&files.key)
                ),
            )),
            (false, has_key) => {
                if has_key {
                    let pem = secret_file::read_text(&files.key, warnings)?;
                    pair(&files.key, &pem)?;
                    warnings.push(format!(
                        "{} is there without its certificate, and {} is made for it; if a DERP map pins an earlier one, \
                         print it again",
                        visible_path(&files.key),
                        visible_path(&files.cert)
                    ));
                } else {
                    secret_file::check_creation(&files.key)?;
                }
                secret_file::check_creation(&files.cert)?;
                Ok(Self::Missing { files, has_key })
            }
        }
    }

    /// The files that the start makes.
    pub(crate) fn to_create(&self) -> Vec<&Path> {
        match self {
            Self::Kept { .. } => Vec::new(),
            Self::Missing { files, has_key: true } => vec![&files.cert],
            Self::Missing { files, has_key: false } => vec![&files.key, &files.cert],
        }
    }

    /// The certificate and its files, which are made if they were missing. Another process may make it at the same time; then both have that of
    /// the first.
    pub(crate) fn complete(
        self,
        expected: &Expected,
        now: i64,
        warnings: &mut Vec<String>,
    ) -> Result<(Certificate, CertFiles), CertificateError> {
        match self {
            Self::Kept { certificate, files } => Ok((certificate, files)),
            Self::Missing { files, .. } => {
                make(&files, &expected.hostname)?;
                Ok((read_kept(&files, expected, now, warnings)?, files))
            }
        }
    }
}

/// Reads the pair and judges it. It is for the relay's own use, so that another name is always refused.
fn read_kept(
    files: &CertFiles,
    expected: &Expected,
    now: i64,
    warnings: &mut Vec<String>,
) -> Result<Certificate, CertificateError> {
    let certificate = Certificate::read(files, warnings).map_err(first)?;
    for objection in judge::judge(&certificate.chain, &expected.hostname, now) {
        let told = judge::Told { objection: &objection, hostname: &expected.hostname };
        if objection.is_about_names() {
            let reason = format!(
                "is not for {}: remove it and {}, and new ones are made",
                expected.hostname,
                visible_path(&files.key)
            );
            return Err(CertificateError::unusable(&files.cert, reason));
        }
        warnings.push(format!("{} {told}", visible_path(&files.cert)));
    }
    Ok(certificate)
}

fn first(faults: Vec<Fault<CertificateError>>) -> CertificateError {
    faults.into_iter().next().expect("a certificate that is refused has a fault").error
}

fn make(CertFiles { cert, key }: &CertFiles, hostname: &str) -> Result<(), CertificateError> {
    let pem = secret_file::read_or_create(key, || {
        Ok::<_, CertificateError>(Zeroizing::new(new_key()?.serialize_pem()))
    })?;
    match secret_file::create(cert, sign(hostname, &pair(key, &pem)?)?.pem().as_bytes()) {
        // Another process was faster, with the same key.
        Err(error) if error.is_already_there() => Ok(()),
        created => Ok(created?),
    }
}

fn pair(key: &Path, pem: &str) -> Result<KeyPair, CertificateError> {
    if pem.is_empty() {
        return Err(CertificateError::unusable(key, "is empty: remove it, and a new one is made"));
    }
    KeyPair::from_pem(pem).map_err(|error| {
        CertificateError::unusable(key, format!("holds a key that no certificate can be made for: {error}"))
    })
}

fn is_there(path: &Path) -> Result<bool, CertificateError> {
    path.try_exists().map_err(|source| CertificateError::File {
        action: "look for",
        path: path.into(),
        source,
    })
}

/// A certificate for this run only.
pub(crate) fn throw_away(hostname: &str) -> Result<Certificate, rcgen::Error> {
    let key = new_key()?;
    let chain = vec![sign(hostname, &key)?.der().clone()];
    Ok(Certificate::new(chain, PrivateKeyDer::Pkcs8(key.serialize_der().into())))
}

fn new_key() -> Result<KeyPair, rcgen::Error> {
    KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)
}

fn sign(hostname: &str, key: &KeyPair) -> Result<rcgen::Certificate, rcgen::Error> {
    let mut params = CertificateParams::new([hostname.to_owned()])?;
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, hostname);
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    let now = OffsetDateTime::now_utc();
    (params.not_before, params.not_after) = (now - CLOCK_SKEW, now + LIFE);
    params.self_signed(key)
}
