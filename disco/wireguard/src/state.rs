//! What was found before it was changed, in a file of the state directory, so that it can be put back: at the end, by `--restore`, or by
//! the next start after one that was killed.

use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::net::SocketAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

/// The state of an interface. Holds no secret.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Found {
    /// The MTU that was found and the one that was set, in bytes.
    pub(crate) mtu: Option<Changed<u32>>,
    /// The endpoints by the public keys of the peers, in base64. One that is `None` was not there.
    pub(crate) endpoints: BTreeMap<String, Changed<Option<SocketAddr>>>,
    /// The file whose names were changed.
    pub(crate) hosts: Option<PathBuf>,
}

/// A value that was found, and the one that was set in its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Changed<T> {
    pub(crate) found: T,
    pub(crate) set: T,
}

/// The file of an interface's state.
#[derive(Clone, Debug)]
pub(crate) struct StateFile(PathBuf);

impl StateFile {
    pub(crate) fn new(directory: &Path, interface: &str) -> Self {
        Self(directory.join(format!("proxy-{interface}.json")))
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    /// Reads it; `None` if it is not there, because nothing was changed.
    pub(crate) fn read(&self) -> io::Result<Option<Found>> {
        match fs::read(&self.0) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            read => Ok(Some(serde_json::from_slice(&read?)?)),
        }
    }

    /// Writes it whole or not at all, before anything is changed.
    pub(crate) fn write(&self, found: &Found) -> io::Result<()> {
        if let Some(directory) = self.0.parent() {
            fs::create_dir_all(directory)?;
        }
        let new = self.0.with_extension("new");
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&new)?;
        let written = file.write_all(&serde_json::to_vec_pretty(found)?).and_then(|()| file.sync_all());
        let written = written.and_then(|()| fs::rename(&new, &self.0));
        if written.is_err() {
            // The reason is told; the half file is of no use.
            _ = fs::remove_file(&new);
        }
        written
    }

    pub(crate) fn remove(&self) -> io::Result<()> {
        match fs::remove_file(&self.0) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            done => done,
        }
    }
}

#[cfg(test)]
mod tests {
    use tempfile::TempDir;

    use super::*;

    #[test]
    fn state_is_read_as_it_was_written_and_is_nothing_before() {
        let dir = TempDir::new().expect("a directory");
        let file = StateFile::new(&dir.path().join("made"), "wg0");
        assert_eq!(file.read().expect("read"), None);
        let mut found = Found { mtu: Some(Changed { found: 65_456, set: 1420 }), ..Found::default() };
        let set = Some(([127, 0, 0, 1], 4001).into());
        found.endpoints.insert("key".into(), Changed { found: None, set });
        file.write(&found).expect("written");
        assert_eq!(file.read().expect("read"), Some(found));
        fs::write(file.path(), "{").expect("a file");
        assert!(file.read().is_err(), "half a file is no state");
        file.remove().and_then(|()| file.remove()).expect("removed");
    }
}
