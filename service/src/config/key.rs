//! The name of a setting, and the ways to give it.

/// The name of a setting: a dotted path in the file, from which the environment variable follows.
#[derive(Clone, Copy, Debug)]
pub struct SettingKey {
    pub(super) path: &'static str,
    pub(super) flag: Option<&'static str>,
    pub(super) secret: bool,
    about: &'static str,
    default_words: Option<&'static str>,
    reloading: Option<Reloading>,
}

/// What of a setting a running program takes up without a restart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reloading {
    /// A new value.
    Value,
    /// New contents of the file that the value names; another path needs a restart.
    Contents,
}

impl Reloading {
    /// The word for it behind a value, as in `reloads`.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Value => "reloads",
            Self::Contents => "the file reloads",
        }
    }
}

impl SettingKey {
    /// A setting at this dotted path, such as `outbox.age`.
    pub const fn new(path: &'static str) -> Self {
        Self { path, flag: None, secret: false, about: "", default_words: None, reloading: None }
    }

    /// Gives the setting a flag on the command line, such as `--listen`.
    pub const fn with_flag(self, flag: &'static str) -> Self {
        Self { flag: Some(flag), ..self }
    }

    /// Makes the setting one whose value is never shown.
    pub const fn secret(self) -> Self {
        Self { secret: true, ..self }
    }

    /// Gives the setting its meaning in words, for documents.
    pub const fn with_about(self, about: &'static str) -> Self {
        Self { about, ..self }
    }

    /// Says in words, for documents, what a default is that depends on the machine.
    pub const fn with_default_words(self, words: &'static str) -> Self {
        Self { default_words: Some(words), ..self }
    }

    /// Makes the setting one whose new value a running program takes up.
    pub const fn reloads(self) -> Self {
        Self { reloading: Some(Reloading::Value), ..self }
    }

    /// Makes the setting the path of a file that a running program reads again.
    pub const fn file_reloads(self) -> Self {
        Self { reloading: Some(Reloading::Contents), ..self }
    }

    /// What of the setting takes effect without a restart; `None` if nothing does.
    pub const fn reloading(self) -> Option<Reloading> {
        self.reloading
    }

    /// The meaning of the setting, for documents.
    pub const fn about(self) -> &'static str {
        self.about
    }

    /// The flag on the command line, if there is one.
    pub const fn flag(self) -> Option<&'static str> {
        self.flag
    }

    /// The default in words, if it depends on the machine.
    pub const fn default_words(self) -> Option<&'static str> {
        self.default_words
    }

    /// The dotted path.
    pub const fn path(self) -> &'static str {
        self.path
    }

    /// The environment variable: prefix and path in capitals, dots as underscores.
    pub fn variable(self, prefix: &str) -> String {
        format!("{prefix}_{}", self.path.replace('.', "_").to_ascii_uppercase())
    }

    /// Every way to give the setting, in words.
    pub(super) fn ways(self, prefix: &str) -> String {
        let variable = self.variable(prefix);
        match self.flag {
            Some(flag) => format!("in the file, as {variable} or as {flag}"),
            None => format!("in the file or as {variable}"),
        }
    }
}
