//! The tree of the first document, from its tokens. Aliases are resolved; merge keys (`<<`) are left to the decoder, which
//! alone knows whether it comes to them.

use std::collections::HashMap;

use super::cursor::{line, syntax};
use super::reader::YamlText;
use super::scanner::Scanner;
use super::token::{TokenKind, YamlMark, YamlStyle, YamlToken};
use crate::document::error::{MAX_DEPTH, MAX_VALUES, ReadError};
use crate::document::text::push_lossy;
use crate::document::value::{DocumentValue, ObjectMember, ValueKind};

/// The first document of a file.
pub(in crate::document) struct YamlDocument {
    /// Nothing, if there is nothing but comments.
    pub(in crate::document) root: Option<DocumentValue>,
    /// The line on which more begins than the reader takes.
    pub(in crate::document) rest: Option<u32>,
}

/// Bytes of a text that count as a value where the text is copied. A text as long as a file can be would otherwise be
/// copied as often as a file has room for aliases.
const TEXT_AS_VALUE: usize = 64;

/// The prefix of YAML's own tags, which `!!` stands for.
const OWN_TAGS: &str = "tag:yaml.org,2002:";

/// What `&name` marks.
enum Anchored {
    /// A collection that has not ended, by the number of its beginning.
    Open(usize),
    /// A value, and what a copy of it counts.
    Whole(DocumentValue, usize),
}

/// What stands in front of a node.
#[derive(Default)]
pub(super) struct Properties {
    anchor: Option<String>,
    tag: Option<String>,
}

pub(super) struct Composer {
    scanner: Scanner,
    tag_prefixes: Vec<(Vec<u8>, Vec<u8>)>,
    anchors: HashMap<String, Anchored>,
    /// Collections that have begun.
    begun: usize,
    depth: usize,
    /// Values in the tree and in the copies of `anchors`.
    values: usize,
    /// The text of the last scalar, as it is written.
    written: String,
}

impl Composer {
    pub(super) fn new(text: YamlText) -> Self {
        Self {
            scanner: Scanner::new(text),
            tag_prefixes: Vec::new(),
            anchors: HashMap::new(),
            begun: 0,
            depth: 0,
            values: 0,
            written: String::new(),
        }
    }

    pub(super) fn document(mut self) -> Result<YamlDocument, ReadError> {
        self.next()?;
        let root = match self.peek()? {
            TokenKind::StreamEnd => return Ok(YamlDocument { root: None, rest: None }),
            TokenKind::Version(..) | TokenKind::TagPrefix(..) | TokenKind::DocumentStart => {
                self.directives()?;
                if *self.peek()? != TokenKind::DocumentStart {
                    return Err(self.error("did not find expected <document start>"));
                }
                let start = self.next()?.start;
                match self.peek()? {
                    TokenKind::Version(..)
                    | TokenKind::TagPrefix(..)
                    | TokenKind::DocumentStart
                    | TokenKind::DocumentEnd
                    | TokenKind::StreamEnd => self.empty(start)?,
                    _ => self.node(true, false)?,
                }
            }
            _ => {
                self.default_tag_prefixes();
                self.node(true, false)?
            }
        };
        if *self.peek()? == TokenKind::DocumentEnd {
            self.next()?;
        }
        Ok(YamlDocument { root: Some(root), rest: self.rest() })
    }

    /// The line of what follows the document.
    fn rest(&mut self) -> Option<u32> {
        loop {
            match self.scanner.peek() {
                Ok(token) => match token.kind {
                    TokenKind::DocumentEnd => self.scanner.take(),
                    TokenKind::StreamEnd => return None,
                    _ => return Some(line(token.start)),
                },
                // What is wrong there is not read.
                Err(error) => return Some(error.line().unwrap_or(1)),
            };
        }
    }

    /// The place of the next token.
    pub(super) fn here(&mut self) -> Result<YamlMark, ReadError> {
        Ok(self.scanner.peek()?.start)
    }

    pub(super) fn peek(&mut self) -> Result<&TokenKind, ReadError> {
        Ok(&self.scanner.peek()?.kind)
    }

    pub(super) fn next(&mut self) -> Result<YamlToken, ReadError> {
        self.scanner.peek()?;
        let end = YamlToken { kind: TokenKind::StreamEnd, start: YamlMark::default() };
        Ok(self.scanner.take().unwrap_or(end))
    }

    /// Takes the next token if it is this one.
    pub(super) fn skip(&mut self, kind: &TokenKind) -> Result<bool, ReadError> {
        let is_it = self.peek()? == kind;
        if is_it {
            self.next()?;
        }
        Ok(is_it)
    }

    /// An error at the next token, which is there.
    pub(super) fn error(&mut self, reason: &str) -> ReadError {
        match self.scanner.peek() {
            Ok(token) => syntax(token.start, reason),
            Err(error) => error,
        }
    }

