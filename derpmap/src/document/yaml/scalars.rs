//! Scalars: plain ones, in quotes, and blocks.

use super::scanner::Scanner;
use super::token::{TokenKind, YamlStyle};
use super::words::hexadecimal;
use crate::document::error::ReadError;

/// How a block scalar ends.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Chomping {
    Strip,
    Clip,
    Keep,
}

/// A scalar that is folded: white space and line ends that are not part of it yet.
#[derive(Default)]
struct Folding {
    text: Vec<u8>,
    blanks: Vec<u8>,
    leading_break: Vec<u8>,
    trailing_breaks: Vec<u8>,
    has_break: bool,
}

impl Folding {
    /// Makes the white space part of the scalar: a single line end becomes a space.
    fn join(&mut self) {
        if !self.has_break {
            self.text.append(&mut self.blanks);
            return;
        }
        if self.leading_break.first() != Some(&b'\n') {
            self.text.append(&mut self.leading_break);
        } else if self.trailing_breaks.is_empty() {
            self.text.push(b' ');
        }
        self.text.append(&mut self.trailing_breaks);
        self.leading_break.clear();
        self.blanks.clear();
        self.has_break = false;
    }
}

impl Scanner {
    /// Takes white space or a line end into `folding`.
    fn fold(&mut self, folding: &mut Folding) {
        if self.cursor.is_blank(0) {
            match folding.has_break {
                true => self.cursor.skip(),
                false => self.cursor.read(&mut folding.blanks),
            }
        } else if folding.has_break {
            self.cursor.read_line(&mut folding.trailing_breaks);
        } else {
            folding.blanks.clear();
            self.cursor.read_line(&mut folding.leading_break);
            folding.has_break = true;
        }
    }

    pub(super) fn scan_plain_scalar(&mut self) -> Result<TokenKind, ReadError> {
        let mut folding = Folding::default();
        let indent = self.indent + 1;
        loop {
            if self.cursor.is_document_indicator() || self.cursor.byte(0) == b'#' {
                break;
            }
            while !self.cursor.is_space_or_end(0) {
                let next = self.cursor.byte(0);
                if (next == b':' && self.cursor.is_space_or_end(1))
                    || (self.flow_level > 0 && matches!(next, b',' | b'?' | b'[' | b']' | b'{' | b'}'))
                {
                    break;
                }
                folding.join();
                self.cursor.read(&mut folding.text);
            }
            if !self.cursor.is_blank(0) && !self.cursor.is_break(0) {
                break;
            }
            while self.cursor.is_blank(0) || self.cursor.is_break(0) {
                if folding.has_break && self.column() < indent && self.cursor.byte(0) == b'\t' {
                    return Err(self.cursor.error("found a tab character that violates indentation"));
                }
                self.fold(&mut folding);
            }
            if self.flow_level == 0 && self.column() < indent {
                break;
            }
        }
        if folding.has_break {
            self.simple_key_allowed = true;
        }
        Ok(TokenKind::Scalar(folding.text, YamlStyle::Plain))
    }

    pub(super) fn scan_flow_scalar(&mut self) -> Result<TokenKind, ReadError> {
        let start = self.cursor.mark;
        let quote = self.cursor.byte(0);
        self.cursor.skip();
        let mut folding = Folding::default();
        loop {
            if self.cursor.is_document_indicator() {
                return Err(self.cursor.error("found unexpected document indicator in quotes"));
            }
            if self.cursor.is_end() {
                let from = start.line + 1;
                return Err(self
                    .cursor
                    .error(&format!("the quotes that begin on line {from} are not closed")));
            }
            while !self.cursor.is_space_or_end(0) {
                match self.cursor.byte(0) {
                    b'\'' if quote == b'\'' && self.cursor.byte(1) == b'\'' => {
                        folding.text.push(b'\'');
                        self.cursor.skip_many(2);
                    }
                    next if next == quote => break,
                    b'\\' if quote == b'"' && self.cursor.is_break(1) => {
                        self.cursor.skip();
                        self.cursor.skip_line();
                        folding.has_break = true;
                        break;
                    }
                    b'\\' if quote == b'"' => self.scan_escape(&mut folding.text)?,
                    _ => self.cursor.read(&mut folding.text),
                }
            }
            if self.cursor.byte(0) == quote {
                break;
            }
            while self.cursor.is_blank(0) || self.cursor.is_break(0) {
                self.fold(&mut folding);
            }
            folding.join();
        }
        self.cursor.skip();
        Ok(TokenKind::Scalar(folding.text, YamlStyle::Other))
    }

