//! The mesh of a region: who is taken for another of its relays, and how this relay finds and keeps the others.
//!
//! Each relay dials each other one, logs in as a client with its own node key and the key of the mesh, and asks to be told
//! of the clients there; so between two relays there are two connections. A link that is dialled is handed to the data
//! plane, where it is a connection like any other (`forward::link`); here is only what comes before that and after it.
//!
//! The key of the mesh is worth as much as all relays together, so it goes to none but the relay that the configuration
//! names, by two tests: its certificate is trusted, and its node key is the one that is expected, which the login, sealed
//! to that key, proves. The first fails before anything is sent, the second before the login is.

use std::fs;
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use tokio::sync::mpsc;
use tokio::time::sleep;
use towpath_relay_client::{Client, DialError, Dialer, Raw, SetupError, TlsVersions, Trust};
use towpath_relay_proto::rights::{Claim, Secrets};
use towpath_wire::derp::PROTOCOL_VERSION;
use towpath_wire::derp::info::ClientInfo;
use towpath_wire::derp::mesh::{MeshKey, MeshKeyTextError, PresentFlags};
use towpath_wire::key::{NodePrivate, NodePublic};
use tracing::{debug, info, warn};
use zeroize::Zeroizing;

use crate::config::{Mesh, MeshPeer};
use crate::forward::DataPlane;
use crate::forward::link::{LinkArrival, LinkEvent};
use crate::forward::peer::{Peer, Sink};
use crate::metrics::MeshMetrics;
use crate::server::set_options;

/// How long after a link broke or could not be made it is dialled again, as upstream, and how much later at random, so
/// that relays which lost a third one together do not come back to it together.
const REDIAL: Duration = Duration::from_secs(5);
const REDIAL_SPREAD: Duration = Duration::from_secs(1);

/// Why the mesh cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum MeshError {
    /// A file cannot be read.
    #[error("cannot read {path}: {reason}", path = path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What the system says.
        reason: io::Error,
    },
    /// A key file holds something else. The message does not repeat what.
    #[error("{path}: {reason}", path = .0.display(), reason = .1)]
    Key(PathBuf, MeshKeyTextError),
    /// No certificate that could vouch for a relay.
    #[error("no root certificates for mesh.peers without a pin: {0}")]
    Roots(String),
    /// A relay cannot be dialled whatever happens.
    #[error("mesh.peers: {host}: {reason}")]
    Peer {
        /// The relay's host.
        host: String,
        /// Why.
        reason: SetupError,
    },
}

/// The mesh, ready to run.
#[derive(Debug)]
pub(crate) struct Setup {
    pub(crate) gate: Gate,
    dialers: Vec<(MeshPeer, Dialer)>,
}

/// Who is taken for another relay, or for a prober.
#[derive(Debug)]
pub(crate) struct Gate {
    secrets: Secrets,
    config: Mesh,
}

impl Gate {
    /// Whether anybody can have the right to watch.
    pub(crate) const fn can_open(&self) -> bool {
        self.secrets.mesh.is_some() || self.secrets.prober.is_some()
    }

    /// Judges the key that a client at `address` has sent.
    pub(crate) fn judge(&self, claimed: &MeshKey, address: IpAddr) -> Claim {
        self.secrets.judge(claimed, self.config.allows(address))
    }
}

