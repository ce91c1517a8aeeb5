//! Text in messages, and the numbers of its lines.

/// The text, or its beginning.
pub(crate) fn shorten(text: &str) -> String {
    const LONGEST: usize = 80;
    match text.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

/// The text with control characters spelt out, so that no byte of a file ends a line of a report or controls a terminal.
pub(crate) fn printable(text: impl Into<String>) -> String {
    let text = text.into();
    if !text.contains(char::is_control) {
        return text;
    }
    let mut spelt = String::with_capacity(text.len());
    for c in text.chars() {
        match c.is_control() {
            true => spelt.extend(c.escape_default()),
            false => spelt.push(c),
        }
    }
    spelt
}

/// The line, from 1, of a position in bytes.
pub(super) fn line_at(bytes: &[u8], position: usize) -> u32 {
    let ends = bytes[..position.min(bytes.len())].iter().filter(|byte| **byte == b'\n').count();
    number(ends + 1)
}

/// A line number; a file has fewer lines than bytes, and fewer bytes than fit.
pub(super) fn number(line: usize) -> u32 {
    u32::try_from(line).unwrap_or(u32::MAX)
}
