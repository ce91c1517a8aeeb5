//! The allow list as the relay reads it again.

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;

use towpath_service::{ErrorChain, visible_path};
use tracing::{error, info};

use super::{AllowedKeys, Engine};
use crate::reload::{ReloadOutcome, Subject, What};

/// The file of the allow list, and the engine that decides by it.
#[derive(Debug)]
pub(crate) struct AllowListFile {
    pub(crate) path: PathBuf,
    pub(crate) engine: Arc<Engine>,
}

impl Subject for AllowListFile {
    fn what(&self) -> What {
        What::AllowList
    }

    fn files(&self) -> Vec<PathBuf> {
        vec![self.path.clone()]
    }

    fn reload(&self, asked: bool) -> ReloadOutcome {
        let list = match AllowedKeys::read(&self.path) {
            Ok(list) => list,
            Err(error) => {
                error!("the allow list has not been replaced, and the old one holds: {}", ErrorChain(&error));
                return ReloadOutcome::Refused;
            }
        };
        // As a file is for a moment while it is written in place: it would close every client.
        if fs::metadata(&self.path).is_ok_and(|file| file.len() == 0) {
            error!(
                "the allow list has not been replaced, and the old one holds: {} is empty; to admit no key, write a line \
                 with # into it",
                visible_path(&self.path)
            );
            return ReloadOutcome::Refused;
        }
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
