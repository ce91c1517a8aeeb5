//! The tokens of a text, one after the other.

use std::collections::{HashMap, VecDeque};

use super::cursor::{Cursor, syntax};
use super::reader::YamlText;
use super::token::{TokenKind, YamlMark, YamlToken};
use crate::document::error::ReadError;

/// A key without `?` is at most so long, in characters, and on one line.
const LONGEST_KEY: usize = 1024;

/// `yaml.v3` nests no deeper, in flow and in blocks.
const DEEPEST: usize = 10_000;

/// A token that may turn out to begin a key, once a `:` is found.
#[derive(Clone, Copy, Default)]
struct SimpleKey {
    is_possible: bool,
    is_required: bool,
    token: usize,
    mark: YamlMark,
}

/// The scanner of `yaml.v3`: its states have the same names, and it looks ahead as far.
pub(super) struct Scanner {
    pub(super) cursor: Cursor,
    tokens: VecDeque<YamlToken>,
    taken: usize,
    has_started: bool,
    pub(super) flow_level: usize,
    /// The column of the innermost block; -1 outside of all.
    pub(super) indent: isize,
    indents: Vec<isize>,
    pub(super) simple_key_allowed: bool,
    /// One for each level of flow.
    simple_keys: Vec<SimpleKey>,
    /// The levels by the number of the token that may begin a key.
    simple_keys_by_token: HashMap<usize, usize>,
}

impl Scanner {
    pub(super) fn new(text: YamlText) -> Self {
        Self {
            cursor: Cursor::new(text),
            tokens: VecDeque::new(),
            taken: 0,
            has_started: false,
            flow_level: 0,
            indent: -1,
            indents: Vec::new(),
            simple_key_allowed: true,
            simple_keys: vec![SimpleKey::default()],
            simple_keys_by_token: HashMap::new(),
        }
    }

    /// The next token, which stays.
    pub(super) fn peek(&mut self) -> Result<&YamlToken, ReadError> {
        // Two tokens more than are needed: `yaml.v3` looks for comments there, and stumbles over what it finds.
        while self.tokens.len() < 3 || self.may_become_key()? {
            self.fetch()?;
        }
        Ok(&self.tokens[0])
    }

    /// Takes the token that [`peek`](Self::peek) has shown.
    pub(super) fn take(&mut self) -> Option<YamlToken> {
        self.taken += 1;
        self.tokens.pop_front()
    }

    fn may_become_key(&mut self) -> Result<bool, ReadError> {
        match self.simple_keys_by_token.get(&self.taken).copied() {
            Some(level) if level < self.simple_keys.len() => self.is_valid(level),
            _ => Ok(false),
        }
    }

    fn push(&mut self, kind: TokenKind, start: YamlMark) {
        self.tokens.push_back(YamlToken { kind, start });
    }

    /// Puts a token in front of the one with this number.
    fn insert(&mut self, number: usize, kind: TokenKind, start: YamlMark) {
        let position = number.checked_sub(self.taken).unwrap_or(self.tokens.len());
        self.tokens.insert(position.min(self.tokens.len()), YamlToken { kind, start });
    }

    pub(super) fn column(&self) -> isize {
        column(self.cursor.mark)
    }

    fn fetch(&mut self) -> Result<(), ReadError> {
        self.cursor.check_text()?;
        if !self.has_started {
            self.has_started = true;
            self.push(TokenKind::StreamStart, self.cursor.mark);
            return Ok(());
        }
        self.scan_to_next_token();
        self.cursor.check_text()?;
        self.unroll_indent(self.column());
        if self.cursor.is_end() {
            return self.fetch_stream_end();
        }
        if self.cursor.mark.column == 0 && self.cursor.byte(0) == b'%' {
            return self.fetch_directive();
        }
        if self.cursor.is_document_indicator() {
            return self.fetch_document_indicator();
        }
        self.fetch_content()?;
        if self.tokens.back().is_none_or(|token| token.kind != TokenKind::BlockEntry) {
            self.scan_line_comment();
        }
        Ok(())
    }

