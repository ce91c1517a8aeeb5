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

/// Whether bytes that were to be text were all text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Utf8Loss {
    None,
    Some,
}

/// Appends bytes as Go makes text of them: each byte that is no UTF-8 becomes one U+FFFD.
pub(super) fn push_lossy(text: &mut String, mut bytes: &[u8]) -> Utf8Loss {
    let mut loss = Utf8Loss::None;
    loop {
        match std::str::from_utf8(bytes) {
            Ok(rest) => {
                text.push_str(rest);
                return loss;
            }
            Err(error) => {
                let (valid, rest) = bytes.split_at(error.valid_up_to());
                text.push_str(std::str::from_utf8(valid).unwrap_or_default());
                text.push(char::REPLACEMENT_CHARACTER);
                bytes = &rest[1..];
                loss = Utf8Loss::Some;
            }
        }
    }
}

/// A line number; a file has fewer lines than bytes, and fewer bytes than fit.
pub(super) fn number(line: usize) -> u32 {
    u32::try_from(line).unwrap_or(u32::MAX)
}
