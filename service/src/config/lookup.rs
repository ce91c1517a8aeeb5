//! Looking up settings: one value through all layers, and at the end the keys that were not looked up.

use std::fmt::Debug;
use std::ops::{Range, RangeInclusive};

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::key::SettingKey;
use super::problem::{Origin, Problem, Problems, closest};
use super::resolved::{Resolved, Setting};
use super::sources::{ConfigFile, Sources};
use super::value::Value;
use crate::visible::Visible;

/// Longest piece of a value that a message repeats, in characters.
const FOUND_LEN: usize = 60;

/// What stands in a message for the value of a secret.
const NOT_SHOWN: &str = "a value that is not shown";

/// How private keys begin in text. A value that contains this is never repeated, whichever key it was given for: the
/// likeliest way to leak a secret is to give it under a wrong name.
const SECRET_MARK: &str = "privkey:";

/// Whether a text, in quotes or not, is what a mesh key looks like: 64 hexadecimal digits and nothing else but white space.
fn looks_like_mesh_key(text: &str) -> bool {
    let digits = text.trim().trim_matches(['"', '\'']).trim();
    digits.len() == 64 && digits.bytes().all(|digit| digit.is_ascii_hexdigit())
}

/// Reads settings out of [`Sources`] and collects their errors.
#[derive(Debug)]
pub struct ConfigReader<'a> {
    sources: &'a Sources,
    table: DeTable<'a>,
    /// The file could not be read as a whole, so that nothing follows from a setting that seems to be missing.
    broken: bool,
    known: Vec<SettingKey>,
    known_variables: Vec<String>,
    settings: Vec<Setting>,
    problems: Vec<Problem>,
    warnings: Vec<String>,
}

impl<'a> ConfigReader<'a> {
    /// Parses the file, if there is one.
    pub fn new(sources: &'a Sources) -> Self {
        let mut reader = Self {
            sources,
            table: DeTable::new(),
            broken: sources.unreadable.is_some(),
            known: Vec::new(),
            known_variables: Vec::new(),
            settings: Vec::new(),
            problems: sources.unreadable.iter().cloned().collect(),
            warnings: Vec::new(),
        };
        if let Some(file) = &sources.file {
            let (table, errors) = DeTable::parse_recoverable(&file.text);
            if errors.is_empty() {
                reader.table = table.into_inner();
            }
            reader.broken |= !errors.is_empty();
            reader.problems.extend(errors.iter().map(|error| Problem::Syntax {
                origin: file.origin(error.span().unwrap_or_default()),
                reason: error.message().replace('\n', ", "),
            }));
        }
        reader
    }

    /// Begins the lookup of one setting. Each key is looked up once.
    pub fn key<V: Value>(&mut self, key: SettingKey) -> Lookup<'_, 'a, V> {
        Lookup { reader: self, key, allowed: V::allowed(), rule: Box::new(|_| true) }
    }

    /// Accepts a variable that is no setting, such as the one that names the file. Its name includes the prefix.
    pub fn accept_variable(&mut self, name: &str) {
        self.known_variables.push(name.into());
    }

    /// Returns the last layer that gives the setting; `None` if no layer does.
    pub fn given(&self, key: SettingKey) -> Option<Origin> {
        if let Some(flag) = key.flag.filter(|_| self.sources.flags.contains_key(key.path)) {
            return Some(Origin::Flag(flag));
        }
        let variable = key.variable(self.sources.prefix);
        if self.sources.variables.contains_key(&variable) {
            return Some(Origin::Variable(variable));
        }
        let (file, value) = self.in_file(key)?;
        Some(file.origin(value.span()))
    }

    /// Returns the value that the last layer with an acceptable one gives; `None` if no layer does. For the default of a setting
    /// that depends on one whose lookup comes later; that lookup notes what is wrong.
    pub fn foresee<V: Value>(&self, key: SettingKey) -> Option<V> {
        let in_file = self.in_file(key).and_then(|(_, value)| V::from_toml(value).ok());
        let in_texts = self.texts(key).filter_map(|(text, _)| V::from_text(text?));
        in_texts.last().or(in_file)
    }

