//! The command `key`: the key by which peers know this one.

use std::path::PathBuf;

use clap::Args;
use towpath_relay::identity;
use towpath_service::command::{Failure, print};
use towpath_service::logs::say;

/// The command `key`.
#[derive(Args, Debug)]
pub(crate) struct Key {
    /// The file with the private key, readable by its owner only; made if it is missing
    #[arg(value_name = "FILE")]
    file: PathBuf,
}

impl Key {
    pub(crate) fn run(&self) -> Result<(), Failure> {
        let mut warnings = Vec::new();
        let key = identity::key_of_file(&self.file, &mut warnings).map_err(anyhow::Error::from)?;
        for warning in warnings {
            say(&format!("towpath: warning: {warning}"));
        }
        Ok(print(&format!("{}\n", key.public()))?)
    }
}
