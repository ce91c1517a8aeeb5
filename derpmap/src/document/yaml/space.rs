//! What stands between tokens: white space, line ends and comments.
//!
//! `yaml.v3` keeps comments, and so it reads them in another way than the rest. Where that shows, as with tabs in front of
//! a comment, it is the same here.

use super::scanner::Scanner;
use crate::document::error::ReadError;

/// Comments are looked for in so many bytes.
const FARTHEST: usize = 512;

impl Scanner {
    /// Passes over blanks, a comment and the end of the line, before which nothing else may stand.
    pub(super) fn scan_line_end(&mut self) -> Result<(), ReadError> {
        self.cursor.skip_blanks();
        if self.cursor.byte(0) == b'#' {
            while !self.cursor.is_break_or_end(0) {
                self.cursor.skip();
            }
        }
        if !self.cursor.is_break_or_end(0) {
            return Err(self.cursor.error("did not find expected comment or line break"));
        }
        self.cursor.skip_line();
        Ok(())
    }

    pub(super) fn scan_to_next_token(&mut self) {
        loop {
            // A second byte order mark.
            if self.cursor.mark.index == 0 && self.cursor.starts_with("\u{feff}".as_bytes()) {
                self.cursor.skip();
            }
            while self.cursor.byte(0) == b' '
                || (self.cursor.byte(0) == b'\t' && (self.flow_level > 0 || !self.simple_key_allowed))
            {
                self.cursor.skip();
            }
            if self.cursor.byte(0) == b'#' {
                self.scan_comments();
            }
            if !self.cursor.is_break(0) {
                return;
            }
            self.cursor.skip_line();
            if self.flow_level == 0 {
                self.simple_key_allowed = true;
            }
        }
    }

    /// Passes over comments on lines of their own, and stops at the end of the last one.
    fn scan_comments(&mut self) {
        let mut ahead = 0;
        while ahead < FARTHEST {
            if !self.cursor.is_blank(ahead) && !self.cursor.is_break(ahead) {
                if self.cursor.byte(ahead) != b'#' {
                    break;
                }
                self.skip_comment(ahead);
                ahead = 0;
            }
            ahead += 1;
        }
    }

    /// Passes over a comment on the same line, behind a token.
    pub(super) fn scan_line_comment(&mut self) {
        if self.cursor.newlines > 0 {
            return;
        }
        let ahead = (0..FARTHEST).find(|ahead| !self.cursor.is_blank(*ahead));
        if let Some(ahead) = ahead.filter(|ahead| self.cursor.byte(*ahead) == b'#') {
            self.skip_comment(ahead);
        }
    }

    /// Passes over a comment that begins so many bytes ahead, and over the white space in front of it.
    fn skip_comment(&mut self, ahead: usize) {
        let begins = self.cursor.mark.index + ahead;
        while self.cursor.mark.index < begins && !self.cursor.is_end() {
            match self.cursor.is_break(0) {
                true => self.cursor.skip_line(),
                false => self.cursor.skip(),
            }
        }
        while !self.cursor.is_break_or_end(0) {
            self.cursor.skip();
        }
    }
}