    /// Notes that a setting does not go together with another one. `reason` names the other.
    pub fn conflict(&mut self, key: SettingKey, reason: impl Into<String>) {
        let origin = self.given(key).unwrap_or(Origin::Default);
        self.problems.push(Problem::Conflict { origin, key: key.path.into(), reason: reason.into() });
    }

    /// Notes something that the operator should be told of, and that is no problem.
    pub fn warn(&mut self, warning: impl Into<String>) {
        self.warnings.push(warning.into());
    }

    /// Whether no problem has been noted for a setting so far, so that what depends on its value can be looked at.
    pub fn is_sound(&self, key: SettingKey) -> bool {
        !self.broken && self.problems.iter().all(|problem| problem.key() != Some(key.path))
    }

    /// Notes that a setting without a default is missing.
    pub fn missing(&mut self, key: SettingKey, allowed: impl Into<String>) {
        if !self.broken {
            let ways = key.ways(self.sources.prefix);
            self.problems.push(Problem::Missing { key: key.path.into(), ways, allowed: allowed.into() });
        }
    }

    /// Ends the reading: what is left over in the file is unknown; any problem is an error.
    pub fn finish(mut self) -> Result<Resolved, Problems> {
        let table = std::mem::take(&mut self.table);
        if let Some(file) = &self.sources.file {
            self.unknown_keys(file, "", &table);
        }
        let mut warnings = std::mem::take(&mut self.warnings);
        warnings.extend(self.unknown_variables());
        if self.problems.is_empty() {
            Ok(Resolved::new(self.settings, warnings))
        } else {
            Err(Problems::new(self.problems, warnings))
        }
    }

    /// Ends the reading of some settings only: what was not looked up belongs to others, and may be anything.
    pub fn finish_part(self) -> Result<Resolved, Problems> {
        if self.problems.is_empty() {
            Ok(Resolved::new(self.settings, self.warnings))
        } else {
            Err(Problems::new(self.problems, self.warnings))
        }
    }

    fn in_file(&self, key: SettingKey) -> Option<(&'a ConfigFile, &Spanned<DeValue<'a>>)> {
        let file = self.sources.file.as_ref()?;
        let (tables, name) = key.path.rsplit_once('.').unwrap_or(("", key.path));
        let mut table = &self.table;
        for segment in tables.split('.').filter(|segment| !segment.is_empty()) {
            table = table.get(segment)?.get_ref().as_table()?;
        }
        Some((file, table.get(name)?))
    }

    /// Reports each key of `table` that is no setting and leads to none.
    fn unknown_keys(&mut self, file: &ConfigFile, prefix: &str, table: &DeTable<'_>) {
        for (name, value) in table {
            let path = format!("{prefix}{}", bare_or_quoted(name.get_ref()));
            if self.known.iter().any(|key| key.path == path) {
                continue;
            }
            let inner = format!("{path}.");
            let is_table = self.known.iter().any(|key| key.path.starts_with(&inner));
            match value.get_ref() {
                DeValue::Table(table) if is_table => self.unknown_keys(file, &inner, table),
                _ if is_table => self.problems.push(Problem::Rejected {
                    origin: file.origin(value.span()),
                    key: path,
                    found: shown(&file.text[value.span()]),
                    allowed: format!("a table with {}", self.names_in(&inner)),
                }),
                _ => self.problems.push(Problem::Unknown {
                    origin: file.origin(name.span()),
                    hint: self.hint(&path, prefix),
                    key: shown(&path),
                }),
            }
        }
    }

