//! The mesh of a region: the secrets that prove a relay, and the links by which this relay reaches the others.
//!
//! Each relay dials each other relay, logs in as a client with its own node key and the key of the mesh, and asks to be
//! told of the clients there. So two relays have two connections. A dialled link is handed to the data plane, where it
//! is a connection like any other (`relay/forward`). This module dials the link, and dials it again after it closes.
//!
//! The key of the mesh is worth as much as all relays together. So it is sent only to the relay that the configuration
//! names, after two tests: its certificate is trusted, and its node key is the expected one, which the login proves
//! because it is sealed to that key. The first test fails before anything is sent, the second before the login is sent.
//!
//! `links.rs` has the links that are kept, each by a task of its own.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use towpath_relay_client::{Dialer, SetupError, TlsVersions, Trust};
use towpath_relay_proto::rights::Secrets;
use towpath_service::config::SettingKey;
use towpath_service::visible_path;
use towpath_wire::derp::PROTOCOL_VERSION;
use towpath_wire::derp::info::ClientInfo;
use towpath_wire::derp::mesh::{MeshKey, MeshKeyTextError};
use towpath_wire::key::NodePublic;

use crate::certificate::Fault;
use crate::config::{Mesh, MeshPeer, keys};
use crate::secret_file::{self, SecretFileError};
use crate::tls::{RootsError, root_certificates};

mod links;
mod metrics;
mod remedy;

pub(crate) use links::{LinkContext, Links};
pub(crate) use metrics::MeshMetrics;