    fn fetch_content(&mut self) -> Result<(), ReadError> {
        let in_flow = self.flow_level > 0;
        let ends_word = self.cursor.is_space_or_end(1);
        match self.cursor.byte(0) {
            b'[' => self.fetch_flow_start(TokenKind::FlowSequenceStart),
            b'{' => self.fetch_flow_start(TokenKind::FlowMappingStart),
            b']' => self.fetch_flow_end(TokenKind::FlowSequenceEnd),
            b'}' => self.fetch_flow_end(TokenKind::FlowMappingEnd),
            b',' => self.fetch_flow_entry(),
            b'-' if ends_word => self.fetch_block_entry(),
            b'?' if in_flow || ends_word => self.fetch_key(),
            b':' if in_flow || ends_word => self.fetch_value(),
            b'*' | b'&' => self.fetch_simple(Self::scan_anchor),
            b'!' => self.fetch_simple(Self::scan_tag),
            b'|' | b'>' if !in_flow => self.fetch_block_scalar(),
            b'\'' | b'"' => self.fetch_simple(Self::scan_flow_scalar),
            b'-' if !self.cursor.is_blank(1) => self.fetch_simple(Self::scan_plain_scalar),
            b'?' | b':' if !in_flow && !ends_word => self.fetch_simple(Self::scan_plain_scalar),
            b'\t' => Err(self.cursor.error("found a tab where only spaces may indent")),
            b' ' | b'-' | b'?' | b':' | b'#' | b'|' | b'>' | b'%' | b'@' | b'`' => {
                Err(self.cursor.error("found a character that cannot start any token"))
            }
            _ => self.fetch_simple(Self::scan_plain_scalar),
        }
    }

    fn is_valid(&mut self, level: usize) -> Result<bool, ReadError> {
        let mark = self.cursor.mark;
        let key = &mut self.simple_keys[level];
        if !key.is_possible {
            return Ok(false);
        }
        if key.mark.line < mark.line || key.mark.index + LONGEST_KEY < mark.index {
            if key.is_required {
                return Err(syntax(key.mark, "could not find expected ':'"));
            }
            key.is_possible = false;
            return Ok(false);
        }
        Ok(true)
    }

    fn save_simple_key(&mut self) -> Result<(), ReadError> {
        if !self.simple_key_allowed {
            return Ok(());
        }
        let key = SimpleKey {
            is_possible: true,
            is_required: self.flow_level == 0 && self.indent == self.column(),
            token: self.taken + self.tokens.len(),
            mark: self.cursor.mark,
        };
        self.remove_simple_key()?;
        let level = self.simple_keys.len() - 1;
        self.simple_keys[level] = key;
        self.simple_keys_by_token.insert(key.token, level);
        Ok(())
    }

    fn remove_simple_key(&mut self) -> Result<(), ReadError> {
        let level = self.simple_keys.len() - 1;
        let key = &mut self.simple_keys[level];
        if key.is_possible {
            if key.is_required {
                return Err(syntax(key.mark, "could not find expected ':'"));
            }
            key.is_possible = false;
            self.simple_keys_by_token.remove(&key.token);
        }
        Ok(())
    }

    fn roll_indent(
        &mut self,
        token: Option<usize>,
        kind: TokenKind,
        mark: YamlMark,
    ) -> Result<(), ReadError> {
        if self.flow_level > 0 || self.indent >= column(mark) {
            return Ok(());
        }
        self.indents.push(self.indent);
        self.indent = column(mark);
        if self.indents.len() > DEEPEST {
            return Err(syntax(mark, "is nested too deep"));
        }
        match token {
            Some(number) => self.insert(number, kind, mark),
            None => self.push(kind, mark),
        }
        Ok(())
    }

    fn unroll_indent(&mut self, column: isize) {
        if self.flow_level > 0 {
            return;
        }
        while self.indent > column {
            self.push(TokenKind::BlockEnd, self.cursor.mark);
            self.indent = self.indents.pop().unwrap_or(-1);
        }
    }

    fn fetch_stream_end(&mut self) -> Result<(), ReadError> {
        if self.cursor.mark.column != 0 {
            self.cursor.mark.column = 0;
            self.cursor.mark.line += 1;
        }
        self.unroll_indent(-1);
        self.remove_simple_key()?;
        self.simple_key_allowed = false;
        self.push(TokenKind::StreamEnd, self.cursor.mark);
        Ok(())
    }

    fn fetch_directive(&mut self) -> Result<(), ReadError> {
        self.unroll_indent(-1);
        self.remove_simple_key()?;
        self.simple_key_allowed = false;
        let start = self.cursor.mark;
        let kind = self.scan_directive()?;
        self.push(kind, start);
        Ok(())
    }

