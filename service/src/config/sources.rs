//! The layers above the defaults, as raw text: a file, the environment, the command line.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt;
use std::path::{Path, PathBuf};

use super::key::SettingKey;
use super::problem::Problem;
use crate::visible::visible_path;

/// What the user gave, before anything is looked up in it.
#[derive(Clone)]
pub struct Sources {
    pub(super) prefix: &'static str,
    path: Option<PathBuf>,
    pub(super) file: Option<ConfigFile>,
    pub(super) unreadable: Option<Problem>,
    pub(super) variables: BTreeMap<String, OsString>,
    /// By path of the setting.
    pub(super) flags: BTreeMap<&'static str, String>,
}

#[derive(Clone)]
pub(super) struct ConfigFile {
    pub(super) name: String,
    pub(super) text: String,
}

impl fmt::Debug for Sources {
    /// Values are left out, because a user may have put a secret where none belongs.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sources")
            .field("path", &self.path)
            .field("variables", &self.variables.keys())
            .field("flags", &self.flags.keys())
            .finish_non_exhaustive()
    }
}

impl Sources {
    /// No file, no variables, no flags; variables will be those that begin with `prefix` and an underscore.
    pub fn new(prefix: &'static str) -> Self {
        Self {
            prefix,
            path: None,
            file: None,
            unreadable: None,
            variables: BTreeMap::new(),
            flags: BTreeMap::new(),
        }
    }

    /// Adds the file at `path`. A file that was asked for and cannot be read is a [`Problem`], never an empty file.
    #[must_use]
    pub fn file(mut self, path: &Path) -> Self {
        let name = visible_path(path);
        (self.file, self.unreadable) = match std::fs::read_to_string(path) {
            Ok(text) => (Some(ConfigFile { name, text }), None),
            Err(error) => (None, Some(Problem::Unreadable { name, reason: error.to_string() })),
        };
        self.path = Some(path.into());
        self
    }

    /// The path of the file, if there is one.
    pub fn path(&self) -> Option<&Path> {
        self.path.as_deref()
    }

    /// These sources, with what the file holds now.
    #[must_use]
    pub fn read_again(&self) -> Self {
        let again = self.clone();
        match &self.path {
            Some(path) => again.file(path),
            None => again,
        }
    }

    /// Adds a file that is in memory already.
    #[must_use]
    pub fn text(mut self, name: &str, text: &str) -> Self {
        self.file = Some(ConfigFile { name: name.into(), text: text.into() });
        self
    }

    /// Adds environment variables, such as those of `std::env::vars_os()`. Those without the prefix are not kept.
    ///
    /// Line breaks at the end of a value are dropped: a value that comes from a file, as a secret of Kubernetes does, ends in
    /// one as a rule, and no setting can.
    #[must_use]
    pub fn variables<K: Into<OsString>, V: Into<OsString>>(
        mut self,
        variables: impl IntoIterator<Item = (K, V)>,
    ) -> Self {
        for (name, value) in variables {
            let Ok(name) = name.into().into_string() else { continue };
            if name.strip_prefix(self.prefix).is_some_and(|rest| rest.starts_with('_')) {
                self.variables.insert(name, without_line_break(value.into()));
            }
        }
        self
    }

    /// Adds the value of the key's flag, if the user gave it.
    #[must_use]
    pub fn flag(mut self, key: SettingKey, value: Option<String>) -> Self {
        debug_assert!(key.flag.is_some(), "{} has no flag", key.path);
        if let Some(value) = value {
            self.flags.insert(key.path, value);
        }
        self
    }
}

/// The value without line breaks at its end. One that is not text stays as it is, and is refused as such.
fn without_line_break(value: OsString) -> OsString {
    match value.to_str() {
        Some(text) => text.trim_end_matches(['\r', '\n']).into(),
        None => value,
    }
}
