//! The identity of the relay: its node key, its certificate, and the meta certificate, which carries the node key in
//! TLS.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

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
use zeroize::Zeroizing;

use crate::config::{CertFiles, Config, KeySource, self_signed_files};
use crate::tls::server_config;

/// The life of a self-signed certificate. A client that pins it checks its dates, so an earlier end would be an
/// unplanned outage. Clients trust the pin, not the date.
const SELF_SIGNED_LIFE: Duration = Duration::days(3650);
/// Clocks of clients are off by up to this much.
const CLOCK_SKEW: Duration = Duration::days(30);

/// The reason why the relay has no identity.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// A file cannot be read or written.
    #[error("cannot {action} {path}", path = path.display())]
    File {
        /// What was tried.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
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
                let (cert, key) = self_signed(&config.hostname)?;
                let chain = vec![cert.der().clone()];
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
    match fs::read_to_string(path).map(Zeroizing::new) {
        Ok(text) => parse_key_file(path, &text),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let key = random_key()?;
            create(path, key_file_text(&key).as_bytes())?;
            Ok(key)
        }
        Err(source) => Err(IdentityError::File { action: "read", path: path.into(), source }),
    }
}

fn parse_key_file(path: &Path, text: &str) -> Result<NodePrivate, IdentityError> {
    let bad = |reason: String| IdentityError::KeyFile(path.into(), reason);
    // serde's own message may quote the file.
    let file: KeyFile = serde_json::from_str(text).map_err(|error| {
        bad(format!("line {} is not {{\"PrivateKey\":\"privkey:…\"}}", error.line().max(1)))
    })?;
    file.private_key.parse().map_err(|error: towpath_wire::key::KeyTextError| bad(error.to_string()))
}

/// Creates a secret file whole or not at all, readable by its owner only. An existing file is never replaced.
///
/// # Errors
///
/// [`IdentityError::File`].
pub fn create(path: &Path, contents: &[u8]) -> Result<(), IdentityError> {
    let failed = |action, path: &Path| {
        let path = path.to_path_buf();
        move |source| IdentityError::File { action, path, source }
    };
    if let Some(dir) = path.parent().filter(|dir| !dir.as_os_str().is_empty()) {
        fs::create_dir_all(dir).map_err(failed("create the directory of", path))?;
    }
    let mut draft = path.as_os_str().to_owned();
    draft.push(format!(".{}.tmp", std::process::id()));
    let draft = PathBuf::from(draft);
    let write = || {
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&draft)?;
        file.write_all(contents)?;
        file.sync_all()?;
        // Unlike a rename, a link fails if another process was faster.
        fs::hard_link(&draft, path)
    };
    let written = write();
    let _ = fs::remove_file(&draft);
    written.map_err(failed("create", path))
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
    let key_pem = Zeroizing::new(read(key)?);
    let tls_key = PrivateKeyDer::from_pem_slice(&key_pem).map_err(|error| match error {
        rustls::pki_types::pem::Error::NoItemsFound => bad_certificate(key, "no private key in PEM form"),
        error => bad_certificate(key, error),
    })?;
    Ok((chain, tls_key))
}

/// Loads or creates the self-signed certificate beside the key file, so that a pin outlives a restart.
fn load_or_create_self_signed(key_file: &Path, hostname: &str) -> Result<Certificate, IdentityError> {
    let CertFiles { cert, key } = self_signed_files(key_file);
    if !cert.exists() {
        let (made, made_key) = self_signed(hostname)?;
        // The key is written first, so that a certificate is never without its key.
        if !key.exists() {
            create(&key, Zeroizing::new(made_key.serialize_pem()).as_bytes())?;
            create(&cert, made.pem().as_bytes())?;
        } else {
            return Err(IdentityError::Certificate(
                key,
                "is there without self-signed.crt: remove it or restore the certificate".into(),
            ));
        }
    }
    let (chain, tls_key) = load_certificate(&cert, &key)?;
    if !is_for(&chain, hostname) {
        let why = format!("is not for {hostname}: remove it and {}, and new ones are made", key.display());
        return Err(IdentityError::Certificate(cert, why));
    }
    Ok((chain, tls_key))
}

/// Whether the leaf of `chain` is for `hostname`, a DNS name or an address.
fn is_for(chain: &[CertificateDer<'_>], hostname: &str) -> bool {
    let Ok(name) = ServerName::try_from(hostname) else { return false };
    let leaf = chain.first().and_then(|leaf| webpki::EndEntityCert::try_from(leaf).ok());
    leaf.is_some_and(|leaf| leaf.verify_is_valid_for_subject_name(&name).is_ok())
}

fn self_signed(hostname: &str) -> Result<(rcgen::Certificate, KeyPair), rcgen::Error> {
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
    let mut params = CertificateParams::new([hostname.to_owned()])?;
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, hostname);
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    let now = OffsetDateTime::now_utc();
    (params.not_before, params.not_after) = (now - CLOCK_SKEW, now + SELF_SIGNED_LIFE);
    Ok((params.self_signed(&key)?, key))
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