    fn hint(&self, path: &str, prefix: &str) -> String {
        let keys = self.known.iter().map(|key| key.path);
        let tables = keys.clone().filter_map(|path| path.rsplit_once('.')).map(|(table, _)| table);
        match closest(path, keys.chain(tables)) {
            Some(key) => format!("did you mean {key}?"),
            None => format!("allowed here: {}", self.names_in(prefix)),
        }
    }

    /// What may stand directly in the table with this prefix: keys, then tables, in the order of their lookup.
    fn names_in(&self, prefix: &str) -> String {
        let mut names: Vec<String> = Vec::new();
        for rest in self.known.iter().filter_map(|key| key.path.strip_prefix(prefix)) {
            let name =
                rest.split_once('.').map_or_else(|| rest.to_owned(), |(table, _)| format!("[{table}]"));
            if !names.contains(&name) {
                names.push(name);
            }
        }
        names.join(", ")
    }

    /// Variables that begin with the prefix and are no setting. Kubernetes puts such variables into every container
    /// (for a Service named `towpath`: `TOWPATH_SERVICE_HOST` and more), so they cannot be errors.
    fn unknown_variables(&self) -> Vec<String> {
        let mut known: Vec<_> = self.known.iter().map(|key| key.variable(self.sources.prefix)).collect();
        known.extend(self.known_variables.iter().cloned());
        let unknown = self.sources.variables.keys().filter(|name| !known.contains(name));
        unknown
            .map(|name| {
                let near = closest(name, known.iter().map(String::as_str));
                let hint = near.map_or_else(String::new, |near| format!("; did you mean {near}?"));
                format!("{} is not a setting and is ignored{hint}", shown(name))
            })
            .collect()
    }

    /// The value of the highest layer that gives an acceptable one. Notes what is wrong in any layer.
    fn look_up<V: Value>(
        &mut self,
        key: SettingKey,
        allowed: &str,
        rule: &dyn Fn(&V) -> bool,
    ) -> Option<(V, Origin)> {
        debug_assert!(self.known.iter().all(|known| known.path != key.path), "{} looked up twice", key.path);
        self.known.push(key);
        let mut best = None;
        let mut rejected = Vec::new();
        if let Some((file, value)) = self.in_file(key) {
            match V::from_toml(value) {
                Ok(read) if rule(&read) => best = Some((read, file.origin(value.span()))),
                Ok(_) => rejected.push((file.origin(value.span()), &file.text[value.span()])),
                Err(spans) => {
                    rejected
                        .extend(spans.into_iter().map(|span| (file.origin(span.clone()), &file.text[span])));
                }
            }
        }
        for (text, origin) in self.texts(key) {
            match text.and_then(V::from_text).filter(rule) {
                Some(read) => best = Some((read, origin)),
                None => rejected.push((origin, text.unwrap_or("bytes that are not UTF-8"))),
            }
        }
        self.problems.extend(rejected.into_iter().map(|(origin, found)| Problem::Rejected {
            origin,
            key: key.path.into(),
            found: if key.secret && !found.is_empty() { NOT_SHOWN.into() } else { shown(found) },
            allowed: allowed.into(),
        }));
        best
    }

    /// What the environment and the command line give, in this order. `None` in place of text that is not UTF-8.
    fn texts(&self, key: SettingKey) -> impl Iterator<Item = (Option<&'a str>, Origin)> + use<'a> {
        let variable = key.variable(self.sources.prefix);
        let from_variable = self.sources.variables.get(&variable).map(|text| text.to_str());
        let from_flag = self.sources.flags.get(key.path).map(|text| Some(text.as_str()));
        let variable = from_variable.map(|text| (text, Origin::Variable(variable)));
        variable.into_iter().chain(from_flag.zip(key.flag.map(Origin::Flag)))
    }
}

/// One setting being looked up; ended by [`or`](Self::or), [`optional`](Self::optional) or
/// [`required`](Self::required).
#[must_use = "a setting that is not looked up is an unknown key"]
pub struct Lookup<'r, 'a, V> {
    reader: &'r mut ConfigReader<'a>,
    key: SettingKey,
    allowed: String,
    rule: Box<dyn Fn(&V) -> bool>,
}

impl<V: Value> Lookup<'_, '_, V> {
    /// Accepts only values that `rule` holds for, which `allowed` describes.
    pub fn matching(mut self, allowed: impl Into<String>, rule: impl Fn(&V) -> bool + 'static) -> Self {
        self.allowed = allowed.into();
        self.rule = Box::new(rule);
        self
    }