    fn fetch_document_indicator(&mut self) -> Result<(), ReadError> {
        self.unroll_indent(-1);
        self.remove_simple_key()?;
        self.simple_key_allowed = false;
        let kind = match self.cursor.byte(0) {
            b'-' => TokenKind::DocumentStart,
            _ => TokenKind::DocumentEnd,
        };
        let start = self.cursor.mark;
        self.cursor.skip_many(3);
        self.push(kind, start);
        Ok(())
    }

    fn fetch_flow_start(&mut self, kind: TokenKind) -> Result<(), ReadError> {
        self.save_simple_key()?;
        let key = SimpleKey {
            token: self.taken + self.tokens.len(),
            mark: self.cursor.mark,
            ..SimpleKey::default()
        };
        self.simple_keys.push(key);
        self.flow_level += 1;
        if self.flow_level > DEEPEST {
            return Err(self.cursor.error("is nested too deep"));
        }
        self.simple_key_allowed = true;
        self.push_character(kind);
        Ok(())
    }

    fn fetch_flow_end(&mut self, kind: TokenKind) -> Result<(), ReadError> {
        self.remove_simple_key()?;
        if self.flow_level > 0 {
            self.flow_level -= 1;
            if let Some(key) = self.simple_keys.pop() {
                self.simple_keys_by_token.remove(&key.token);
            }
        }
        self.simple_key_allowed = false;
        self.push_character(kind);
        Ok(())
    }

    fn push_character(&mut self, kind: TokenKind) {
        let start = self.cursor.mark;
        self.cursor.skip();
        self.push(kind, start);
    }

    fn fetch_flow_entry(&mut self) -> Result<(), ReadError> {
        self.remove_simple_key()?;
        self.simple_key_allowed = true;
        self.push_character(TokenKind::FlowEntry);
        Ok(())
    }

    fn fetch_block_entry(&mut self) -> Result<(), ReadError> {
        if self.flow_level == 0 {
            if !self.simple_key_allowed {
                return Err(self.cursor.error("block sequence entries are not allowed in this context"));
            }
            self.roll_indent(None, TokenKind::BlockSequenceStart, self.cursor.mark)?;
        }
        self.remove_simple_key()?;
        self.simple_key_allowed = true;
        self.push_character(TokenKind::BlockEntry);
        Ok(())
    }

    fn fetch_key(&mut self) -> Result<(), ReadError> {
        if self.flow_level == 0 {
            if !self.simple_key_allowed {
                return Err(self.cursor.error("mapping keys are not allowed in this context"));
            }
            self.roll_indent(None, TokenKind::BlockMappingStart, self.cursor.mark)?;
        }
        self.remove_simple_key()?;
        self.simple_key_allowed = self.flow_level == 0;
        self.push_character(TokenKind::Key);
        Ok(())
    }

    fn fetch_value(&mut self) -> Result<(), ReadError> {
        let level = self.simple_keys.len() - 1;
        if self.is_valid(level)? {
            let SimpleKey { token, mark, .. } = self.simple_keys[level];
            self.insert(token, TokenKind::Key, mark);
            self.roll_indent(Some(token), TokenKind::BlockMappingStart, mark)?;
            self.simple_keys[level].is_possible = false;
            self.simple_keys_by_token.remove(&token);
            self.simple_key_allowed = false;
        } else {
            if self.flow_level == 0 {
                if !self.simple_key_allowed {
                    return Err(self.cursor.error("mapping values are not allowed in this context"));
                }
                self.roll_indent(None, TokenKind::BlockMappingStart, self.cursor.mark)?;
            }
            self.simple_key_allowed = self.flow_level == 0;
        }
        self.push_character(TokenKind::Value);
        Ok(())
    }

    fn fetch_block_scalar(&mut self) -> Result<(), ReadError> {
        self.remove_simple_key()?;
        self.simple_key_allowed = true;
        let start = self.cursor.mark;
        let kind = self.scan_block_scalar()?;
        self.push(kind, start);
        Ok(())
    }

    /// What may begin a key.
    fn fetch_simple(&mut self, scan: fn(&mut Self) -> Result<TokenKind, ReadError>) -> Result<(), ReadError> {
        self.save_simple_key()?;
        self.simple_key_allowed = false;
        let start = self.cursor.mark;
        let kind = scan(self)?;
        self.push(kind, start);
        Ok(())
    }
}

fn column(mark: YamlMark) -> isize {
    isize::try_from(mark.column).unwrap_or(isize::MAX)
}
