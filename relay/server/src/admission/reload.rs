//! The files of the policies as the relay reads them again: the allow list, and the keys for tokens.

use std::path::PathBuf;
use std::sync::Arc;

use towpath_service::{ErrorChain, visible_path};
use tracing::{error, info};

use super::{AllowedKeys, Engine, read_token_keys};
use crate::config::AdmissionSettings;
use crate::reload::{ReloadOutcome, Subject, What};

/// The files that the policies have been read from.
pub(crate) fn subjects(settings: &AdmissionSettings, engine: &Arc<Engine>) -> Vec<Arc<dyn Subject>> {
    let mut subjects: Vec<Arc<dyn Subject>> = Vec::new();
    if let Some(path) = settings.allow_list.clone() {
        subjects.push(Arc::new(AllowListFile { path, engine: engine.clone() }));
    }
    if let Some(path) = settings.tokens.clone() {
        subjects.push(Arc::new(TokenKeysFile { path, engine: engine.clone() }));
    }
    subjects
}

/// The file of the allow list, and the engine that decides by it.
#[derive(Debug)]
struct AllowListFile {
    path: PathBuf,
    engine: Arc<Engine>,
}

/// The file with the public keys of issuers, and the engine that decides by it.
#[derive(Debug)]
struct TokenKeysFile {
    path: PathBuf,
    engine: Arc<Engine>,
}

impl Subject for TokenKeysFile {
    fn what(&self) -> What {
        What::TokenKeys
    }

    fn files(&self) -> Vec<PathBuf> {
        vec![self.path.clone()]
    }

    fn reload(&self, asked: bool) -> ReloadOutcome {
        match read_token_keys(&self.path).map(|keys| self.engine.replace_token_keys(keys)) {
            Err(error) => {
                error!(
                    "the keys for tokens have not been replaced, and the old ones hold: {}",
                    ErrorChain(&error)
                );
                ReloadOutcome::Refused
            }
            Ok(true) => {
                info!("the keys for tokens have been replaced; clients with tokens of other keys are closed");
                ReloadOutcome::Replaced
            }
            Ok(false) => {
                if asked {
                    info!("the file of the keys for tokens holds those that are accepted");
                }
                ReloadOutcome::Unchanged
            }
        }
    }
}

impl Subject for AllowListFile {
    fn what(&self) -> What {
        What::AllowList
    }

    fn files(&self) -> Vec<PathBuf> {
        vec![self.path.clone()]
    }

    fn reload(&self, asked: bool) -> ReloadOutcome {
        let list = match AllowedKeys::read_written(&self.path) {
            Ok(Some(list)) => list,
            Err(error) => {
                error!("the allow list has not been replaced, and the old one holds: {}", ErrorChain(&error));
                return ReloadOutcome::Refused;
            }
            // It would close every client.
            Ok(None) => {
                error!(
                    "the allow list has not been replaced, and the old one holds: {} is empty; to admit no key, write a line \
                     with # into it",
                    visible_path(&self.path)
                );
                return ReloadOutcome::Refused;
            }
        };
        let keys = list.len();
        if self.engine.replace_allow_list(list) {
            info!(
                keys,
                "the allow list has been replaced; clients whose keys are no longer in it are closed"
            );
            ReloadOutcome::Replaced
        } else {
            if asked {
                info!(keys, "the file of the allow list holds the keys that are allowed");
            }
            ReloadOutcome::Unchanged
        }
    }
}