    /// Accepts only values that `rule` holds for as well. `allowed` describes all that is accepted.
    pub fn also(mut self, allowed: impl Into<String>, rule: impl Fn(&V) -> bool + 'static) -> Self {
        let before = std::mem::replace(&mut self.rule, Box::new(|_| true));
        self.matching(allowed, move |value| before(value) && rule(value))
    }

    /// Accepts only values in this range.
    pub fn within(self, range: RangeInclusive<V>) -> Self
    where
        V: PartialOrd,
    {
        let allowed = format!("{} to {}", range.start().to_toml(), range.end().to_toml());
        self.matching(allowed, move |value| range.contains(value))
    }

    /// The value, or `default` if it is not given.
    pub fn or(self, default: V) -> V {
        debug_assert!((self.rule)(&default), "the default of {} breaks its own rule", self.key.path);
        let found = self.reader.look_up(self.key, &self.allowed, &*self.rule);
        let (value, origin) = found.unwrap_or((default, Origin::Default));
        self.reader.settings.push(Setting::new(self.key, self.allowed, Some(value.to_toml()), origin));
        value
    }

    /// The value, if it is given.
    pub fn optional(self) -> Option<V> {
        let found = self.reader.look_up(self.key, &self.allowed, &*self.rule);
        let (value, origin) = found.map_or((None, Origin::Default), |(value, origin)| (Some(value), origin));
        self.reader.settings.push(Setting::new(
            self.key,
            self.allowed,
            value.as_ref().map(V::to_toml),
            origin,
        ));
        value
    }

    /// The value. If it is not given, that is a problem, and what is returned in its place must not be used for
    /// anything but finding more problems: [`ConfigReader::finish`] fails.
    pub fn required(self) -> V
    where
        V: Default,
    {
        if self.reader.given(self.key).is_none() {
            self.reader.missing(self.key, &self.allowed);
        }
        self.optional().unwrap_or_default()
    }
}

impl<V> Debug for Lookup<'_, '_, V> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Lookup")
            .field("key", &self.key.path)
            .field("allowed", &self.allowed)
            .finish_non_exhaustive()
    }
}

impl ConfigFile {
    fn origin(&self, span: Range<usize>) -> Origin {
        let before = self.text.as_bytes().get(..span.start).unwrap_or_default();
        let line = 1 + before.iter().filter(|&&byte| byte == b'\n').count();
        Origin::File { name: self.name.clone(), line }
    }
}

/// The name as TOML would write it, so that a quoted key with a dot is not mistaken for a path.
fn bare_or_quoted(name: &str) -> String {
    let bare = !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_'));
    if bare { name.into() } else { super::value::quote(name) }
}

/// What a message repeats of the input, be it a value or a name: one line, of bounded length, never a secret.
fn shown(text: &str) -> String {
    if text.to_ascii_lowercase().contains(SECRET_MARK) {
        return "a private key".into();
    }
    if looks_like_mesh_key(text) {
        return "what looks like a mesh key".into();
    }
    if text.is_empty() {
        return "an empty value".into();
    }
    let end = text.char_indices().nth(FOUND_LEN).map_or(text.len(), |(end, _)| end);
    let rest = if end < text.len() { "…" } else { "" };
    // The spaces at an end are seen in quotes only.
    let quote = if text.trim() == text { "" } else { "\"" };
    format!("{quote}{}{rest}{quote}", Visible(&text[..end]))
}
