//! The files that the configuration names: keys, certificates, roots.
//!
//! They are read once, in one place, by the start and by `check-config` alike, so that both see the same and report everything
//! that is wrong together. Reading writes nothing. What is missing and may be made is made by [`Files::complete`], which only
//! the start calls.

use towpath_relay_proto::rights::Secrets;
use towpath_relay_proto::token::TokenKeys;
use towpath_service::config::{ConfigReader, Problems, Resolved, SettingKey, Sources};
use towpath_service::{ErrorChain, visible_path};
use towpath_wire::key::{NodePrivate, NodePublic};
use tracing::warn;

use crate::admission::backend::VerifySetup;
use crate::admission::{AllowList, AllowedKeys, Policies, Tokens, read_token_keys};
use crate::certificate::{Certificate, Expected, Fault, SelfSigned, ShownCertificate, throw_away};
use crate::config::{Config, KeySource, keys};
use crate::identity::{Identity, IdentityError, NodeKeyFile, meta_certificate, random_key};
use crate::mesh::MeshSetup;
use crate::unix_time::unix_now;

/// What the files hold that the configuration names.
#[derive(Debug)]
pub struct Files {
    node_key: NodeKeyFile,
    certificate: CertificateSource,
    expected: Expected,
    mesh: MeshSetup,
    allow_list: Option<AllowedKeys>,
    tokens: Option<TokenKeys>,
    verify: Option<VerifySetup>,
}

/// Where the certificate comes from.
#[derive(Debug)]
enum CertificateSource {
    /// The files that `cert` and `key` name.
    Given(Certificate),
    /// The pair beside `key_file`.
    SelfSigned(SelfSigned),
    /// Nowhere: it is made for this run.
    ThrowAway,
    /// Nowhere: a proxy ends TLS.
    None,
}

/// What was found while files were read.
#[derive(Debug, Default)]
pub(crate) struct Findings {
    /// Everything that is wrong, by the setting that names the file.
    faults: Vec<Fault<IdentityError>>,
    warnings: Vec<String>,
}

impl Findings {
    /// Keeps what could be read, and notes what could not.
    fn keep<T, E: Into<IdentityError>>(&mut self, key: SettingKey, read: Result<T, E>) -> Option<T> {
        read.map_err(|error| self.faults.push(Fault { key, error: error.into() })).ok()
    }

    fn add<E: Into<IdentityError>>(&mut self, faults: Vec<Fault<E>>) {
        self.faults.extend(faults.into_iter().map(|Fault { key, error }| Fault { key, error: error.into() }));
    }
}

impl Config {
    /// Reads the whole configuration and every file that it names, and writes nothing.
    ///
    /// # Errors
    ///
    /// Every problem of the configuration and of the files, all at once.
    pub fn read_with_files(sources: &Sources, dev: bool) -> Result<(Self, Resolved, Files), Problems> {
        let mut reader = ConfigReader::new(sources);
        let config = Self::read_from(&mut reader, dev);
        config.admission.check_given(&mut reader);
        let mut findings = Findings::default();
        let files = Files::read(&config, &|key| reader.is_sound(key), &mut findings);
        for Fault { key, error } in &findings.faults {
            reader.conflict(*key, ErrorChain(error).to_string());
        }
        for warning in findings.warnings {
            reader.warn(warning);
        }
        let resolved = reader.finish()?;
        Ok((config, resolved, files.expect("a file that was not read is a problem")))
    }
}

impl Files {
    /// Reads the files. `is_sound`: whether the value of a setting can be used; a file that hangs on another is not read.
    /// Returns nothing if something is wrong.
    fn read(config: &Config, is_sound: &dyn Fn(SettingKey) -> bool, findings: &mut Findings) -> Option<Self> {
        let now = unix_now();
        let expected = Expected { hostname: config.hostname.clone(), check_name: config.check_name };
        let node_key = is_sound(keys::KEY_FILE).then(|| {
            let read = NodeKeyFile::read(&config.node_key, &mut findings.warnings);
            findings.keep(keys::KEY_FILE, read)
        });
        let node_key = node_key.flatten();
        let certificate = read_certificate(config, &expected, now, is_sound, findings);
        let own = node_key.as_ref().and_then(NodeKeyFile::key).map(NodePrivate::public);
        let (mesh, faults) = MeshSetup::read(&config.mesh, own, is_sound, &mut findings.warnings);
        findings.add(faults);
        let allow_list = config.admission.allow_list.as_deref().filter(|_| is_sound(keys::ALLOW_LIST_FILE));
        let allow_list =
            allow_list.and_then(|path| findings.keep(keys::ALLOW_LIST_FILE, AllowedKeys::read(path)));
        let tokens = config.admission.tokens.as_deref().filter(|_| is_sound(keys::TOKENS_KEY_FILE));
        let tokens = tokens.and_then(|path| findings.keep(keys::TOKENS_KEY_FILE, read_token_keys(path)));
        let verify = config.verify.as_ref().and_then(|settings| {
            let mut faults = Vec::new();
            let setup = VerifySetup::read(settings, is_sound, &mut findings.warnings, &mut faults);
            findings.add(faults);
            setup
        });
        if !findings.faults.is_empty() {
            return None;
        }
        Some(Self {
            node_key: node_key?,
            certificate: certificate?,
            expected,
            mesh,
            allow_list,
            tokens,
            verify,
        })
    }