    fn directives(&mut self) -> Result<(), ReadError> {
        let mut has_version = false;
        loop {
            match self.peek()?.clone() {
                TokenKind::Version(..) if has_version => {
                    return Err(self.error("found duplicate %YAML directive"));
                }
                TokenKind::Version(1, 1) => has_version = true,
                TokenKind::Version(..) => {
                    return Err(
                        self.error("found incompatible YAML document; Headscale reads %YAML 1.1 only")
                    );
                }
                TokenKind::TagPrefix(handle, prefix) => {
                    if self.tag_prefixes.iter().any(|(known, _)| *known == handle) {
                        return Err(self.error("found duplicate %TAG directive"));
                    }
                    self.tag_prefixes.push((handle, prefix));
                }
                _ => break,
            }
            self.next()?;
        }
        self.default_tag_prefixes();
        Ok(())
    }

    fn default_tag_prefixes(&mut self) {
        for (handle, prefix) in [("!", "!"), ("!!", OWN_TAGS)] {
            if self.tag_prefixes.iter().all(|(known, _)| known != handle.as_bytes()) {
                self.tag_prefixes.push((handle.into(), prefix.into()));
            }
        }
    }

    /// A value; in a block, or in flow. An indentless sequence is one whose dashes are no deeper than its key.
    pub(super) fn node(&mut self, is_block: bool, indentless: bool) -> Result<DocumentValue, ReadError> {
        let start = self.here()?;
        if let TokenKind::Alias(name) = self.peek()? {
            let name = text(&name.clone());
            self.next()?;
            return self.alias(&name, start);
        }
        let properties = self.properties()?;
        match self.peek()?.clone() {
            TokenKind::BlockEntry if indentless => {
                self.collection(start, properties, |composer| composer.sequence(false))
            }
            TokenKind::Scalar(scalar, style) => {
                self.next()?;
                self.written = text(&scalar);
                let kind = scalar_kind(self.written.clone(), style, properties.tag.as_deref());
                self.put(start, kind, properties.anchor, None)
            }
            TokenKind::FlowSequenceStart => {
                self.next()?;
                self.collection(start, properties, Self::flow_sequence)
            }
            TokenKind::FlowMappingStart => {
                self.next()?;
                self.collection(start, properties, Self::flow_mapping)
            }
            TokenKind::BlockSequenceStart if is_block => {
                self.next()?;
                self.collection(start, properties, |composer| composer.sequence(true))
            }
            TokenKind::BlockMappingStart if is_block => {
                self.next()?;
                self.collection(start, properties, Self::block_mapping)
            }
            _ if properties.anchor.is_some() || properties.tag.is_some() => {
                self.written.clear();
                let kind = scalar_kind(String::new(), YamlStyle::Plain, properties.tag.as_deref());
                self.put(start, kind, properties.anchor, None)
            }
            _ => Err(self.error("did not find expected node content")),
        }
    }

    fn properties(&mut self) -> Result<Properties, ReadError> {
        let mut properties = Properties::default();
        let mut tag = None;
        for _ in 0..2 {
            match self.peek()?.clone() {
                TokenKind::Anchor(name) if properties.anchor.is_none() => {
                    properties.anchor = Some(text(&name));
                }
                TokenKind::Tag(handle, suffix) if tag.is_none() => tag = Some((handle, suffix)),
                _ => break,
            }
            self.next()?;
        }
        let Some((handle, suffix)) = tag else { return Ok(properties) };
        let prefix = match handle.is_empty() {
            true => Some(Vec::new()),
            false => {
                self.tag_prefixes.iter().find(|(known, _)| *known == handle).map(|(_, prefix)| prefix.clone())
            }
        };
        let Some(prefix) = prefix else { return Err(self.error("found undefined tag handle")) };
        let tag = text(&[prefix, suffix].concat());
        properties.tag = Some(match tag.strip_prefix(OWN_TAGS) {
            Some(own) => format!("!!{own}"),
            None => tag,
        });
        Ok(properties)
    }

    fn alias(&mut self, name: &str, start: YamlMark) -> Result<DocumentValue, ReadError> {
        let (value, count) = match self.anchors.get(name) {
            Some(Anchored::Whole(value, count)) => (value.clone(), *count),
            Some(Anchored::Open(_)) => (DocumentValue::new(line(start), ValueKind::Recursive), 1),
            None => return Err(syntax(start, &format!("unknown anchor '{name}' referenced"))),
        };
        self.count(count + 1, line(start))?;
        Ok(DocumentValue { aliased: true, ..value })
    }

    pub(super) fn empty(&mut self, start: YamlMark) -> Result<DocumentValue, ReadError> {
        self.written.clear();
        self.put(start, ValueKind::Null, None, None)
    }

    fn count(&mut self, values: usize, line: u32) -> Result<(), ReadError> {
        self.values += values;
        if self.values > MAX_VALUES { Err(ReadError::TooMany { line }) } else { Ok(()) }
    }

    pub(super) fn collection(
        &mut self,
        start: YamlMark,
        properties: Properties,
        content: fn(&mut Self) -> Result<ValueKind, ReadError>,
    ) -> Result<DocumentValue, ReadError> {
        if self.depth >= MAX_DEPTH {
            return Err(ReadError::TooDeep { line: line(start) });
        }
        self.depth += 1;
        self.begun += 1;
        let begun = self.begun;
        if let Some(name) = &properties.anchor {
            self.anchors.insert(name.clone(), Anchored::Open(begun));
        }
        let kind = content(self)?;
        self.depth -= 1;
        self.put(start, kind, properties.anchor, Some(begun))
    }