impl Setup {
    /// Reads the secrets, and makes ready to dial every relay but this one.
    pub(crate) fn load(config: &Mesh, own: NodePublic) -> Result<Self, MeshError> {
        let key = |path: &Option<PathBuf>| path.as_deref().map(read_key).transpose();
        let secrets = Secrets {
            mesh: key(&config.key_file)?,
            second: key(&config.second_key_file)?,
            prober: key(&config.prober_key_file)?,
        };
        let others = config.peers.iter().filter(|peer| peer.public_key != own);
        let needs_roots = others.clone().any(|peer| peer.pin.is_none());
        let roots = if needs_roots { Some(Arc::new(roots(config.ca_file.as_deref())?)) } else { None };
        let dialers = others
            .map(|peer| {
                let trust = match (peer.pin, &roots) {
                    (Some(pin), _) => Trust::Pin(pin),
                    (None, Some(roots)) => Trust::Roots(roots.clone()),
                    (None, None) => unreachable!("roots are there where a peer has no pin"),
                };
                let dialer = dialer(peer, &trust, secrets.mesh.clone())
                    .map_err(|reason| MeshError::Peer { host: peer.host.clone(), reason })?;
                Ok((peer.clone(), dialer))
            })
            .collect::<Result<_, _>>()?;
        Ok(Self { gate: Gate { secrets, config: config.clone() }, dialers })
    }

    /// Dials the other relays, each for ever. Returns the gate.
    pub(crate) fn run(self, plane: &Arc<DataPlane>, key: &NodePrivate, metrics: &MeshMetrics) -> Gate {
        metrics.peers.set(i64::try_from(self.dialers.len()).unwrap_or(i64::MAX));
        for (peer, dialer) in self.dialers {
            let keeper =
                Keeper { peer, dialer, plane: plane.clone(), key: key.clone(), metrics: metrics.clone() };
            tokio::spawn(keeper.run());
        }
        self.gate
    }
}

fn read_key(path: &Path) -> Result<MeshKey, MeshError> {
    let text = fs::read_to_string(path).map(Zeroizing::new);
    let text = text.map_err(|reason| MeshError::File { path: path.into(), reason })?;
    text.parse().map_err(|error| MeshError::Key(path.into(), error))
}

/// Those of a file, or those of the system.
fn roots(file: Option<&Path>) -> Result<RootCertStore, MeshError> {
    let mut roots = RootCertStore::empty();
    let Some(path) = file else {
        let found = rustls_native_certs::load_native_certs();
        let (added, _) = roots.add_parsable_certificates(found.certs);
        if added == 0 {
            let why = found.errors.first().map_or_else(|| "the system has none".into(), ToString::to_string);
            return Err(MeshError::Roots(why));
        }
        return Ok(roots);
    };
    let pem = fs::read(path).map_err(|reason| MeshError::File { path: path.into(), reason })?;
    let bad = |why: String| MeshError::Roots(format!("{}: {why}", path.display()));
    for certificate in CertificateDer::pem_slice_iter(&pem) {
        let certificate = certificate.map_err(|error| bad(error.to_string()))?;
        roots.add(certificate).map_err(|error| bad(error.to_string()))?;
    }
    if roots.is_empty() {
        return Err(bad("no certificate in PEM form".into()));
    }
    Ok(roots)
}

fn dialer(peer: &MeshPeer, trust: &Trust, mesh_key: Option<MeshKey>) -> Result<Dialer, SetupError> {
    let info =
        ClientInfo { mesh_key, version: PROTOCOL_VERSION.into(), can_ack_pings: true, is_prober: false };
    let dialer = Dialer::tls(&peer.host, peer.port, trust, TlsVersions::Both)?
        .with_info(info)
        .with_relay_key(peer.public_key);
    Ok(match peer.address {
        Some(address) => dialer.at(address),
        None => dialer,
    })
}

/// Keeps one link.
struct Keeper {
    peer: MeshPeer,
    dialer: Dialer,
    plane: Arc<DataPlane>,
    key: NodePrivate,
    metrics: MeshMetrics,
}

impl Keeper {
    async fn run(self) {
        let mut last_failure = String::new();
        loop {
            match self.dialer.connect(&self.key).await {
                Ok(client) => {
                    last_failure.clear();
                    self.link(client).await;
                }
                Err(error) => self.note_failure(&error, &mut last_failure),
            }
            sleep(REDIAL + spread()).await;
        }
    }