/// The reason why the mesh cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum MeshError {
    /// A key file cannot be used.
    #[error(transparent)]
    File(#[from] SecretFileError),
    /// A key file holds something else. The message does not repeat its contents.
    #[error("{path}", path = visible_path(.0))]
    Key(PathBuf, #[source] MeshKeyTextError),
    /// A key file is empty.
    #[error("{path} is empty: keygen --mesh makes a key", path = visible_path(.0))]
    Empty(PathBuf),
    /// No certificate that could vouch for a relay.
    #[error("no root certificates for mesh.peers without a pin")]
    Roots(#[source] RootsError),
    /// The file with root certificates cannot be used.
    #[error(transparent)]
    CaFile(RootsError),
    /// The configured peer can never be dialled.
    #[error("mesh.peers: {host}")]
    Peer {
        /// The relay's host.
        host: String,
        /// Why.
        source: SetupError,
    },
}

/// The secrets of the mesh, and the relays to dial.
#[derive(Debug, Default)]
pub(crate) struct MeshSetup {
    pub(crate) secrets: Secrets,
    /// The relays to dial, without this one.
    pub(crate) dialers: Vec<(MeshPeer, Dialer)>,
}

impl MeshSetup {
    /// Reads the secrets and the roots, and prepares to dial every relay but this one. `own` is this relay's key; `None` while
    /// it has none, when no peer can have it either. `is_sound` says whether the value of a setting can be used. Returns
    /// besides everything that is wrong.
    pub(crate) fn read(
        config: &Mesh,
        own: Option<NodePublic>,
        is_sound: &dyn Fn(SettingKey) -> bool,
        warnings: &mut Vec<String>,
    ) -> (Self, Vec<Fault<MeshError>>) {
        let mut faults = Vec::new();
        let mut key = |setting, path: &Option<PathBuf>| {
            let path = path.as_deref().filter(|_| is_sound(setting))?;
            read_key(path, warnings).map_err(|error| faults.push(Fault { key: setting, error })).ok()
        };
        let secrets = Secrets {
            mesh: key(keys::MESH_KEY_FILE, &config.key_file),
            second: key(keys::MESH_SECOND_KEY_FILE, &config.second_key_file),
            prober: key(keys::MESH_PROBER_KEY_FILE, &config.prober_key_file),
        };
        let others: Vec<_> = config.peers.iter().filter(|peer| Some(peer.public_key) != own).collect();
        // A file that is named is read in any case, so that it is right on the day on which a peer needs it.
        let (setting, error): (_, fn(RootsError) -> MeshError) = match config.ca_file {
            Some(_) => (keys::MESH_CA_FILE, MeshError::CaFile),
            None => (keys::MESH_PEERS, MeshError::Roots),
        };
        let needs_roots = config.ca_file.is_some() || others.iter().any(|peer| peer.pin.is_none());
        let roots = (needs_roots && is_sound(setting))
            .then(|| root_certificates(config.ca_file.as_deref()))
            .transpose()
            .unwrap_or_else(|reason| {
                faults.push(Fault { key: setting, error: error(reason) });
                None
            })
            .map(Arc::new);
        let mut dialers = Vec::new();
        for peer in others {
            let trust = match (peer.pin, &roots) {
                (Some(pin), _) => Trust::Pin(pin),
                (None, Some(roots)) => Trust::Roots(roots.clone()),
                // That the roots are missing is a fault already.
                (None, None) => continue,
            };
            match dialer(peer, &trust, secrets.mesh.clone()) {
                Ok(dialer) => dialers.push((peer.clone(), dialer)),
                Err(source) => faults.push(Fault {
                    key: keys::MESH_PEERS,
                    error: MeshError::Peer { host: peer.host.clone(), source },
                }),
            }
        }
        (Self { secrets, dialers }, faults)
    }
}

fn read_key(path: &Path, warnings: &mut Vec<String>) -> Result<MeshKey, MeshError> {
    let text = secret_file::read_text(path, warnings)?;
    if text.trim().is_empty() {
        return Err(MeshError::Empty(path.into()));
    }
    text.parse().map_err(|error| MeshError::Key(path.into(), error))
}

fn dialer(peer: &MeshPeer, trust: &Trust, mesh_key: Option<MeshKey>) -> Result<Dialer, SetupError> {
    let version = PROTOCOL_VERSION.into();
    let info = ClientInfo { mesh_key, version, can_ack_pings: true, ..ClientInfo::default() };
    let dialer = Dialer::tls(&peer.host, peer.port, trust, TlsVersions::Both)?
        .with_info(info)
        .with_relay_key(peer.public_key);
    let dialer = if peer.proxied { dialer.proxied() } else { dialer };
    Ok(match peer.address {
        Some(address) => dialer.at(address),
        None => dialer,
    })
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use towpath_service::ErrorChain;
    use towpath_wire::key::NodePrivate;
    use towpath_wire::pin::CertificatePin;

    use super::*;

    #[test]
    fn key_files_are_read_and_what_is_wrong_with_them_is_said_without_their_text() {
        let dir = tempfile::tempdir().expect("a directory");
        let file = dir.path().join("mesh.key");
        let read_key = |path: &Path| read_key(path, &mut Vec::new());
        fs::write(&file, format!("{}\r\n", "aB".repeat(32))).expect("a file");
        fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).expect("permissions");
        assert_eq!(read_key(&file).expect("a key"), MeshKey::from_bytes([0xab; 32]));
        fs::write(&file, "\n").expect("a file");
        let message = ErrorChain(&read_key(&file).expect_err("no key")).to_string();
        assert_eq!(message, format!("{} is empty: keygen --mesh makes a key", file.display()));
        for text in [&"0".repeat(64), "secret"] {
            fs::write(&file, text).expect("a file");
            let message = ErrorChain(&read_key(&file).expect_err("no key")).to_string();
            let expected = "not a mesh key: expected 64 hexadecimal digits that are not all zero";
            assert_eq!(message, format!("{}: {expected}", file.display()));
        }
        let missing = dir.path().join("missing");
        let message = ErrorChain(&read_key(&missing).expect_err("no file")).to_string();
        assert!(message.starts_with(&format!("cannot read {}: ", missing.display())), "{message}");
        fs::set_permissions(&file, fs::Permissions::from_mode(0o666)).expect("permissions");
        let message = ErrorChain(&read_key(&file).expect_err("anyone's key")).to_string();
        assert!(message.contains("can be changed by other users (mode 0666)"), "{message}");
    }

    #[test]
    fn this_relay_itself_is_not_dialled() {
        let own = NodePrivate::from_random([1; 32]).public();
        let peer = |public_key| MeshPeer {
            host: "relay.example.com".into(),
            port: 443,
            public_key,
            pin: Some(CertificatePin::from_sha256([0; 32])),
            address: None,
            proxied: false,
        };
        let other = NodePrivate::from_random([2; 32]).public();
        let config = Mesh { peers: vec![peer(own), peer(other)], ..Mesh::default() };
        let (setup, faults) = MeshSetup::read(&config, Some(own), &|_| true, &mut Vec::new());
        assert!(faults.is_empty(), "{faults:?}");
        let dialled: Vec<_> = setup.dialers.iter().map(|(peer, _)| peer.public_key).collect();
        assert_eq!(dialled, [other]);
        assert_eq!((setup.secrets.mesh, setup.secrets.prober), (None, None));
    }
}
