//! The policy `allow_list`: a file with the node keys that may use the relay.

use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use towpath_service::visible_path;
use towpath_wire::key::NodePublic;
use towpath_wire::sync::lock;

/// The longest line. A key has 72 bytes; the rest is for a note.
const MAX_LINE: u64 = 4096;

/// The reason why an allow list cannot be used. The message does not repeat its contents.
#[derive(Debug, thiserror::Error)]
pub enum AllowListError {
    /// The system refuses.
    #[error("cannot read the allow list {path}", path = visible_path(path))]
    File {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// A line is neither a key nor a comment.
    #[error(
        "{path}:{line}: not a node key: each line begins with nodekey: and 64 hexadecimal digits, or with #",
        path = visible_path(path)
    )]
    Line {
        /// The file.
        path: PathBuf,
        /// The line, counted from 1.
        line: usize,
    },
}

/// The keys of an allow list.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct AllowedKeys {
    /// In order. A set of hashes would take half as much again.
    keys: Box<[[u8; 32]]>,
}

impl AllowedKeys {
    /// Reads a file, a line at a time.
    pub(crate) fn read(path: &Path) -> Result<Self, AllowListError> {
        Self::read_written(path).map(Option::unwrap_or_default)
    }

    /// Reads a file, a line at a time; `None` if it has no byte, as a file has for a moment while it is written in place.
    pub(crate) fn read_written(path: &Path) -> Result<Option<Self>, AllowListError> {
        let failed = |source| AllowListError::File { path: path.into(), source };
        let mut file = BufReader::new(File::open(path).map_err(failed)?);
        let (mut keys, mut text, mut line) = (Vec::new(), Vec::new(), 0);
        loop {
            text.clear();
            line += 1;
            let read = io::Read::take(&mut file, MAX_LINE).read_until(b'\n', &mut text).map_err(failed)?;
            if read == 0 {
                break;
            }
            let is_whole = text.ends_with(b"\n") || u64::try_from(read).is_ok_and(|read| read < MAX_LINE);
            match key_of_line(&text).filter(|_| is_whole) {
                Some(Some(key)) => keys.push(*key.as_bytes()),
                Some(None) => {}
                None => return Err(AllowListError::Line { path: path.into(), line }),
            }
        }
        keys.sort_unstable();
        keys.dedup();
        Ok((line > 1).then(|| Self { keys: keys.into_boxed_slice() }))
    }

    pub(crate) fn contains(&self, key: &NodePublic) -> bool {
        self.keys.binary_search(key.as_bytes()).is_ok()
    }

    pub(crate) fn len(&self) -> usize {
        self.keys.len()
    }
}

/// The key of a line; `Some(None)` if there is none because the line is empty or a comment.
fn key_of_line(line: &[u8]) -> Option<Option<NodePublic>> {
    let line = std::str::from_utf8(line).ok()?;
    let text = line.split('#').next().unwrap_or_default();
    match text.split_ascii_whitespace().next() {
        None => Some(None),
        Some(key) => key.parse().ok().map(Some),
    }
}

/// The allow list of a running relay, which may be replaced.
#[derive(Debug)]
pub(crate) struct AllowList {
    keys: Mutex<Arc<AllowedKeys>>,
}

impl AllowList {
    pub(crate) fn new(keys: AllowedKeys) -> Self {
        Self { keys: Mutex::new(Arc::new(keys)) }
    }

    pub(crate) fn contains(&self, key: &NodePublic) -> bool {
        self.keys().contains(key)
    }

    /// Takes another list in the place of this one. Returns whether they differ.
    pub(crate) fn replace(&self, keys: AllowedKeys) -> bool {
        let differ = *self.keys() != keys;
        if differ {
            *lock(&self.keys) = Arc::new(keys);
        }
        differ
    }

    /// How many keys there are.
    pub(crate) fn len(&self) -> usize {
        self.keys().len()
    }

    fn keys(&self) -> Arc<AllowedKeys> {
        lock(&self.keys).clone()
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use towpath_wire::key::NodePrivate;

    use super::*;

    fn key(seed: u8) -> NodePublic {
        NodePrivate::from_random([seed; 32]).public()
    }

    fn read(text: &[u8]) -> Result<AllowedKeys, String> {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("allowed");
        fs::write(&path, text).expect("a file");
        AllowedKeys::read(&path)
            .map_err(|error| error.to_string().replace(&*folder.path().to_string_lossy(), "FOLDER"))
    }

    #[test]
    fn lines_are_keys_with_notes_and_comments() {
        let text = format!(
            "# the team\n\n  {}  anna's laptop\r\n{} # build machine\n\t# end\n{}",
            key(1),
            key(2),
            key(1)
        );
        let keys = read(text.as_bytes()).expect("an allow list");
        assert_eq!(keys.len(), 2);
        assert!(keys.contains(&key(1)) && keys.contains(&key(2)) && !keys.contains(&key(3)));
        assert_eq!(read(b"").map(|keys| keys.len()), Ok(0));
        assert_eq!(read(b"#").map(|keys| keys.len()), Ok(0));
    }

    #[test]
    fn a_file_with_a_wrong_line_is_refused_as_a_whole() {
        let good = key(1).to_string();
        let cut = &good[..good.len() - 1];
        for wrong in [cut, "anna", "privkey:00", &format!("{good},{good}"), "\u{feff}"] {
            let text = format!("# list\n{good}\n{wrong}\n{good}\n");
            let error = read(text.as_bytes()).expect_err(wrong);
            assert!(error.starts_with("FOLDER/allowed:3: not a node key"), "{error}");
            assert!(!error.contains(cut), "the message does not repeat the line: {error}");
        }
        assert!(read(b"\xff\xfe").is_err());
        let long = format!("{good} {}", "x".repeat(5000));
        assert!(read(long.as_bytes()).is_err());
        let error = AllowedKeys::read(Path::new("/nowhere/list")).expect_err("no file");
        assert_eq!(error.to_string(), "cannot read the allow list /nowhere/list");
    }

    #[test]
    fn a_list_is_replaced_while_it_is_used() {
        let line = |seed| format!("{}\n", key(seed));
        let list = AllowList::new(read(line(1).as_bytes()).expect("a list"));
        assert!(list.contains(&key(1)));
        assert!(list.replace(read(line(2).as_bytes()).expect("a list")));
        assert!(!list.contains(&key(1)) && list.contains(&key(2)) && list.len() == 1);
        assert!(!list.replace(read(line(2).as_bytes()).expect("a list")), "nothing has changed");
    }
}