    /// What goes wrong again and again for one reason is worth one line.
    fn note_failure(&self, error: &DialError, last: &mut String) {
        self.metrics.dial_failed(error.step());
        let (host, failure) = (&self.peer.host, error.to_string());
        if failure == *last {
            debug!(%host, "cannot link: {failure}");
        } else {
            warn!(%host, "cannot link, and will try on: {failure}");
            *last = failure;
        }
    }

    /// Hands the link to the data plane and waits until it is closed.
    async fn link(&self, client: Client) {
        let (events, mut told) = mpsc::unbounded_channel();
        let host = &self.peer.host;
        if let Err(error) = self.hand_over(client, events) {
            warn!(%host, "cannot link: {error}");
            return;
        }
        let mut was_up = false;
        while let Some(event) = told.recv().await {
            match event {
                LinkEvent::Up => {
                    was_up = true;
                    info!(%host, relay = ?self.peer.public_key, "mesh link up");
                }
                LinkEvent::Down(reason) if was_up => {
                    warn!(%host, reason = reason.label(), "mesh link down");
                }
                LinkEvent::Down(reason) => {
                    let reason = reason.label();
                    warn!(%host, reason, "the relay tells of nobody: has it the same mesh key, and takes it from here?");
                }
            }
        }
    }

    fn hand_over(&self, client: Client, events: mpsc::UnboundedSender<LinkEvent>) -> io::Result<()> {
        let relay = client.relay();
        let Raw { socket, tls, session, incoming, plaintext } = client.into_raw()?;
        let (reader, writer) = tls.ok_or_else(|| io::Error::other("a link without TLS"))?;
        set_options(&socket)?;
        let (address, socket) = (socket.peer_addr()?, Arc::new(socket));
        let id = self.plane.registry().next_id();
        let sink = Sink::Link(Box::new(writer));
        let peer = Arc::new(Peer::new(relay, id, address, PresentFlags::MESH_PEER, socket.clone(), sink));
        self.plane.attach_link(LinkArrival {
            peer,
            socket,
            reader,
            session,
            incoming,
            frames: plaintext,
            events,
        });
        Ok(())
    }
}

/// A part of [`REDIAL_SPREAD`]. Without randomness, none.
fn spread() -> Duration {
    let mut byte = [0];
    getrandom::fill(&mut byte).map_or(Duration::ZERO, |()| REDIAL_SPREAD * u32::from(byte[0]) / 255)
}

#[cfg(test)]
mod tests {
    use towpath_wire::pin::CertificatePin;

    use super::*;

    #[test]
    fn key_files_are_read_and_what_is_wrong_with_them_is_said_without_their_text() {
        let dir = tempfile::tempdir().expect("a directory");
        let file = dir.path().join("mesh.key");
        fs::write(&file, format!("{}\n", "aB".repeat(32))).expect("a file");
        assert_eq!(read_key(&file).expect("a key"), MeshKey::from_bytes([0xab; 32]));
        for text in ["", &"0".repeat(64), "secret"] {
            fs::write(&file, text).expect("a file");
            let message = read_key(&file).expect_err("no key").to_string();
            let expected = "not a mesh key: expected 64 hexadecimal digits that are not all zero";
            assert_eq!(message, format!("{}: {expected}", file.display()));
        }
        let missing = dir.path().join("missing");
        let message = read_key(&missing).expect_err("no file").to_string();
        assert!(message.starts_with(&format!("cannot read {}: ", missing.display())), "{message}");
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
        };
        let other = NodePrivate::from_random([2; 32]).public();
        let config = Mesh { peers: vec![peer(own), peer(other)], ..Mesh::default() };
        let setup = Setup::load(&config, own).expect("a mesh");
        let dialled: Vec<_> = setup.dialers.iter().map(|(peer, _)| peer.public_key).collect();
        assert_eq!(dialled, [other]);
        assert!(!setup.gate.can_open());
    }
}
