//! The tree.

use super::text::shorten;

/// A value, and the line on which it starts.
#[derive(Clone, Debug)]
pub(crate) struct DocumentValue {
    pub(crate) line: u32,
    pub(crate) kind: ValueKind,
    /// The value is what an alias of YAML stands for.
    pub(crate) aliased: bool,
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
    /// A scalar of YAML with a tag such as `!!int`, in the short form, and its text.
    Tagged(String, String),
    /// An alias of YAML inside of what it stands for.
    Recursive,
    List(Vec<DocumentValue>),
    Map(Vec<ObjectMember>),
}

/// A name and its value, in the order of the file. A name may come more than once.
#[derive(Clone, Debug)]
pub(crate) struct ObjectMember {
    pub(crate) key: DocumentValue,
    pub(crate) value: DocumentValue,
    /// By what YAML takes two keys for the same one: their kind and what is written. Empty in JSON.
    pub(crate) identity: String,
}

impl ObjectMember {
    /// A member of JSON.
    pub(super) fn new(key: DocumentValue, value: DocumentValue) -> Self {
        Self { key, value, identity: String::new() }
    }

    /// The name as text, if it is a scalar.
    pub(crate) fn name(&self) -> &str {
        match &self.key.kind {
            ValueKind::Text(text) | ValueKind::Plain(text) => text,
            _ => "",
        }
    }

    /// Whether this is a merge key of YAML, which brings in the members of its value.
    pub(crate) fn is_merge(&self) -> bool {
        matches!(&self.key.kind, ValueKind::Plain(text) if text == "<<") && !self.key.aliased
    }
}

impl DocumentValue {
    pub(super) fn new(line: u32, kind: ValueKind) -> Self {
        Self { line, kind, aliased: false }
    }

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
            ValueKind::Tagged(tag, text) => format!("{} {}", shorten(tag), shorten(text)),
            ValueKind::Recursive => "an alias inside of what it stands for".into(),
            ValueKind::List(_) => "a list".into(),
            ValueKind::Map(_) => "a map".into(),
        }
    }
}