    /// Makes a value, which counts, and a copy of it for its anchor, which counts as an alias does: anchors around anchors
    /// would otherwise copy the innermost at each level. `begun` is the number of a collection, whose anchor may have been
    /// given to another value inside of it.
    fn put(
        &mut self,
        start: YamlMark,
        kind: ValueKind,
        anchor: Option<String>,
        begun: Option<usize>,
    ) -> Result<DocumentValue, ReadError> {
        let value = DocumentValue::new(line(start), kind);
        self.count(1, value.line)?;
        let Some(name) = anchor else { return Ok(value) };
        let is_taken = begun.is_some_and(
            |begun| !matches!(self.anchors.get(&name), Some(Anchored::Open(open)) if *open == begun),
        );
        if !is_taken {
            let count = count(&value);
            self.count(count, value.line)?;
            self.anchors.insert(name, Anchored::Whole(value.clone(), count));
        }
        Ok(value)
    }

    /// The elements of a sequence in a block; one that is indented has an end of its own.
    fn sequence(&mut self, is_indented: bool) -> Result<ValueKind, ReadError> {
        let mut values = Vec::new();
        loop {
            let entry = self.here()?;
            if !self.skip(&TokenKind::BlockEntry)? {
                if is_indented && !self.skip(&TokenKind::BlockEnd)? {
                    return Err(self.error("did not find expected '-' indicator"));
                }
                return Ok(ValueKind::List(values));
            }
            let is_empty = match self.peek()? {
                TokenKind::BlockEntry | TokenKind::BlockEnd => true,
                TokenKind::Key | TokenKind::Value => !is_indented,
                _ => false,
            };
            values.push(if is_empty { self.empty(entry)? } else { self.node(true, false)? });
        }
    }

    fn block_mapping(&mut self) -> Result<ValueKind, ReadError> {
        let mut members = Vec::new();
        loop {
            if self.skip(&TokenKind::BlockEnd)? {
                return Ok(ValueKind::Map(members));
            }
            if *self.peek()? != TokenKind::Key {
                return Err(self.error("did not find expected key"));
            }
            let (key, identity) = self.block_part()?;
            let here = self.here()?;
            let value = match self.peek()? {
                TokenKind::Value => self.block_part()?.0,
                _ => self.empty(here)?,
            };
            members.push(ObjectMember { key, value, identity });
        }
    }

    /// What follows the indicator of a key or of a value, and its identity.
    fn block_part(&mut self) -> Result<(DocumentValue, String), ReadError> {
        let indicator = self.next()?.start;
        match self.peek()? {
            TokenKind::Key | TokenKind::Value | TokenKind::BlockEnd => {
                Ok((self.empty(indicator)?, scalar_identity("")))
            }
            _ => self.identified(true, true),
        }
    }

    /// A node, and by what it is told from other keys.
    pub(super) fn identified(
        &mut self,
        is_block: bool,
        indentless: bool,
    ) -> Result<(DocumentValue, String), ReadError> {
        let alias = match self.peek()? {
            TokenKind::Alias(name) => Some(format!("*{}", text(name))),
            _ => None,
        };
        let value = self.node(is_block, indentless)?;
        let identity = alias.unwrap_or_else(|| match &value.kind {
            ValueKind::Map(_) => "{".to_owned(),
            ValueKind::List(_) => "[".to_owned(),
            _ => scalar_identity(&self.written),
        });
        Ok((value, identity))
    }
}

fn text(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    push_lossy(&mut text, bytes);
    text
}

pub(super) fn scalar_identity(text: &str) -> String {
    format!("={text}")
}

fn scalar_kind(text: String, style: YamlStyle, tag: Option<&str>) -> ValueKind {
    match (tag, style, &*text) {
        (None | Some("" | "!"), YamlStyle::Plain, text) | (Some("!!null"), _, text)
            if matches!(text, "" | "~" | "null" | "Null" | "NULL") =>
        {
            ValueKind::Null
        }
        (None | Some("" | "!"), YamlStyle::Plain, _) | (Some("!!merge"), _, "<<") => ValueKind::Plain(text),
        (None | Some("" | "!" | "!!str"), _, _) => ValueKind::Text(text),
        (Some(tag), _, _) => ValueKind::Tagged(tag.to_owned(), text),
    }
}

/// What a copy of `value` counts: its values, and one more for every [`TEXT_AS_VALUE`] bytes of a text.
fn count(value: &DocumentValue) -> usize {
    1 + match &value.kind {
        ValueKind::List(values) => values.iter().map(count).sum(),
        ValueKind::Map(members) => {
            members.iter().map(|member| count(&member.key) + count(&member.value)).sum()
        }
        ValueKind::Text(text)
        | ValueKind::Plain(text)
        | ValueKind::Number(text)
        | ValueKind::Tagged(_, text) => text.len() / TEXT_AS_VALUE,
        ValueKind::Null | ValueKind::Bool(_) | ValueKind::Recursive => 0,
    }
}
