//! Directives, anchors, aliases and tags.

use super::scanner::Scanner;
use super::token::TokenKind;
use crate::document::error::ReadError;

impl Scanner {
    pub(super) fn scan_directive(&mut self) -> Result<TokenKind, ReadError> {
        self.cursor.skip();
        let name = self.scan_word();
        if name.is_empty() {
            return Err(self.cursor.error("could not find expected directive name"));
        }
        if !self.cursor.is_space_or_end(0) {
            return Err(self.cursor.error("found unexpected non-alphabetical character"));
        }
        let kind = match &*name {
            b"YAML" => self.scan_version()?,
            b"TAG" => self.scan_tag_prefix()?,
            _ => return Err(self.cursor.error("found unknown directive name")),
        };
        self.scan_line_end()?;
        Ok(kind)
    }

    fn scan_word(&mut self) -> Vec<u8> {
        let mut word = Vec::new();
        while self.cursor.is_alpha() {
            self.cursor.read(&mut word);
        }
        word
    }

    fn scan_version(&mut self) -> Result<TokenKind, ReadError> {
        self.cursor.skip_blanks();
        let major = self.scan_version_number()?;
        if self.cursor.byte(0) != b'.' {
            return Err(self.cursor.error("did not find expected digit or '.' character"));
        }
        self.cursor.skip();
        Ok(TokenKind::Version(major, self.scan_version_number()?))
    }

    /// One or two digits.
    fn scan_version_number(&mut self) -> Result<u8, ReadError> {
        let mut digits = Vec::new();
        while self.cursor.byte(0).is_ascii_digit() {
            self.cursor.read(&mut digits);
        }
        match digits[..] {
            [] => Err(self.cursor.error("did not find expected version number")),
            [digit] => Ok(digit - b'0'),
            [ten, one] => Ok((ten - b'0') * 10 + (one - b'0')),
            _ => Err(self.cursor.error("found extremely long version number")),
        }
    }

    fn scan_tag_prefix(&mut self) -> Result<TokenKind, ReadError> {
        self.cursor.skip_blanks();
        let handle = self.scan_tag_handle()?;
        if handle != b"!" && (handle.len() < 2 || !handle.ends_with(b"!")) {
            return Err(self.cursor.error("did not find expected '!'"));
        }
        if !self.cursor.is_blank(0) {
            return Err(self.cursor.error("did not find expected whitespace"));
        }
        self.cursor.skip_blanks();
        let prefix = self.scan_tag_uri(&[])?;
        if !self.cursor.is_space_or_end(0) {
            return Err(self.cursor.error("did not find expected whitespace or line break"));
        }
        Ok(TokenKind::TagPrefix(handle, prefix))
    }

    pub(super) fn scan_anchor(&mut self) -> Result<TokenKind, ReadError> {
        let is_alias = self.cursor.byte(0) == b'*';
        self.cursor.skip();
        let name = self.scan_word();
        let ends = self.cursor.is_space_or_end(0)
            || matches!(self.cursor.byte(0), b'?' | b':' | b',' | b']' | b'}' | b'%' | b'@' | b'`');
        if name.is_empty() || !ends {
            return Err(self.cursor.error("did not find expected alphabetic or numeric character"));
        }
        Ok(if is_alias { TokenKind::Alias(name) } else { TokenKind::Anchor(name) })
    }

    pub(super) fn scan_tag(&mut self) -> Result<TokenKind, ReadError> {
        let (handle, suffix) = if self.cursor.byte(1) == b'<' {
            self.cursor.skip_many(2);
            let suffix = self.scan_tag_uri(&[])?;
            if self.cursor.byte(0) != b'>' {
                return Err(self.cursor.error("did not find the expected '>'"));
            }
            self.cursor.skip();
            (Vec::new(), suffix)
        } else {
            let handle = self.scan_tag_handle()?;
            if handle.len() > 1 && handle.ends_with(b"!") {
                let suffix = self.scan_tag_uri(&[])?;
                (handle, suffix)
            } else {
                match self.scan_tag_uri(&handle)? {
                    suffix if suffix.is_empty() => (suffix, b"!".to_vec()),
                    suffix => (b"!".to_vec(), suffix),
                }
            }
        };
        if !self.cursor.is_space_or_end(0) {
            return Err(self.cursor.error("did not find expected whitespace or line break"));
        }
        Ok(TokenKind::Tag(handle, suffix))
    }

    /// `!`, letters and digits, and perhaps another `!`.
    fn scan_tag_handle(&mut self) -> Result<Vec<u8>, ReadError> {
        if self.cursor.byte(0) != b'!' {
            return Err(self.cursor.error("did not find expected '!'"));
        }
        let mut handle = Vec::new();
        self.cursor.read(&mut handle);
        while self.cursor.is_alpha() {
            self.cursor.read(&mut handle);
        }
        if self.cursor.byte(0) == b'!' {
            self.cursor.read(&mut handle);
        }
        Ok(handle)
    }

    /// What follows a handle; `head` is one that turned out to be the beginning of this.
    fn scan_tag_uri(&mut self, head: &[u8]) -> Result<Vec<u8>, ReadError> {
        let mut uri = head.get(1..).unwrap_or_default().to_vec();
        let mut is_there = !head.is_empty();
        loop {
            if self.cursor.byte(0) == b'%' {
                self.scan_uri_escapes(&mut uri)?;
            } else if self.cursor.is_alpha() || b";/?:@&=+$,.!~*'()[]".contains(&self.cursor.byte(0)) {
                self.cursor.read(&mut uri);
            } else if is_there {
                return Ok(uri);
            } else {
                return Err(self.cursor.error("did not find expected tag URI"));
            }
            is_there = true;
        }
    }

    /// One character, as a `%` and two digits for each of its bytes.
    fn scan_uri_escapes(&mut self, uri: &mut Vec<u8>) -> Result<(), ReadError> {
        let mut left = None;
        loop {
            let digits = [self.cursor.byte(1), self.cursor.byte(2)];
            if self.cursor.byte(0) != b'%' || !digits.iter().all(u8::is_ascii_hexdigit) {
                return Err(self.cursor.error("did not find URI escaped octet"));
            }
            let octet = digits.iter().fold(0, |octet, digit| octet << 4 | hexadecimal(*digit));
            let octet = u8::try_from(octet).unwrap_or_default();
            let more = match (left, octet) {
                (None, 0..0x80) => 0,
                (None, 0xc0..0xe0) => 1,
                (None, 0xe0..0xf0) => 2,
                (None, 0xf0..0xf8) => 3,
                (None, _) => return Err(self.cursor.error("found an incorrect leading UTF-8 octet")),
                (Some(left), 0x80..0xc0) => left - 1,
                (Some(_), _) => return Err(self.cursor.error("found an incorrect trailing UTF-8 octet")),
            };
            uri.push(octet);
            self.cursor.skip_many(3);
            if more == 0 {
                return Ok(());
            }
            left = Some(more);
        }
    }
}

/// The value of a hexadecimal digit.
pub(super) fn hexadecimal(digit: u8) -> u32 {
    char::from(digit).to_digit(16).unwrap_or(0)
}
