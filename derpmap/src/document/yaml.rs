//! YAML, from the parser's events. Aliases and merge keys (`<<`) are resolved, as Headscale's parser does it.

use std::collections::{HashMap, HashSet};

use saphyr_parser::{Event, Parser, ScalarStyle, Span, Tag};

use super::error::{MAX_DEPTH, MAX_VALUES, ReadError};
use super::text::number;
use super::value::{DocumentValue, ObjectMember, ValueKind};

/// Bytes of a text that count as a value where the text is copied. A text as long as a file can be would otherwise be
/// copied as often as a file has room for aliases.
const TEXT_AS_VALUE: usize = 64;

/// A collection that has begun and not ended.
struct Open {
    line: u32,
    anchor: usize,
    content: OpenContent,
}

enum OpenContent {
    List(Vec<DocumentValue>),
    /// The members so far, and the key of the next one.
    Map(Vec<ObjectMember>, Option<DocumentValue>),
}

#[derive(Default)]
struct Tree {
    open: Vec<Open>,
    /// What `&name` marked, by the parser's number for it, with the count of its values.
    anchors: HashMap<usize, (DocumentValue, usize)>,
    /// Values in the tree and in the copies of `anchors`.
    values: usize,
    root: Option<DocumentValue>,
    last_line: u32,
}

/// The last line that has something on it, from 1.
fn last_line(text: &str) -> u32 {
    let text = text.trim_end();
    let breaks = text.match_indices(['\n', '\r']).filter(|(at, _)| !text[*at..].starts_with("\r\n"));
    number(1 + breaks.count())
}

/// The first document of the text, and the line on which a second one starts.
pub(super) fn parse(text: &str) -> Result<(DocumentValue, Option<u32>), ReadError> {
    let mut tree = Tree { last_line: last_line(text), ..Tree::default() };
    let mut documents = 0;
    for event in Parser::new_from_str(text) {
        let (event, span) = event.map_err(|error| ReadError::Syntax {
            line: tree.line(error.marker().line()),
            language: "YAML",
            reason: super::printable(error.info()),
        })?;
        if matches!(event, Event::DocumentStart(_)) {
            documents += 1;
            if documents == 2 {
                let second = tree.line(span.start.line());
                return Ok((tree.root.ok_or(ReadError::Empty)?, Some(second)));
            }
        }
        tree.take(event, span)?;
    }
    match tree.root {
        Some(DocumentValue { kind: ValueKind::Null, .. }) | None => Err(ReadError::Empty),
        Some(root) => Ok((root, None)),
    }
}

impl Tree {
    /// The parser puts what is left out at the end of a text behind its last line.
    fn line(&self, line: usize) -> u32 {
        number(line).min(self.last_line)
    }

    fn take(&mut self, event: Event<'_>, span: Span) -> Result<(), ReadError> {
        let line = self.line(span.start.line());
        match event {
            Event::Scalar(text, style, anchor, tag) => {
                let kind = scalar(text.into_owned(), style, tag.as_deref());
                self.put(DocumentValue { line, kind }, anchor)?;
            }
            Event::SequenceStart(anchor, _) => self.begin(line, anchor, OpenContent::List(Vec::new()))?,
            Event::MappingStart(anchor, _) => self.begin(line, anchor, OpenContent::Map(Vec::new(), None))?,
            Event::SequenceEnd | Event::MappingEnd => {
                if let Some(Open { line, anchor, content }) = self.open.pop() {
                    let kind = match content {
                        OpenContent::List(values) => ValueKind::List(values),
                        OpenContent::Map(members, _) => ValueKind::Map(merged(members)),
                    };
                    self.put(DocumentValue { line, kind }, anchor)?;
                }
            }
            Event::Alias(anchor) => {
                // An alias inside of what it stands for has no end, and is not known yet.
                let (value, count) = self.anchors.get(&anchor).cloned().ok_or_else(|| ReadError::Syntax {
                    line,
                    language: "YAML",
                    reason: "an alias to what is not complete here".into(),
                })?;
                self.count(count, line)?;
                self.put(value, 0)?;
            }
            Event::Nothing
            | Event::StreamStart
            | Event::StreamEnd
            | Event::DocumentStart(_)
            | Event::DocumentEnd => {}
        }
        Ok(())
    }

    fn begin(&mut self, line: u32, anchor: usize, content: OpenContent) -> Result<(), ReadError> {
        if self.open.len() >= MAX_DEPTH {
            return Err(ReadError::TooDeep { line });
        }
        self.open.push(Open { line, anchor, content });
        Ok(())
    }

    fn count(&mut self, values: usize, line: u32) -> Result<(), ReadError> {
        self.values += values;
        if self.values > MAX_VALUES { Err(ReadError::TooMany { line }) } else { Ok(()) }
    }

    fn put(&mut self, value: DocumentValue, anchor: usize) -> Result<(), ReadError> {
        self.count(1, value.line)?;
        if anchor != 0 {
            // The copy counts as an alias does. Without that, anchors around anchors copy the innermost at each level.
            let count = count(&value);
            self.count(count, value.line)?;
            self.anchors.insert(anchor, (value.clone(), count));
        }
        match self.open.last_mut() {
            None => self.root = Some(value),
            Some(Open { content: OpenContent::List(values), .. }) => values.push(value),
            Some(Open { content: OpenContent::Map(members, key), .. }) => match key.take() {
                None => *key = Some(value),
                Some(key) => members.push(ObjectMember { key, value }),
            },
        }
        Ok(())
    }
}

fn scalar(text: String, style: ScalarStyle, tag: Option<&Tag>) -> ValueKind {
    let open = match tag {
        Some(tag) if tag.is_yaml_core_schema() => tag.suffix != "str",
        Some(_) => false,
        None => style == ScalarStyle::Plain,
    };
    match &*text {
        "" | "~" | "null" | "Null" | "NULL" if open => ValueKind::Null,
        _ if open => ValueKind::Plain(text),
        _ => ValueKind::Text(text),
    }
}

/// The members with those that `<<` brings in. What a map says itself goes first.
fn merged(members: Vec<ObjectMember>) -> Vec<ObjectMember> {
    let (merges, mut own): (Vec<_>, Vec<_>) = members
        .into_iter()
        .partition(|member| matches!(&member.key.kind, ValueKind::Plain(text) if text == "<<"));
    let mut known: HashSet<String> = match merges.is_empty() {
        true => return own,
        false => own.iter().map(|member| member.name().to_owned()).collect(),
    };
    for ObjectMember { value, .. } in merges {
        let sources = match value.kind {
            ValueKind::List(sources) => sources,
            kind => vec![DocumentValue { line: value.line, kind }],
        };
        for source in sources {
            let ValueKind::Map(members) = source.kind else { continue };
            for member in members {
                if known.insert(member.name().to_owned()) {
                    own.push(member);
                }
            }
        }
    }
    own
}

/// What a copy of `value` counts: its values, and one more for every [`TEXT_AS_VALUE`] bytes of a text.
fn count(value: &DocumentValue) -> usize {
    1 + match &value.kind {
        ValueKind::List(values) => values.iter().map(count).sum(),
        ValueKind::Map(members) => {
            members.iter().map(|member| count(&member.key) + count(&member.value)).sum()
        }
        ValueKind::Text(text) | ValueKind::Plain(text) | ValueKind::Number(text) => {
            text.len() / TEXT_AS_VALUE
        }
        ValueKind::Null | ValueKind::Bool(_) => 0,
    }
}
