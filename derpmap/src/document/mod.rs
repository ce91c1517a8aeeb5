//! A text as a tree of values, each with the line it stands on, before anyone asks what the values mean.
//!
//! JSON and YAML become the same tree. What YAML leaves open (is `900` a number, is `yes` a truth?) stays open here: only who
//! asks for a number or a truth decides, see [`crate::decode`].

mod json;
mod yaml;

use crate::MapFormat;

/// The largest file that is read, in bytes. The map of Tailscale's own relays, all of them, has about 50 KiB.
pub const MAX_BYTES: usize = 4 << 20;

/// The most values that a file may come to, once YAML's aliases are expanded: few bytes can make billions.
const MAX_VALUES: usize = 200_000;

/// The deepest nesting. A DERP map has six levels; the rest is room for a policy file.
const MAX_DEPTH: usize = 100;

/// Why a text is no document at all.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// More than [`MAX_BYTES`].
    #[error("is larger than {} MiB, which no DERP map is", MAX_BYTES >> 20)]
    TooLarge,
    /// Nothing, or nothing but white space and comments.
    #[error("is empty")]
    Empty,
    /// Bytes that are not text.
    #[error("line {line}: is not UTF-8")]
    NotText {
        /// The line, from 1.
        line: u32,
    },
    /// Text that is neither JSON nor YAML.
    #[error("line {line}: not {language}: {reason}")]
    Syntax {
        /// The line, from 1.
        line: u32,
        /// What it was read as.
        language: &'static str,
        /// What the parser says.
        reason: String,
    },
    /// Nested deeper than any map.
    #[error("line {line}: is nested more than {MAX_DEPTH} levels deep")]
    TooDeep {
        /// The line, from 1.
        line: u32,
    },
    /// More values than any map has.
    #[error("line {line}: comes to more than {MAX_VALUES} values, aliases expanded")]
    TooMany {
        /// The line, from 1.
        line: u32,
    },
}

/// A value, and the line on which it starts.
#[derive(Clone, Debug)]
pub(crate) struct DocumentValue {
    pub(crate) line: u32,
    pub(crate) kind: ValueKind,
}

#[derive(Clone, Debug)]
pub(crate) enum ValueKind {
    Null,
    Bool(bool),
    /// A number of JSON, as it is written.
    Number(String),
    /// A text that can be nothing else.
    Text(String),
    /// A scalar of YAML without quotes: whatever the reader makes of it.
    Plain(String),
    List(Vec<DocumentValue>),
    Map(Vec<ObjectMember>),
}

/// A name and its value, in the order of the file. A name may come more than once.
#[derive(Clone, Debug)]
pub(crate) struct ObjectMember {
    pub(crate) key: DocumentValue,
    pub(crate) value: DocumentValue,
}

impl ObjectMember {
    /// The name as text, if it is a scalar.
    pub(crate) fn name(&self) -> &str {
        match &self.key.kind {
            ValueKind::Text(text) | ValueKind::Plain(text) => text,
            _ => "",
        }
    }
}

impl DocumentValue {
    pub(crate) fn members(&self) -> &[ObjectMember] {
        match &self.kind {
            ValueKind::Map(members) => members,
            _ => &[],
        }
    }

    /// The member with this name in any case, the last one if there are several, as Go's JSON has it.
    pub(crate) fn member(&self, name: &str) -> Option<&ObjectMember> {
        self.members().iter().rev().find(|member| member.name().eq_ignore_ascii_case(name))
    }

    /// What to call the value in a message, short.
    pub(crate) fn describe(&self) -> String {
        match &self.kind {
            ValueKind::Null => "null".into(),
            ValueKind::Bool(truth) => truth.to_string(),
            ValueKind::Number(text) | ValueKind::Plain(text) => shorten(text),
            ValueKind::Text(text) => format!("{:?}", shorten(text)),
            ValueKind::List(_) => "a list".into(),
            ValueKind::Map(_) => "a map".into(),
        }
    }
}

/// The text, or its beginning.
pub(crate) fn shorten(text: &str) -> String {
    const LONGEST: usize = 80;
    match text.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

/// The text with control characters spelt out: nothing in a file shall end a line of a report, or tell a terminal what to do.
pub(crate) fn printable(text: impl Into<String>) -> String {
    let text = text.into();
    if !text.contains(char::is_control) {
        return text;
    }
    let mut spelt = String::with_capacity(text.len());
    for c in text.chars() {
        match c.is_control() {
            true => spelt.extend(c.escape_default()),
            false => spelt.push(c),
        }
    }
    spelt
}

/// A text, and for whom it is.
#[derive(Debug)]
pub(crate) struct Document {
    pub(crate) format: MapFormat,
    pub(crate) root: DocumentValue,
    /// The line of a second YAML document in the same file, which nobody reads.
    pub(crate) second: Option<u32>,
    /// Where JSON proper ends to be, if it does: a comment, a trailing comma. Always `None` for YAML.
    pub(crate) not_strict: Option<(u32, String)>,
}

impl Document {
    /// Reads the bytes of a file called `name`, for `format` or, without one, for whom they look to be.
    pub(crate) fn read(name: &str, bytes: &[u8], format: Option<MapFormat>) -> Result<Self, ReadError> {
        if bytes.len() > MAX_BYTES {
            return Err(ReadError::TooLarge);
        }
        let text = std::str::from_utf8(bytes)
            .map_err(|error| ReadError::NotText { line: line_at(bytes, error.valid_up_to()) })?;
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        match format {
            Some(MapFormat::Headscale) => Self::yaml(text),
            Some(format) => Self::json(text, Some(format)),
            None if has_extension(name, &["yaml", "yml"]) => Self::yaml(text),
            None if json::looks_like(text) || has_extension(name, &["json", "hujson"]) => {
                Self::json(text, None)
            }
            None => Self::yaml(text),
        }
    }

    fn yaml(text: &str) -> Result<Self, ReadError> {
        let (root, second) = yaml::parse(text)?;
        Ok(Self { format: MapFormat::Headscale, root, second, not_strict: None })
    }

    fn json(text: &str, format: Option<MapFormat>) -> Result<Self, ReadError> {
        let root = json::parse(text)?;
        let format = format.unwrap_or_else(|| match root.member("derpMap") {
            Some(_) => MapFormat::TailscalePolicy,
            None => MapFormat::Json,
        });
        let not_strict = if format == MapFormat::Json { json::not_strict(text) } else { None };
        Ok(Self { format, root, second: None, not_strict })
    }
}

fn has_extension(name: &str, extensions: &[&str]) -> bool {
    name.rsplit_once('.')
        .is_some_and(|(_, extension)| extensions.iter().any(|known| extension.eq_ignore_ascii_case(known)))
}

/// The line, from 1, of a position in bytes.
fn line_at(bytes: &[u8], position: usize) -> u32 {
    let ends = bytes[..position.min(bytes.len())].iter().filter(|byte| **byte == b'\n').count();
    number(ends + 1)
}

/// A line number; a file has fewer lines than bytes, and fewer bytes than fit.
fn number(line: usize) -> u32 {
    u32::try_from(line).unwrap_or(u32::MAX)
}
