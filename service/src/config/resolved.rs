//! The outcome: every setting with its value and where that came from.

use std::fmt::Write;
use std::hash::{BuildHasher, RandomState};
use std::sync::OnceLock;

use super::key::{Reloading, SettingKey};
use super::problem::Origin;

/// What stands for the value of a secret.
const MASK: &str = "\"********\"";

/// One setting as it was resolved.
#[derive(Clone, Debug)]
pub struct Setting {
    key: SettingKey,
    allowed: String,
    /// TOML; `None` if the setting has no value. A secret's value is not kept.
    value: Option<String>,
    /// What tells one value of a secret from another: a hash with a key of this process.
    fingerprint: Option<u64>,
    origin: Origin,
}

impl Setting {
    pub(super) fn new(key: SettingKey, allowed: String, value: Option<String>, origin: Origin) -> Self {
        static HASHER: OnceLock<RandomState> = OnceLock::new();
        if !key.secret {
            return Self { key, allowed, value, fingerprint: None, origin };
        }
        let fingerprint = value.as_ref().map(|value| HASHER.get_or_init(RandomState::new).hash_one(value));
        Self { key, allowed, value: value.map(|_| MASK.into()), fingerprint, origin }
    }

    /// The key by which the setting was looked up.
    pub const fn key(&self) -> SettingKey {
        self.key
    }

    /// The allowed values in words.
    pub fn allowed(&self) -> &str {
        &self.allowed
    }

    /// The value as TOML; `None` if the setting has none. The value of a secret is masked.
    pub fn value(&self) -> Option<&str> {
        self.value.as_deref()
    }

    /// The layer that the value comes from.
    pub const fn origin(&self) -> &Origin {
        &self.origin
    }

    fn differs_from(&self, old: &Self) -> bool {
        let is_given = self.origin != Origin::Default || old.origin != Origin::Default;
        is_given && (&self.value, self.fingerprint) != (&old.value, old.fingerprint)
    }
}

/// Every setting with its value and origin.
#[derive(Clone, Debug)]
pub struct Resolved {
    settings: Vec<Setting>,
    warnings: Vec<String>,
}

impl Resolved {
    pub(super) fn new(settings: Vec<Setting>, warnings: Vec<String>) -> Self {
        Self { settings, warnings }
    }

    /// Every setting, in the order of the lookups.
    pub fn settings(&self) -> &[Setting] {
        &self.settings
    }

    /// What was ignored and should be told to the user.
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }

    /// Returns the value of a setting as TOML, masked if it is a secret. `None` if it has none, or was not looked up.
    pub fn value_of(&self, key: SettingKey) -> Option<&str> {
        self.settings.iter().find(|setting| setting.key.path == key.path)?.value()
    }

    /// Returns the origin of the value of a setting. `None` for a setting that was not looked up.
    pub fn origin(&self, key: SettingKey) -> Option<&Origin> {
        self.settings.iter().find(|setting| setting.key.path == key.path).map(|setting| &setting.origin)
    }

    /// Gives a setting the value and the origin that it has in `old`.
    pub fn keep_from(&mut self, old: &Self, key: SettingKey) {
        let kept = old.settings.iter().find(|setting| setting.key.path == key.path);
        let place = self.settings.iter_mut().find(|setting| setting.key.path == key.path);
        if let (Some(place), Some(kept)) = (place, kept) {
            place.clone_from(kept);
        }
    }

    /// The settings that have other values than in `old`, in the order of the lookups. Two defaults count as the same, which
    /// may depend on the machine or on other settings.
    pub fn changes_since<'s>(&'s self, old: &'s Self) -> impl Iterator<Item = SettingKey> + 's {
        let old_of =
            move |key: SettingKey| old.settings.iter().find(move |setting| setting.key.path == key.path);
        self.settings
            .iter()
            .filter(move |setting| old_of(setting.key).is_none_or(|old| setting.differs_from(old)))
            .map(Setting::key)
    }

    /// The configuration as a TOML file that would resolve to the same values, each with its origin in a comment, and
    /// whether it reloads.
    /// Secrets are masked; settings without a value are comments.
    pub fn to_toml(&self) -> String {
        let mut out = String::new();
        let mut tables: Vec<&str> = self.settings.iter().map(|setting| split(setting.key.path).0).collect();
        // Stable, so that tables keep the order of their first setting; the root has to come first.
        tables.sort_by_key(|table| !table.is_empty());
        let mut written = Vec::new();
        for table in tables {
            if written.contains(&table) {
                continue;
            }
            written.push(table);
            if !table.is_empty() {
                let gap = if out.is_empty() { "" } else { "\n" };
                push(&mut out, format_args!("{gap}[{table}]\n"));
            }
            for setting in &self.settings {
                let (of, name) = split(setting.key.path);
                let reloading = setting.key.reloading();
                let word = reloading.map_or_else(String::new, |reloading| format!("; {}", reloading.word()));
                match &setting.value {
                    _ if of != table => {}
                    Some(value) => {
                        push(&mut out, format_args!("{name} = {value}  # {}{word}\n", setting.origin));
                    }
                    None if reloading == Some(Reloading::Value) => {
                        push(&mut out, format_args!("# {name} is not set{word}\n"));
                    }
                    None => push(&mut out, format_args!("# {name} is not set\n")),
                }
            }
        }
        out
    }
}

/// Table and name of a dotted path; the root table is empty.
fn split(path: &str) -> (&str, &str) {
    path.rsplit_once('.').unwrap_or(("", path))
}

fn push(out: &mut String, line: std::fmt::Arguments<'_>) {
    out.write_fmt(line).expect("writing to a String cannot fail");
}
