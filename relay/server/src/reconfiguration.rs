//! The configuration as the relay reads it again: which settings take effect, and which need a restart.
//!
//! The file is read with the eyes of `check-config`, the files that it names included, so that what is refused here would be
//! refused at the next start, too. A setting takes effect or needs a restart as its key says
//! ([`SettingKey::reloading`](towpath_service::config::SettingKey::reloading)).

use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use towpath_relay_proto::rights::Secrets;
use towpath_service::config::{Problems, Reloading, Resolved, SettingKey, Sources};
use towpath_wire::key::NodePublic;
use towpath_wire::sync::lock;
use tracing::{error, info, warn};

use crate::bounds::Bounded;
use crate::config::{Config, keys};
use crate::files::Files;
use crate::mesh::{Links, MeshSetup};
use crate::reload::{ReloadOutcome, Subject, What};

/// The sources of a running relay's configuration, and what they have resolved to.
#[derive(Debug)]
pub struct ConfigSources {
    /// The file, the variables and the flags.
    pub sources: Sources,
    /// Whether the relay is in development mode.
    pub dev: bool,
    /// The settings of the start.
    pub resolved: Resolved,
}

/// The configuration of a running relay, and what its settings are about.
pub(crate) struct Reconfiguration {
    sources: Sources,
    dev: bool,
    /// The settings of the start, which those hold that need a restart.
    at_start: Resolved,
    /// The settings that were read last.
    last: Mutex<Resolved>,
    own: NodePublic,
    secrets: Secrets,
    bounded: Bounded,
    links: Arc<Links>,
}

impl Reconfiguration {
    /// The configuration of a relay with the node key `own` and these secrets of the mesh.
    pub(crate) fn new(
        ConfigSources { sources, dev, resolved }: ConfigSources,
        own: NodePublic,
        secrets: Secrets,
        bounded: Bounded,
        links: Arc<Links>,
    ) -> Self {
        let last = Mutex::new(resolved.clone());
        Self { sources, dev, at_start: resolved, last, own, secrets, bounded, links }
    }

    /// The settings that need a restart for what is in the sources and the files now. `last`: what is in force.
    fn need_restart(&self, new: &Resolved, last: &Resolved, files: &Files) -> Vec<SettingKey> {
        let mut changed: Vec<_> = new
            .changes_since(&self.at_start)
            .filter(|key| key.reloading() != Some(Reloading::Value))
            .collect();
        let mut note = |key: SettingKey, has_changed: bool| {
            if has_changed && !names(&changed, key) {
                changed.push(key);
            }
        };
        let is_other = files.node_public().is_some_and(|key| key != self.own);
        note(keys::KEY_FILE, is_other && new.value_of(keys::PRIVATE_KEY).is_none());
        let secrets = files.secrets();
        note(keys::MESH_KEY_FILE, secrets.mesh != self.secrets.mesh);
        note(keys::MESH_SECOND_KEY_FILE, secrets.second != self.secrets.second);
        note(keys::MESH_PROBER_KEY_FILE, secrets.prober != self.secrets.prober);
        if links_wait(&changed) {
            changed.extend(new.changes_since(last).filter(|key| key.path() == keys::MESH_PEERS.path()));
        }
        changed
    }

    /// Puts the settings that reload in force; without a mesh, those about links stay.
    fn apply(&self, config: &Config, mesh: Option<MeshSetup>) {
        self.bounded.set(config);
        if let Some(mesh) = mesh {
            let others = mesh.dialers.into_iter().filter(|(peer, _)| peer.public_key != self.own);
            self.links.keep(others.collect());
        }
    }
}

impl Subject for Reconfiguration {
    fn what(&self) -> What {
        What::Configuration
    }

    fn files(&self) -> Vec<PathBuf> {
        self.sources.path().map(Into::into).into_iter().collect()
    }

    fn reload(&self, asked: bool) -> ReloadOutcome {
        let sources = self.sources.read_again();
        let (config, mut new, files) = match Config::read_with_files(&sources, self.dev) {
            Ok(read) => read,
            Err(problems) => {
                error!("the relay goes on with its old configuration: {}", on_one_line(&problems));
                return ReloadOutcome::Refused;
            }
        };
        let mut last = lock(&self.last);
        for warning in new.warnings().iter().filter(|warning| asked || !last.warnings().contains(warning)) {
            warn!("{warning}");
        }
        let for_restart = self.need_restart(&new, &last, &files);
        if !for_restart.is_empty() {
            warn!("these settings have changed and need a restart: {}", list(&for_restart));
        }
        let applied: Vec<_> = new
            .changes_since(&last)
            .filter(|key| key.reloading() == Some(Reloading::Value) && !names(&for_restart, *key))
            .collect();
        if applied.is_empty() {
            if asked {
                info!("the configuration has no new values that reload");
            }
        } else {
            self.apply(&config, (!links_wait(&for_restart)).then(|| files.into_mesh()));
            info!("new values of the configuration are in force: {}", list(&applied));
        }
        if names(&for_restart, keys::MESH_PEERS) {
            // They are still to come.
            new.keep_from(&last, keys::MESH_PEERS);
        }
        *last = new;
        if applied.is_empty() { ReloadOutcome::Unchanged } else { ReloadOutcome::Replaced }
    }
}

/// Whether links stay as they are until a restart: one would be dialled with another key than the one that this relay accepts, or
/// with other roots than the others.
fn links_wait(for_restart: &[SettingKey]) -> bool {
    names(for_restart, keys::MESH_KEY_FILE) || names(for_restart, keys::MESH_CA_FILE)
}

fn names(keys: &[SettingKey], wanted: SettingKey) -> bool {
    keys.iter().any(|key| key.path() == wanted.path())
}

fn list(keys: &[SettingKey]) -> String {
    keys.iter().map(|key| key.path()).collect::<Vec<_>>().join(", ")
}

fn on_one_line(problems: &Problems) -> String {
    problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}
