//! The identity of the relay: its node key, its certificate, and the meta certificate, which carries the node key in
//! TLS.

use std::path::{Path, PathBuf};
use std::{fs, io};

use rcgen::{
    CertificateParams, CustomExtension, DistinguishedName, DnType, ExtendedKeyUsagePurpose, KeyPair,
    KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, PKCS_ED25519, SerialNumber,
};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use serde::Deserialize;
use time::{Duration, OffsetDateTime};
use towpath_relay_client::certificate_pin;
use towpath_tls::RecordLayer;
use towpath_wire::derp::mesh::MeshKey;
use towpath_wire::derp::{META_NAME_PREFIX, PROTOCOL_VERSION};
use towpath_wire::key::{NodePrivate, NodePublic};
use towpath_wire::pin::CertificatePin;
use tracing::warn;
use zeroize::Zeroizing;

use crate::config::{CertFiles, Config, KeySource, self_signed_files};
use crate::secret_file::{self, SecretFileError};
use crate::tls::server_config;

/// The life of a self-signed certificate. A client that pins it checks its dates, so an earlier end would be an
/// unplanned outage. Clients trust the pin, not the date.
const SELF_SIGNED_LIFE: Duration = Duration::days(3650);
/// Clocks of clients are off by up to this much.
const CLOCK_SKEW: Duration = Duration::days(30);

