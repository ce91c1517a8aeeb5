//! JSON with what HuJSON adds, comments and trailing commas: Tailscale's policy file has both.
//!
//! Everything that one of the readers takes is read here, and so is what all of them refuse but what has a meaning all
//! the same, such as a byte order mark. [`JsonFault`] says what the text has beyond RFC 8259, and [`crate::decode`]
//! which reader refuses it.

use super::error::{MAX_DEPTH, MAX_VALUES, ReadError};
use super::text::{Utf8Loss, number, push_lossy};
use super::value::{DocumentValue, ObjectMember, ValueKind};

/// The member of a policy file that holds the map.
const POLICY_MEMBER: &[u8] = b"\"derpMap\"";

const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// What a text has that is not JSON proper.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum JsonFaultKind {
    /// A byte order mark in front.
    ByteOrderMark,
    /// A control character inside of a string.
    ControlCharacter,
    /// A comment.
    Comment,
    /// A comma before the end of an object or a list.
    TrailingComma,
    /// A `//` comment on a last line that has no end.
    OpenComment,
    /// A comment that is not UTF-8.
    CommentText,
    /// A string that is not UTF-8.
    StringText,
}

/// The first place of a kind.
#[derive(Clone, Copy, Debug)]
pub(crate) struct JsonFault {
    pub(crate) line: u32,
    pub(crate) kind: JsonFaultKind,
}

/// A text that could be read.
pub(super) struct JsonText {
    pub(super) root: DocumentValue,
    pub(super) faults: Vec<JsonFault>,
}

/// Whether the text begins like a map in JSON: an object, or the member of a policy file on its own.
pub(super) fn looks_like(bytes: &[u8]) -> bool {
    let start = after_comments(bytes);
    start.starts_with(b"{") || is_member(start)
}

/// What `derpmap --format tailscale-policy` prints: no object, but a member to be pasted into one.
fn is_member(start: &[u8]) -> bool {
    start.get(..POLICY_MEMBER.len()).is_some_and(|start| start.eq_ignore_ascii_case(POLICY_MEMBER))
}

fn after_comments(bytes: &[u8]) -> &[u8] {
    let mut rest = bytes.strip_prefix(BYTE_ORDER_MARK).unwrap_or(bytes).trim_ascii_start();
    loop {
        let end = if rest.starts_with(b"//") {
            find(rest, b"\n")
        } else if rest.starts_with(b"/*") {
            find(&rest[2..], b"*/").map(|end| end + 4)
        } else {
            return rest;
        };
        rest = end.map_or(&[], |end| rest[end..].trim_ascii_start());
    }
}

fn find(bytes: &[u8], wanted: &[u8]) -> Option<usize> {
    bytes.windows(wanted.len()).position(|window| window == wanted)
}

/// Reads a text, which may be a member of a policy file alone if `takes_member` is set.
pub(super) fn parse(bytes: &[u8], takes_member: bool) -> Result<JsonText, ReadError> {
    let start = after_comments(bytes);
    if start.is_empty() {
        return Err(ReadError::Empty);
    }
    let is_member = takes_member && is_member(start);
    let ends = bytes.iter().enumerate().filter(|(_, byte)| **byte == b'\n').map(|(end, _)| end).collect();
    let mut parser = JsonParser { bytes, at: 0, ends, values: 0, faults: Vec::new() };
    if bytes.starts_with(BYTE_ORDER_MARK) {
        parser.fault(JsonFaultKind::ByteOrderMark);
        parser.at = BYTE_ORDER_MARK.len();
    }
    parser.space()?;
    let root = if is_member {
        let (line, members) = (parser.line(), parser.members(None, MAX_DEPTH - 1)?);
        // What is pasted into a file gets its line end there.
        parser.faults.retain(|fault| fault.kind != JsonFaultKind::OpenComment);
        DocumentValue::new(line, ValueKind::Map(members))
    } else {
        parser.value(MAX_DEPTH)?
    };
    parser.space()?;
    match parser.peek() {
        None => Ok(JsonText { root, faults: parser.faults }),
        Some(b':') if matches!(root.kind, ValueKind::Text(_)) => {
            Err(parser.error("a member without the object around it; write { before it and } behind it"))
        }
        Some(_) => Err(parser.error("text stands behind the end of the outermost value")),
    }
}

struct JsonParser<'t> {
    bytes: &'t [u8],
    at: usize,
    /// The positions of the line ends.
    ends: Vec<usize>,
    values: usize,
    faults: Vec<JsonFault>,
}