    fn scan_escape(&mut self, text: &mut Vec<u8>) -> Result<(), ReadError> {
        let escape = self.cursor.byte(1);
        let digits = match escape {
            b'x' => 2,
            b'u' => 4,
            b'U' => 8,
            _ => 0,
        };
        let character = match escape {
            b'0' => '\0',
            b'a' => '\u{7}',
            b'b' => '\u{8}',
            b't' | b'\t' => '\t',
            b'n' => '\n',
            b'v' => '\u{b}',
            b'f' => '\u{c}',
            b'r' => '\r',
            b'e' => '\u{1b}',
            b' ' | b'"' | b'\'' | b'\\' => char::from(escape),
            b'N' => '\u{85}',
            b'_' => '\u{a0}',
            b'L' => '\u{2028}',
            b'P' => '\u{2029}',
            b'x' | b'u' | b'U' => self.escaped_code_point(digits)?,
            _ => return Err(self.cursor.error("found unknown escape character")),
        };
        self.cursor.skip_many(2 + digits);
        text.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes());
        Ok(())
    }

    fn escaped_code_point(&self, digits: usize) -> Result<char, ReadError> {
        let mut value: u32 = 0;
        for digit in 0..digits {
            let digit = self.cursor.byte(2 + digit);
            if !digit.is_ascii_hexdigit() {
                return Err(self.cursor.error("did not find expected hexadecimal number"));
            }
            value = value << 4 | hexadecimal(digit);
        }
        char::from_u32(value).ok_or_else(|| self.cursor.error("found invalid Unicode character escape code"))
    }

    pub(super) fn scan_block_scalar(&mut self) -> Result<TokenKind, ReadError> {
        let is_literal = self.cursor.byte(0) == b'|';
        self.cursor.skip();
        let (chomping, increment) = self.scan_block_header()?;
        let mut indent = match increment {
            0 => 0,
            increment => self.indent.max(0) + increment,
        };
        let (mut text, mut leading_break, mut trailing_breaks) = (Vec::new(), Vec::new(), Vec::new());
        self.scan_block_breaks(&mut indent, &mut trailing_breaks)?;
        let mut leading_blank = false;
        while self.column() == indent && !self.cursor.is_end() {
            let trailing_blank = self.cursor.is_blank(0);
            let folds = !is_literal && !leading_blank && !trailing_blank;
            if folds && leading_break.first() == Some(&b'\n') {
                if trailing_breaks.is_empty() {
                    text.push(b' ');
                }
                leading_break.clear();
            } else {
                text.append(&mut leading_break);
            }
            text.append(&mut trailing_breaks);
            leading_blank = self.cursor.is_blank(0);
            while !self.cursor.is_break_or_end(0) {
                self.cursor.read(&mut text);
            }
            self.cursor.read_line(&mut leading_break);
            self.scan_block_breaks(&mut indent, &mut trailing_breaks)?;
        }
        if chomping != Chomping::Strip {
            text.append(&mut leading_break);
        }
        if chomping == Chomping::Keep {
            text.append(&mut trailing_breaks);
        }
        Ok(TokenKind::Scalar(text, YamlStyle::Other))
    }

    /// What may stand behind `|` or `>`, in either order, up to the end of the line.
    fn scan_block_header(&mut self) -> Result<(Chomping, isize), ReadError> {
        let mut chomping = self.scan_chomping();
        let increment = match self.cursor.byte(0) {
            b'0' => return Err(self.cursor.error("found an indentation indicator equal to 0")),
            digit @ b'1'..=b'9' => {
                self.cursor.skip();
                isize::from(digit - b'0')
            }
            _ => 0,
        };
        if chomping.is_none() && increment > 0 {
            chomping = self.scan_chomping();
        }
        self.scan_line_end()?;
        Ok((chomping.unwrap_or(Chomping::Clip), increment))
    }

    fn scan_chomping(&mut self) -> Option<Chomping> {
        let chomping = match self.cursor.byte(0) {
            b'+' => Chomping::Keep,
            b'-' => Chomping::Strip,
            _ => return None,
        };
        self.cursor.skip();
        Some(chomping)
    }

    /// Takes indentation and empty lines. An indentation that is not known yet is that of the deepest line.
    fn scan_block_breaks(&mut self, indent: &mut isize, breaks: &mut Vec<u8>) -> Result<(), ReadError> {
        let mut deepest = 0;
        loop {
            while (*indent == 0 || self.column() < *indent) && self.cursor.byte(0) == b' ' {
                self.cursor.skip();
            }
            deepest = deepest.max(self.column());
            if (*indent == 0 || self.column() < *indent) && self.cursor.byte(0) == b'\t' {
                return Err(self
                    .cursor
                    .error("found a tab character where an indentation space is expected"));
            }
            if !self.cursor.is_break(0) {
                break;
            }
            self.cursor.read_line(breaks);
        }
        if *indent == 0 {
            *indent = deepest.max(self.indent + 1).max(1);
        }
        Ok(())
    }
}