    /// The files that the start makes, as messages name them.
    #[must_use]
    pub fn to_create(&self) -> Vec<String> {
        let node_key = match &self.node_key {
            NodeKeyFile::Missing(path) => Some(path.as_path()),
            NodeKeyFile::Known(_) | NodeKeyFile::ThrowAway => None,
        };
        let certificate = match &self.certificate {
            CertificateSource::SelfSigned(pair) => pair.to_create(),
            CertificateSource::Given(_) | CertificateSource::ThrowAway | CertificateSource::None => {
                Vec::new()
            }
        };
        node_key.into_iter().chain(certificate).map(visible_path).collect()
    }

    /// The public half of the node key; `None` if it is made at the start.
    pub(crate) fn node_public(&self) -> Option<NodePublic> {
        self.node_key.key().map(NodePrivate::public)
    }

    /// The secrets of the mesh.
    pub(crate) const fn secrets(&self) -> &Secrets {
        &self.mesh.secrets
    }

    /// The mesh alone.
    pub(crate) fn into_mesh(self) -> MeshSetup {
        self.mesh
    }

    /// Makes what is missing, and returns the identity of the relay.
    ///
    /// # Errors
    ///
    /// See [`IdentityError`]. No file is left half-made, and the next start goes on where this one ended.
    pub fn complete(self, config: &Config) -> Result<Identity, IdentityError> {
        let Self { node_key, certificate, expected, mesh, allow_list, tokens, verify } = self;
        let node_key = match node_key {
            NodeKeyFile::Known(key) => key,
            NodeKeyFile::ThrowAway => random_key()?,
            NodeKeyFile::Missing(path) => NodeKeyFile::create(&path)?,
        };
        let mut warnings = Vec::new();
        let certificate = match certificate {
            CertificateSource::Given(certificate) => Some((certificate, config.cert.clone())),
            CertificateSource::ThrowAway => Some((throw_away(&config.hostname)?, None)),
            CertificateSource::SelfSigned(pair) => {
                let (certificate, files) = pair.complete(&expected, unix_now(), &mut warnings)?;
                Some((certificate, Some(files)))
            }
            CertificateSource::None => None,
        };
        for warning in warnings {
            warn!("{warning}");
        }
        let meta = meta_certificate(&node_key.public())?;
        let shown =
            certificate.map(|(certificate, files)| ShownCertificate::new(certificate, files, expected, meta));
        let policies = Policies {
            allow_list: allow_list.map(AllowList::new),
            tokens: tokens.map(Tokens::new),
            verify,
            ..Policies::default()
        };
        Ok(Identity::new(node_key, shown.transpose()?, mesh, policies))
    }
}

impl Identity {
    /// Reads keys and certificates, and makes those that are missing if the configuration allows it: [`Files::complete`] for
    /// a configuration that was read before.
    ///
    /// # Errors
    ///
    /// See [`IdentityError`].
    pub fn load(config: &Config) -> Result<Self, IdentityError> {
        let mut findings = Findings::default();
        let files = Files::read(config, &|_| true, &mut findings);
        for warning in &findings.warnings {
            warn!("{warning}");
        }
        match files {
            Some(files) => files.complete(config),
            None => {
                let faults = findings
                    .faults
                    .iter()
                    .map(|fault| format!("{}: {}", fault.key.path(), ErrorChain(&fault.error)));
                Err(IdentityError::Files(faults.collect::<Vec<_>>().join("; ")))
            }
        }
    }
}

fn read_certificate(
    config: &Config,
    expected: &Expected,
    now: i64,
    is_sound: &dyn Fn(SettingKey) -> bool,
    findings: &mut Findings,
) -> Option<CertificateSource> {
    if ![keys::CERT, keys::KEY].into_iter().all(is_sound) {
        return None;
    }
    if config.listen.is_none() {
        return Some(CertificateSource::None);
    }
    if let Some(files) = &config.cert {
        let certificate = match Certificate::read(files, &mut findings.warnings) {
            Ok(certificate) => certificate,
            Err(faults) => {
                for Fault { key, error } in faults {
                    findings.keep::<(), _>(key, Err(error));
                }
                return None;
            }
        };
        if is_sound(keys::HOSTNAME) {
            let judged = certificate.judge(&files.cert, expected, now, &mut findings.warnings);
            findings.keep(keys::CERT, judged)?;
        }
        return Some(CertificateSource::Given(certificate));
    }
    match &config.node_key {
        KeySource::File(path) if is_sound(keys::KEY_FILE) && is_sound(keys::HOSTNAME) => {
            let pair = SelfSigned::read(path, expected, now, &mut findings.warnings);
            findings.keep(keys::KEY_FILE, pair).map(CertificateSource::SelfSigned)
        }
        KeySource::File(_) => None,
        KeySource::Inline(_) | KeySource::Ephemeral => Some(CertificateSource::ThrowAway),
    }
}