impl JsonParser<'_> {
    fn peek(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    fn line_of(&self, at: usize) -> u32 {
        number(self.ends.partition_point(|end| *end < at) + 1)
    }

    fn line(&self) -> u32 {
        self.line_of(self.at)
    }

    fn fault(&mut self, kind: JsonFaultKind) {
        if self.faults.iter().all(|fault| fault.kind != kind) {
            self.faults.push(JsonFault { line: self.line(), kind });
        }
    }

    fn error(&self, reason: &str) -> ReadError {
        // The end of a text is on its last line, not behind it.
        let last = self.bytes.trim_ascii_end().len();
        self.error_at(self.at.min(last), reason)
    }

    fn error_at(&self, at: usize, reason: &str) -> ReadError {
        ReadError::Syntax { line: self.line_of(at), language: "JSON", reason: reason.to_owned() }
    }

    /// Skips white space and comments.
    fn space(&mut self) -> Result<(), ReadError> {
        loop {
            let rest = &self.bytes[self.at..];
            let blank = rest.iter().take_while(|byte| matches!(byte, b' ' | b'\t' | b'\r' | b'\n')).count();
            self.at += blank;
            let rest = &rest[blank..];
            let length = if rest.starts_with(b"//") {
                find(rest, b"\n").map_or(rest.len(), |end| end + 1)
            } else if rest.starts_with(b"/*") {
                find(&rest[2..], b"*/").ok_or_else(|| self.error("the comment is not closed"))? + 4
            } else {
                return Ok(());
            };
            let comment = &rest[..length];
            self.fault(JsonFaultKind::Comment);
            if std::str::from_utf8(comment).is_err() {
                self.fault(JsonFaultKind::CommentText);
            }
            if comment.starts_with(b"//") && !comment.ends_with(b"\n") {
                self.fault(JsonFaultKind::OpenComment);
            }
            self.at += length;
        }
    }

    fn value(&mut self, depth: usize) -> Result<DocumentValue, ReadError> {
        let line = self.line();
        let depth = depth.checked_sub(1).ok_or(ReadError::TooDeep { line })?;
        self.values += 1;
        if self.values > MAX_VALUES {
            return Err(ReadError::TooMany { line });
        }
        let kind = match self.peek() {
            Some(b'{') => {
                self.at += 1;
                ValueKind::Map(self.members(Some(line), depth)?)
            }
            Some(b'[') => {
                self.at += 1;
                ValueKind::List(self.elements(line, depth)?)
            }
            Some(b'"') => ValueKind::Text(self.text()?),
            _ => self.literal()?,
        };
        Ok(DocumentValue::new(line, kind))
    }

    /// The members of an object that began on the line `start`, up to its end; without a line, up to the end of the text.
    fn members(&mut self, start: Option<u32>, depth: usize) -> Result<Vec<ObjectMember>, ReadError> {
        let mut members = Vec::new();
        loop {
            self.space()?;
            match (self.peek(), start) {
                (Some(b'"'), _) => {}
                (Some(b'}'), Some(_)) => {
                    if !members.is_empty() {
                        self.fault(JsonFaultKind::TrailingComma);
                    }
                    self.at += 1;
                    return Ok(members);
                }
                (None, None) => return Ok(members),
                (None, Some(start)) => return Err(self.unclosed("object", start)),
                (Some(_), _) => return Err(self.error("a name in double quotes is missing")),
            }
            let key = DocumentValue::new(self.line(), ValueKind::Text(self.text()?));
            self.space()?;
            if self.peek() != Some(b':') {
                return Err(self.error("a : is missing behind a name"));
            }
            self.at += 1;
            self.space()?;
            members.push(ObjectMember::new(key, self.value(depth)?));
            self.space()?;
            match (self.peek(), start) {
                (Some(b','), _) => self.at += 1,
                (Some(b'}'), Some(_)) => {
                    self.at += 1;
                    return Ok(members);
                }
                (None, None) => return Ok(members),
                (None, Some(start)) => return Err(self.unclosed("object", start)),
                (Some(_), _) => return Err(self.error("a comma is missing between two members")),
            }
        }
    }

    fn elements(&mut self, start: u32, depth: usize) -> Result<Vec<DocumentValue>, ReadError> {
        let mut elements = Vec::new();
        loop {
            self.space()?;
            match self.peek() {
                Some(b']') => {
                    if !elements.is_empty() {
                        self.fault(JsonFaultKind::TrailingComma);
                    }
                    self.at += 1;
                    return Ok(elements);
                }
                None => return Err(self.unclosed("list", start)),
                Some(_) => elements.push(self.value(depth)?),
            }
            self.space()?;
            match self.peek() {
                Some(b',') => self.at += 1,
                Some(b']') => {
                    self.at += 1;
                    return Ok(elements);
                }
                None => return Err(self.unclosed("list", start)),
                Some(_) => return Err(self.error("a comma is missing between two elements")),
            }
        }
    }

    fn unclosed(&self, what: &str, start: u32) -> ReadError {
        self.error(&format!("the {what} that begins on line {start} is not closed"))
    }

    fn literal(&mut self) -> Result<ValueKind, ReadError> {
        let rest = &self.bytes[self.at..];
        let length = rest
            .iter()
            .take_while(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'+' | b'.'))
            .count();
        let kind = match &rest[..length] {
            b"null" => ValueKind::Null,
            b"true" => ValueKind::Bool(true),
            b"false" => ValueKind::Bool(false),
            number if is_number(number) => ValueKind::Number(String::from_utf8_lossy(number).into_owned()),
            b"" => return Err(self.error("a value is missing")),
            _ => {
                return Err(
                    self.error("a value is neither a number, nor true, false or null, nor in double quotes")
                );
            }
        };
        self.at += length;
        Ok(kind)
    }

    fn text(&mut self) -> Result<String, ReadError> {
        let start = self.at;
        self.at += 1;
        let mut text = String::new();
        loop {
            let rest = &self.bytes[self.at..];
            let plain = rest
                .iter()
                .position(|byte| matches!(byte, b'"' | b'\\' | 0..0x20))
                .ok_or_else(|| self.error_at(start, "the string that begins on this line is not closed"))?;
            if push_lossy(&mut text, &rest[..plain]) == Utf8Loss::Some {
                self.fault(JsonFaultKind::StringText);
            }
            self.at += plain;
            match rest[plain] {
                b'"' => {
                    self.at += 1;
                    return Ok(text);
                }
                b'\\' => text.push(self.escape()?),
                control => {
                    self.fault(JsonFaultKind::ControlCharacter);
                    text.push(char::from(control));
                    self.at += 1;
                }
            }
        }
    }

    fn escape(&mut self) -> Result<char, ReadError> {
        let escaped = match self.bytes.get(self.at + 1) {
            Some(b'u') => return self.code_point(),
            Some(b'b') => '\u{8}',
            Some(b'f') => '\u{c}',
            Some(b'n') => '\n',
            Some(b'r') => '\r',
            Some(b't') => '\t',
            Some(same @ (b'"' | b'\\' | b'/')) => char::from(*same),
            _ => return Err(self.error("there is no such escape in a string")),
        };
        self.at += 2;
        Ok(escaped)
    }

    /// `\u` and four digits, or twice that. Half of a pair is U+FFFD to Go.
    fn code_point(&mut self) -> Result<char, ReadError> {
        let unit = self.code_unit(self.at).ok_or_else(|| self.error("\\u is not followed by four digits"))?;
        self.at += 6;
        if !(0xd800..0xe000).contains(&unit) {
            return Ok(char::from_u32(unit).unwrap_or(char::REPLACEMENT_CHARACTER));
        }
        match self.code_unit(self.at) {
            Some(low @ 0xdc00..0xe000) if unit < 0xdc00 => {
                self.at += 6;
                let code_point = 0x10000 + ((unit - 0xd800) << 10) + (low - 0xdc00);
                Ok(char::from_u32(code_point).unwrap_or(char::REPLACEMENT_CHARACTER))
            }
            _ => Ok(char::REPLACEMENT_CHARACTER),
        }
    }

    fn code_unit(&self, at: usize) -> Option<u32> {
        let digits = self.bytes.get(at..at + 6)?.strip_prefix(b"\\u")?;
        if !digits.iter().all(u8::is_ascii_hexdigit) {
            return None;
        }
        u32::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()
    }
}

/// Whether the bytes are a number by the grammar of JSON.
fn is_number(bytes: &[u8]) -> bool {
    let digits = |bytes: &[u8]| bytes.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let rest = bytes.strip_prefix(b"-").unwrap_or(bytes);
    let whole = digits(rest);
    if whole == 0 || (whole > 1 && rest[0] == b'0') {
        return false;
    }
    let mut rest = &rest[whole..];
    if let Some(fraction) = rest.strip_prefix(b".") {
        let length = digits(fraction);
        if length == 0 {
            return false;
        }
        rest = &fraction[length..];
    }
    let Some(exponent) = rest.strip_prefix(b"e").or_else(|| rest.strip_prefix(b"E")) else {
        return rest.is_empty();
    };
    let exponent = exponent.strip_prefix(b"+").or_else(|| exponent.strip_prefix(b"-")).unwrap_or(exponent);
    !exponent.is_empty() && digits(exponent) == exponent.len()
}
