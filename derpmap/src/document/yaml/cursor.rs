//! The place in the text that the scanner has come to.

use super::reader::YamlText;
use super::token::YamlMark;
use crate::document::error::ReadError;
use crate::document::text::number;

/// A text and a place in it. Behind its end are zero bytes, which the text itself has none of.
pub(super) struct Cursor {
    input: YamlText,
    /// The line feeds in front of the last character that is not white space.
    last_line: usize,
    /// In bytes.
    at: usize,
    pub(super) mark: YamlMark,
    /// The line ends since the last character that is not blank.
    pub(super) newlines: usize,
}

impl Cursor {
    pub(super) fn new(input: YamlText) -> Self {
        let text = input.text.trim_ascii_end();
        let last_line = (0..text.len()).filter(|at| is_line_end(text, *at)).count();
        Self { input, last_line, at: 0, mark: YamlMark::default(), newlines: 0 }
    }

    /// The byte that is so many bytes ahead.
    pub(super) fn byte(&self, ahead: usize) -> u8 {
        self.input.text.get(self.at + ahead).copied().unwrap_or(0)
    }

    pub(super) fn starts_with(&self, bytes: &[u8]) -> bool {
        self.input.text.get(self.at..).is_some_and(|rest| rest.starts_with(bytes))
    }

    pub(super) fn is_end(&self) -> bool {
        self.byte(0) == 0
    }

    pub(super) fn is_blank(&self, ahead: usize) -> bool {
        matches!(self.byte(ahead), b' ' | b'\t')
    }

    /// CR, LF, NEL, LS or PS.
    pub(super) fn is_break(&self, ahead: usize) -> bool {
        match self.byte(ahead) {
            b'\r' | b'\n' => true,
            0xc2 => self.byte(ahead + 1) == 0x85,
            0xe2 => self.byte(ahead + 1) == 0x80 && matches!(self.byte(ahead + 2), 0xa8 | 0xa9),
            _ => false,
        }
    }

    pub(super) fn is_break_or_end(&self, ahead: usize) -> bool {
        self.byte(ahead) == 0 || self.is_break(ahead)
    }

    pub(super) fn is_space_or_end(&self, ahead: usize) -> bool {
        self.is_blank(ahead) || self.is_break_or_end(ahead)
    }

    pub(super) fn is_alpha(&self) -> bool {
        self.byte(0).is_ascii_alphanumeric() || matches!(self.byte(0), b'_' | b'-')
    }

    /// Whether `---` or `...` stands alone here, at the beginning of a line.
    pub(super) fn is_document_indicator(&self) -> bool {
        self.mark.column == 0
            && (self.starts_with(b"---") || self.starts_with(b"..."))
            && self.is_space_or_end(3)
    }

    fn width(&self) -> usize {
        let width = match self.byte(0) {
            0..0xc0 => 1,
            0xc0..0xe0 => 2,
            0xe0..0xf0 => 3,
            _ => 4,
        };
        width.min(self.input.text.len().saturating_sub(self.at))
    }

    /// Passes over a character that ends no line.
    pub(super) fn skip(&mut self) {
        if !self.is_blank(0) {
            self.newlines = 0;
        }
        self.mark.index += 1;
        self.mark.column += 1;
        self.at += self.width();
    }

    pub(super) fn skip_many(&mut self, characters: usize) {
        for _ in 0..characters {
            self.skip();
        }
    }

    pub(super) fn skip_blanks(&mut self) {
        while self.is_blank(0) {
            self.skip();
        }
    }

    /// Takes a character that ends no line.
    pub(super) fn read(&mut self, into: &mut Vec<u8>) {
        let from = self.at;
        self.skip();
        into.extend_from_slice(&self.input.text[from..self.at]);
    }

    /// Passes over a line end, if there is one.
    pub(super) fn skip_line(&mut self) {
        self.read_line(&mut Vec::new());
    }

    /// Takes a line end, if there is one; most become a line feed.
    pub(super) fn read_line(&mut self, into: &mut Vec<u8>) {
        if !self.is_break(0) {
            return;
        }
        let from = self.at;
        // What is left out at the end of a text is on its last line, not behind it.
        if matches!(self.byte(0), b'\r' | b'\n') && self.mark.line_feeds < self.last_line {
            self.mark.line_feeds += 1;
        }
        match self.byte(0) {
            b'\r' if self.byte(1) == b'\n' => {
                self.at += 1;
                self.mark.index += 1;
                into.push(b'\n');
            }
            0xe2 => into.extend_from_slice(&self.input.text[from..from + 3]),
            _ => into.push(b'\n'),
        }
        self.at += self.width();
        self.mark.index += 1;
        self.mark.column = 0;
        self.mark.line += 1;
        self.newlines += 1;
    }

    /// Fails if the reader of `yaml.v3` has come to what is no text.
    pub(super) fn check_text(&self) -> Result<(), ReadError> {
        let end = self.input.text.len();
        match self.input.fault {
            Some(fault) if self.at + 4 >= fault.seen_from => {
                let text = &self.input.text;
                let line_feeds = (0..end).filter(|at| is_line_end(text, *at)).count();
                Err(syntax(YamlMark { line_feeds, ..self.mark }, fault.reason))
            }
            _ => Ok(()),
        }
    }

    pub(super) fn error(&self, reason: &str) -> ReadError {
        syntax(self.mark, reason)
    }
}

/// The line of a place, from 1.
pub(super) fn line(mark: YamlMark) -> u32 {
    number(mark.line_feeds + 1)
}

pub(super) fn syntax(mark: YamlMark, reason: &str) -> ReadError {
    ReadError::Syntax { line: line(mark), language: "YAML", reason: reason.to_owned() }
}

/// Whether a line ends at a byte, as editors count lines.
fn is_line_end(text: &[u8], at: usize) -> bool {
    text[at] == b'\n' || (text[at] == b'\r' && text.get(at + 1) != Some(&b'\n'))
}
