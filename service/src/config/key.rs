//! The name of a setting, and the ways to give it.

/// The name of a setting: a dotted path in the file, from which the environment variable follows.
#[derive(Clone, Copy, Debug)]
pub struct SettingKey {
    pub(super) path: &'static str,
    pub(super) flag: Option<&'static str>,
    pub(super) secret: bool,
}

impl SettingKey {
    /// A setting at this dotted path, such as `outbox.age`.
    pub const fn new(path: &'static str) -> Self {
        Self { path, flag: None, secret: false }
    }

    /// The same setting, with a flag on the command line, such as `--listen`.
    pub const fn with_flag(self, flag: &'static str) -> Self {
        Self { flag: Some(flag), ..self }
    }

    /// The same setting, never to be shown.
    pub const fn secret(self) -> Self {
        Self { secret: true, ..self }
    }

    /// The dotted path.
    pub const fn path(self) -> &'static str {
        self.path
    }

    /// The environment variable: prefix and path in capitals, dots as underscores.
    pub(super) fn variable(self, prefix: &str) -> String {
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
