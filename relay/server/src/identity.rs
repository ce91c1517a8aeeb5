//! The identity of the relay: its node key, the certificate that it shows, and the meta certificate, which carries the node
//! key in TLS.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rcgen::{
    CertificateParams, CustomExtension, DistinguishedName, DnType, KeyPair, PKCS_ED25519, SerialNumber,
};
use rustls::pki_types::CertificateDer;
use serde::Deserialize;
use time::OffsetDateTime;
use towpath_service::visible_path;
use towpath_tls::RecordLayer;
use towpath_wire::derp::mesh::MeshKey;
use towpath_wire::derp::{META_NAME_PREFIX, PROTOCOL_VERSION};
use towpath_wire::key::{NodePrivate, NodePublic};
use towpath_wire::pin::CertificatePin;
use zeroize::Zeroizing;

use crate::admission::{AllowListError, Policies, TokenFileError, VerifySetupError};
use crate::certificate::{self, CLOCK_SKEW, CertificateError, SELF_SIGNED_LIFE, ShownCertificate};
use crate::config::KeySource;
use crate::mesh::{MeshError, MeshSetup};
use crate::secret_file::{self, SecretFileError};
use crate::tls::server_config;

/// The reason why the relay has no identity.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// A file with a secret cannot be used.
    #[error(transparent)]
    Secret(#[from] SecretFileError),
    /// The key file holds something else. The message does not repeat its contents.
    #[error("{path} is not a key file: {reason}", path = visible_path(.0), reason = .1)]
    KeyFile(PathBuf, String),
    /// A certificate or its key cannot be used.
    #[error(transparent)]
    Certificate(#[from] CertificateError),
    /// The allow list cannot be used.
    #[error(transparent)]
    AllowList(#[from] AllowListError),
    /// The keys for tokens cannot be used.
    #[error(transparent)]
    Tokens(#[from] TokenFileError),
    /// The backend of `verify.url` cannot be asked.
    #[error(transparent)]
    Verify(#[from] VerifySetupError),
    /// The mesh cannot be set up.
    #[error(transparent)]
    Mesh(#[from] MeshError),
    /// Several files cannot be used, each for its reason.
    #[error("{0}")]
    Files(String),
    /// A certificate cannot be made.
    #[error("cannot make a certificate")]
    Make(#[from] rcgen::Error),
    /// TLS cannot be set up with the certificate.
    #[error("cannot set up TLS")]
    Tls(#[from] rustls::Error),
    /// The system has no random bytes.
    #[error("cannot get random bytes from the system")]
    Random(#[from] getrandom::Error),
}

/// The relay's node key, its certificates, the secrets and links of its mesh, and its policies of admission.
#[derive(Debug)]
pub struct Identity {
    node_key: NodePrivate,
    /// `None` if the relay does not speak TLS to clients.
    shown: Option<Arc<ShownCertificate>>,
    mesh: MeshSetup,
    policies: Policies,
}

impl Identity {
    pub(crate) fn new(
        node_key: NodePrivate,
        shown: Option<ShownCertificate>,
        mesh: MeshSetup,
        policies: Policies,
    ) -> Self {
        Self { node_key, shown: shown.map(Arc::new), mesh, policies }
    }

    /// The policies of admission, which are run once.
    pub(crate) fn take_policies(&mut self) -> Policies {
        std::mem::take(&mut self.policies)
    }

    /// The public half of the node key, which clients learn at login.
    #[must_use]
    pub fn node_public(&self) -> NodePublic {
        self.node_key.public()
    }

    /// The pin by which clients verify the relay, if its certificate is self-signed.
    #[must_use]
    pub fn certificate_pin(&self) -> Option<CertificatePin> {
        self.shown.as_ref()?.pin()
    }

    pub(crate) const fn node_key(&self) -> &NodePrivate {
        &self.node_key
    }

    /// The certificate, which may be replaced while the relay runs; `None` if the relay does not speak TLS to clients.
    pub(crate) const fn shown(&self) -> Option<&Arc<ShownCertificate>> {
        self.shown.as_ref()
    }

    /// The links to the other relays, which are run once.
    pub(crate) fn take_mesh(&mut self) -> MeshSetup {
        std::mem::take(&mut self.mesh)
    }

    /// The configuration of the relay's TLS, if it speaks that to clients.
    pub(crate) fn server_config(
        &self,
        records: RecordLayer,
    ) -> Result<Option<rustls::ServerConfig>, IdentityError> {
        Ok(self.shown.clone().map(|shown| server_config(shown, records)).transpose()?)
    }
}

/// Returns the pin of a relay that shows the certificates in the file `cert`, for the `CertName` of a DERP map; `None` for a
/// certificate that an authority has signed, which clients verify by its name.
///
/// # Errors
///
/// [`CertificateError`] if the file is not a certificate.
pub fn pin_of_file(cert: &Path) -> Result<Option<CertificatePin>, CertificateError> {
    certificate::pin_of_file(cert)
}

/// Returns the pin of the certificates that a relay shows, as [`pin_of_file`] does for those in a file.
#[must_use]
pub fn pin_of_chain(chain: &[CertificateDer<'_>]) -> Option<CertificatePin> {
    certificate::pin(chain)
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

/// The node key as it was found.
#[derive(Debug)]
pub(crate) enum NodeKeyFile {
    /// The key is known.
    Known(NodePrivate),
    /// There is no such file, and one can be made.
    Missing(PathBuf),
    /// A key for this run is wanted.
    ThrowAway,
}

impl NodeKeyFile {
    /// Reads the key and writes nothing.
    pub(crate) fn read(source: &KeySource, warnings: &mut Vec<String>) -> Result<Self, IdentityError> {
        Ok(match source {
            KeySource::Inline(key) => Self::Known(key.clone()),
            KeySource::Ephemeral => Self::ThrowAway,
            KeySource::File(path) => match secret_file::read_or_check_creation(path, warnings)? {
                Some(text) => Self::Known(parse_key_file(path, &text)?),
                None => Self::Missing(path.clone()),
            },
        })
    }

    /// The key, if it is known.
    pub(crate) const fn key(&self) -> Option<&NodePrivate> {
        match self {
            Self::Known(key) => Some(key),
            Self::Missing(_) | Self::ThrowAway => None,
        }
    }

    /// Makes a key file, or reads the one that another process has made meanwhile.
    pub(crate) fn create(path: &Path) -> Result<NodePrivate, IdentityError> {
        let text =
            secret_file::read_or_create(path, || Ok::<_, IdentityError>(key_file_text(&random_key()?)))?;
        parse_key_file(path, &text)
    }
}

/// Reads the node key in a file in derper's format, or makes one there if the file is missing. Adds to `warnings` what should be told
/// about the file.
///
/// # Errors
///
/// See [`IdentityError`].
pub fn key_of_file(path: &Path, warnings: &mut Vec<String>) -> Result<NodePrivate, IdentityError> {
    match NodeKeyFile::read(&KeySource::File(path.into()), warnings)? {
        NodeKeyFile::Known(key) => Ok(key),
        NodeKeyFile::Missing(_) | NodeKeyFile::ThrowAway => NodeKeyFile::create(path),
    }
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

fn parse_key_file(path: &Path, text: &str) -> Result<NodePrivate, IdentityError> {
    let bad = |reason: String| IdentityError::KeyFile(path.into(), reason);
    if text.trim().is_empty() {
        return Err(bad("it is empty; remove it, and the start makes a new key".into()));
    }
    // serde's own message may quote the file.
    let file: KeyFile = serde_json::from_str(text).map_err(|error| {
        bad(format!("line {} is not {{\"PrivateKey\":\"privkey:…\"}}", error.line().max(1)))
    })?;
    let key = file.private_key.trim_end_matches(['\r', '\n']);
    key.parse().map_err(|error: towpath_wire::key::KeyTextError| bad(error.to_string()))
}

/// The certificate by which a client learns the node key inside the TLS handshake, and so saves a round trip.
///
/// It is trusted because the leaf before it vouches for the whole handshake. Its name is longer than RFC 5280 allows;
/// upstream's are, too.
pub(crate) fn meta_certificate(node: &NodePublic) -> Result<CertificateDer<'static>, rcgen::Error> {
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
