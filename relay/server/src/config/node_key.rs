//! The relay's node key: in a file, in the configuration itself, or fresh for one run.

use std::fmt;
use std::path::PathBuf;

use towpath_service::config::{ConfigReader, Value};
use towpath_wire::key::NodePrivate;

use super::keys;
use super::rules::path;

/// Where the node key is kept unless the configuration says otherwise.
const DEFAULT_KEY_FILE: &str = "/var/lib/towpath/relay.key";

/// Where the relay's node key comes from.
#[derive(Clone)]
pub enum KeySource {
    /// This file, in derper's JSON format; created if missing.
    File(PathBuf),
    /// The configuration itself.
    Inline(NodePrivate),
    /// A fresh key for this run only.
    Ephemeral,
}

impl fmt::Debug for KeySource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => f.debug_tuple("File").field(path).finish(),
            Self::Inline(_) => f.write_str("Inline(..)"),
            Self::Ephemeral => f.write_str("Ephemeral"),
        }
    }
}

impl KeySource {
    pub(super) fn read(reader: &mut ConfigReader<'_>, dev: bool) -> Self {
        let inline = reader.key::<PrivateKey>(keys::PRIVATE_KEY).optional();
        let inline_given = reader.given(keys::PRIVATE_KEY).is_some();
        let file = path(reader, keys::KEY_FILE);
        let file = if dev || inline_given { file.optional() } else { Some(file.or(DEFAULT_KEY_FILE.into())) };
        if inline_given && reader.given(keys::KEY_FILE).is_some() {
            reader.conflict(keys::PRIVATE_KEY, "excludes key_file: give one of them");
        }
        if inline_given && !dev && reader.given(keys::CERT).is_none() {
            let why = "needs cert and key as well: a self-signed certificate would be kept beside key_file";
            reader.conflict(keys::PRIVATE_KEY, why);
        }
        match (inline, file) {
            (Some(PrivateKey(key)), _) => Self::Inline(key),
            (None, Some(path)) => Self::File(path),
            (None, None) => Self::Ephemeral,
        }
    }
}

/// The node key as a setting.
#[derive(Clone)]
struct PrivateKey(NodePrivate);

impl Value for PrivateKey {
    fn allowed() -> String {
        "privkey: and 64 hexadecimal digits, as keygen prints".into()
    }

    fn from_text(text: &str) -> Option<Self> {
        text.parse().ok().map(Self)
    }

    fn to_toml(&self) -> String {
        // The reader masks a secret, so it does not need the real text.
        "\"\"".into()
    }
}