/// The reason why the relay has no identity.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// A file cannot be read.
    #[error("cannot {action} {path}", path = path.display())]
    File {
        /// What was tried.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// A file with a secret cannot be used.
    #[error(transparent)]
    Secret(#[from] SecretFileError),
    /// The key file holds something else. The message does not repeat its contents.
    #[error("{path} is not a key file: {reason}", path = .0.display(), reason = .1)]
    KeyFile(PathBuf, String),
    /// A certificate or its key cannot be used.
    #[error("{path}: {reason}", path = .0.display(), reason = .1)]
    Certificate(PathBuf, String),
    /// A certificate cannot be made.
    #[error("cannot make a certificate")]
    Make(#[from] rcgen::Error),
    /// Certificate and key do not belong together, or TLS cannot be set up with them.
    #[error("cannot set up TLS: check that the certificate and the key belong together")]
    Tls(#[from] rustls::Error),
    /// The system has no random bytes.
    #[error("cannot get random bytes from the system")]
    Random(#[from] getrandom::Error),
}

/// The relay's node key and its certificates.
#[derive(Debug)]
pub struct Identity {
    node_key: NodePrivate,
    chain: Vec<CertificateDer<'static>>,
    tls_key: PrivateKeyDer<'static>,
}

impl Identity {
    /// Reads keys and certificates. Makes those that are missing if the configuration allows it.
    ///
    /// # Errors
    ///
    /// See [`IdentityError`].
    pub fn load(config: &Config) -> Result<Self, IdentityError> {
        let node_key = match &config.node_key {
            KeySource::Inline(key) => key.clone(),
            KeySource::Ephemeral => random_key()?,
            KeySource::File(path) => load_or_create_key(path)?,
        };
        let (chain, tls_key) = match (&config.cert, &config.node_key) {
            (Some(CertFiles { cert, key }), _) => load_certificate(cert, key)?,
            (None, KeySource::File(path)) => load_or_create_self_signed(path, &config.hostname)?,
            (None, KeySource::Inline(_) | KeySource::Ephemeral) => {
                let key = self_signed_key()?;
                let chain = vec![self_signed(&config.hostname, &key)?.der().clone()];
                (chain, PrivateKeyDer::Pkcs8(key.serialize_der().into()))
            }
        };
        Ok(Self { node_key, chain, tls_key })
    }

    /// The public half of the node key, which clients learn at login.
    #[must_use]
    pub fn node_public(&self) -> NodePublic {
        self.node_key.public()
    }

    /// The pin by which clients verify the relay, see [`pin`].
    #[must_use]
    pub fn certificate_pin(&self) -> Option<CertificatePin> {
        pin(&self.chain)
    }

    pub(crate) const fn node_key(&self) -> &NodePrivate {
        &self.node_key
    }

    /// The configuration of the relay's TLS, with the meta certificate at the end of the chain.
    pub(crate) fn server_config(&self, records: RecordLayer) -> Result<rustls::ServerConfig, IdentityError> {
        let mut chain = self.chain.clone();
        chain.push(meta_certificate(&self.node_public())?);
        Ok(server_config(chain, self.tls_key.clone_key(), records)?)
    }
}

/// Returns the pin of a relay that shows the certificates in the file `cert`, see [`pin`].
///
/// # Errors
///
/// [`IdentityError`] if the file is not a certificate.
pub fn pin_of_file(cert: &Path) -> Result<Option<CertificatePin>, IdentityError> {
    Ok(pin(&load_chain(cert)?))
}

/// Returns the pin of the certificates that a relay shows, as [`pin_of_file`] does for those in a file.
#[must_use]
pub fn pin_of_chain(chain: &[CertificateDer<'_>]) -> Option<CertificatePin> {
    pin(chain)
}

/// Returns the pin of a self-signed certificate, for the `CertName` of a DERP map; `None` for a certificate that an
/// authority has signed, which clients verify by its name.
fn pin(chain: &[CertificateDer<'_>]) -> Option<CertificatePin> {
    let [leaf] = chain else { return None };
    let parsed = webpki::EndEntityCert::try_from(leaf).ok()?;
    (parsed.issuer() == parsed.subject()).then(|| certificate_pin(leaf))
}

/// Returns a new random node key.
///
/// # Errors
///
/// Where the system gives no randomness.
pub fn random_key() -> Result<NodePrivate, getrandom::Error> {
    let mut bytes = Zeroizing::new([0; 32]);
    getrandom::fill(bytes.as_mut())?;
    Ok(NodePrivate::from_random(*bytes))
}

/// Returns a new random key for a mesh.
///
/// # Errors
///
/// Where the system gives no randomness.
pub fn random_mesh_key() -> Result<MeshKey, getrandom::Error> {
    let mut bytes = Zeroizing::new([0; 32]);
    getrandom::fill(bytes.as_mut())?;
    Ok(MeshKey::from_bytes(*bytes))
}

/// The JSON of derper's key file.
#[derive(Deserialize)]
struct KeyFile {
    #[serde(rename = "PrivateKey")]
    private_key: Zeroizing<String>,
}

/// The text of derper's key file for `key`.
pub fn key_file_text(key: &NodePrivate) -> Zeroizing<String> {
    let text = Zeroizing::new(key.to_text());
    Zeroizing::new(format!("{{\n\t\"PrivateKey\": \"{}\"\n}}\n", *text))
}

fn load_or_create_key(path: &Path) -> Result<NodePrivate, IdentityError> {
    let text = secret_file::read_or_create(path, || Ok::<_, IdentityError>(key_file_text(&random_key()?)))?;
    parse_key_file(path, &text)
}

fn parse_key_file(path: &Path, text: &str) -> Result<NodePrivate, IdentityError> {
    let bad = |reason: String| IdentityError::KeyFile(path.into(), reason);
    // serde's own message may quote the file.
    let file: KeyFile = serde_json::from_str(text).map_err(|error| {
        bad(format!("line {} is not {{\"PrivateKey\":\"privkey:…\"}}", error.line().max(1)))
    })?;
    file.private_key.parse().map_err(|error: towpath_wire::key::KeyTextError| bad(error.to_string()))
}

type Certificate = (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>);

fn read(path: &Path) -> Result<Vec<u8>, IdentityError> {
    fs::read(path).map_err(|source| IdentityError::File { action: "read", path: path.into(), source })
}

fn bad_certificate(path: &Path, reason: impl ToString) -> IdentityError {
    IdentityError::Certificate(path.into(), reason.to_string())
}

fn load_chain(cert: &Path) -> Result<Vec<CertificateDer<'static>>, IdentityError> {
    let chain = CertificateDer::pem_slice_iter(&read(cert)?)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| bad_certificate(cert, error))?;
    if chain.is_empty() {
        return Err(bad_certificate(cert, "no certificate in PEM form"));
    }
    Ok(chain)
}

fn load_certificate(cert: &Path, key: &Path) -> Result<Certificate, IdentityError> {
    let chain = load_chain(cert)?;
    let key_pem = secret_file::read(key)?;
    let tls_key = PrivateKeyDer::from_pem_slice(&key_pem).map_err(|error| match error {
        rustls::pki_types::pem::Error::NoItemsFound => bad_certificate(key, "no private key in PEM form"),
        error => bad_certificate(key, error),
    })?;
    Ok((chain, tls_key))
}

/// Loads or creates the self-signed certificate beside the key file, so that a pin outlives a restart.
fn load_or_create_self_signed(key_file: &Path, hostname: &str) -> Result<Certificate, IdentityError> {
    let files = self_signed_files(key_file);
    let CertFiles { cert, key } = &files;
    match (is_there(cert)?, is_there(key)?) {
        (true, true) => {}
        (true, false) => {
            let why = format!(
                "is there without {}: restore the key, or remove the certificate and print the map again",
                key.display()
            );
            return Err(IdentityError::Certificate(cert.clone(), why));
        }
        (false, has_key) => {
            make_self_signed(&files, hostname)?;
            if has_key {
                warn!(
                    "{} was there without its certificate, and {} was made for it; if a DERP map pins an earlier one, \
                     print it again",
                    key.display(),
                    cert.display()
                );
            }
        }
    }
    let (chain, tls_key) = load_certificate(cert, key)?;
    if !is_for(&chain, hostname) {
        let why = format!("is not for {hostname}: remove it and {}, and new ones are made", key.display());
        return Err(IdentityError::Certificate(cert.clone(), why));
    }
    Ok((chain, tls_key))
}

/// Makes the self-signed certificate for the key beside it. Makes the key first if it is missing, too.
///
/// Nothing that clients may have pinned is ever replaced, and what they pin is the certificate. A process that ends
/// between the two leaves a key for which there never was a certificate, so the next start makes one, and no person is
/// needed. The reverse is no state of a crash: a certificate without its key may be pinned, and its key in a backup.
fn make_self_signed(CertFiles { cert, key }: &CertFiles, hostname: &str) -> Result<(), IdentityError> {
    let pem = secret_file::read_or_create(key, || {
        Ok::<_, IdentityError>(Zeroizing::new(self_signed_key()?.serialize_pem()))
    })?;
    let pair = KeyPair::from_pem(&pem).map_err(|error| bad_certificate(key, error))?;
    match secret_file::create(cert, self_signed(hostname, &pair)?.pem().as_bytes()) {
        // Another process was faster, with the same key.
        Err(error) if error.is_already_there() => Ok(()),
        created => Ok(created?),
    }
}

fn is_there(path: &Path) -> Result<bool, IdentityError> {
    path.try_exists().map_err(|source| IdentityError::File { action: "look for", path: path.into(), source })
}

/// Whether the leaf of `chain` is for `hostname`, a DNS name or an address.
fn is_for(chain: &[CertificateDer<'_>], hostname: &str) -> bool {
    let Ok(name) = ServerName::try_from(hostname) else { return false };
    let leaf = chain.first().and_then(|leaf| webpki::EndEntityCert::try_from(leaf).ok());
    leaf.is_some_and(|leaf| leaf.verify_is_valid_for_subject_name(&name).is_ok())
}

fn self_signed_key() -> Result<KeyPair, rcgen::Error> {
    KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)
}

fn self_signed(hostname: &str, key: &KeyPair) -> Result<rcgen::Certificate, rcgen::Error> {
    let mut params = CertificateParams::new([hostname.to_owned()])?;
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, hostname);
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    let now = OffsetDateTime::now_utc();
    (params.not_before, params.not_after) = (now - CLOCK_SKEW, now + SELF_SIGNED_LIFE);
    params.self_signed(key)
}

/// The certificate by which a client learns the node key inside the TLS handshake, and so saves a round trip.
///
/// It is trusted because the leaf before it vouches for the whole handshake. Its name is longer than RFC 5280 allows;
/// upstream's are, too.
fn meta_certificate(node: &NodePublic) -> Result<CertificateDer<'static>, rcgen::Error> {
    const BASIC_CONSTRAINTS: [u64; 4] = [2, 5, 29, 19];
    /// An empty sequence: not a CA.
    const NOT_A_CA: [u8; 2] = [0x30, 0x00];
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, format!("{META_NAME_PREFIX}{}", node.to_hex()));
    params.serial_number = Some(SerialNumber::from(u64::from(PROTOCOL_VERSION)));
    // Clients on Windows and macOS require dates and this extension.
    let mut constraints = CustomExtension::from_oid_content(&BASIC_CONSTRAINTS, NOT_A_CA.to_vec());
    constraints.set_criticality(true);
    params.custom_extensions.push(constraints);
    let now = OffsetDateTime::now_utc();
    (params.not_before, params.not_after) = (now - CLOCK_SKEW, now + SELF_SIGNED_LIFE);
    Ok(params.self_signed(&KeyPair::generate_for(&PKCS_ED25519)?)?.der().clone())
}
