//! Text of an operator or a file as a message repeats it.

use std::fmt::{self, Write};
use std::path::Path;

/// A text with everything spelt out that cannot be seen: line breaks, other control characters, spaces of no or unusual
/// width, byte order marks.
///
/// A value from a secret or a script often ends in one of them, and a message that repeats it raw looks as if the value were
/// right, or breaks the line.
#[derive(Clone, Copy, Debug)]
pub struct Visible<'a>(pub &'a str);

impl fmt::Display for Visible<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for c in self.0.chars() {
            // These are seen as they are; only source code would escape them.
            if matches!(c, '"' | '\'' | '\\') {
                f.write_char(c)?;
            } else {
                write!(f, "{}", c.escape_debug())?;
            }
        }
        Ok(())
    }
}

/// The path as a message names it, see [`Visible`].
pub fn visible_path(path: &Path) -> String {
    Visible(&path.to_string_lossy()).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_seen_is_spelt_out_and_the_rest_is_not() {
        for (text, shown) in [
            ("relay.example.com\n", r"relay.example.com\n"),
            ("\r\t\0\u{1b}[0m", r"\r\t\0\u{1b}[0m"),
            ("\u{feff}a\u{200b}b\u{a0}", r"\u{feff}a\u{200b}b\u{a0}"),
            ("\u{202e}moc", r"\u{202e}moc"),
            (r#"C:\x "y" 'z' ü€"#, r#"C:\x "y" 'z' ü€"#),
            ("", ""),
        ] {
            assert_eq!(Visible(text).to_string(), shown);
        }
        assert_eq!(visible_path(Path::new("/a b/c\n")), r"/a b/c\n");
    }
}
