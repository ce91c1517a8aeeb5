//! Bytes as the characters of a YAML text: UTF-8 or, behind a byte order mark, UTF-16.

/// A text up to the first byte that is none.
pub(super) struct YamlText {
    /// The characters in UTF-8, without the byte order mark.
    pub(super) text: Vec<u8>,
    /// What the text ends before, unless that is the end of the file.
    pub(super) fault: Option<YamlFault>,
}

/// What is no text.
#[derive(Clone, Copy)]
pub(super) struct YamlFault {
    pub(super) reason: &'static str,
    /// How far the text must be read for `yaml.v3` to come upon it, in bytes of UTF-8.
    pub(super) seen_from: usize,
}

/// The reader of `yaml.v3` takes so many bytes at once, and decodes them all.
const CHUNK: usize = 512;

const CONTROL: &str = "control characters are not allowed";
const NOT_UTF8: &str = "the text is not UTF-8";
const NOT_UTF16: &str = "the text is not UTF-16, which its byte order mark says";

pub(super) fn read(bytes: &[u8]) -> YamlText {
    match bytes {
        [0xff, 0xfe, rest @ ..] => utf16(rest, u16::from_le_bytes),
        [0xfe, 0xff, rest @ ..] => utf16(rest, u16::from_be_bytes),
        [0xef, 0xbb, 0xbf, rest @ ..] => utf8(rest),
        _ => utf8(bytes),
    }
}

fn utf8(bytes: &[u8]) -> YamlText {
    let (text, fault) = match std::str::from_utf8(bytes) {
        Ok(text) => (text, None),
        Err(error) => {
            let end = error.valid_up_to();
            let fault = YamlFault::new(NOT_UTF8, end, 1, error.error_len().is_none());
            (std::str::from_utf8(&bytes[..end]).unwrap_or_default(), Some(fault))
        }
    };
    match text.char_indices().find(|(_, c)| !is_allowed(*c)) {
        Some((end, _)) => YamlText {
            text: text.as_bytes()[..end].to_vec(),
            fault: Some(YamlFault::new(CONTROL, end, 1, false)),
        },
        None => YamlText { text: text.as_bytes().to_vec(), fault },
    }
}

fn utf16(bytes: &[u8], unit: fn([u8; 2]) -> u16) -> YamlText {
    let (pairs, odd) = bytes.as_chunks::<2>();
    let mut text = String::with_capacity(bytes.len());
    let mut reason = None;
    let mut units = pairs.iter().map(|pair| unit(*pair)).peekable();
    for c in char::decode_utf16(units.by_ref()) {
        match c {
            Ok(c) if is_allowed(c) => text.push(c),
            Ok(_) => reason = Some(CONTROL),
            Err(_) => reason = Some(NOT_UTF16),
        }
        if reason.is_some() {
            break;
        }
    }
    // A character that the end of the file cuts off is not one that is wrong.
    let is_cut = units.peek().is_none() && reason != Some(CONTROL);
    if !odd.is_empty() {
        reason = reason.or(Some(NOT_UTF16));
    }
    let fault = reason.map(|reason| YamlFault::new(reason, text.len(), 2, is_cut));
    YamlText { text: text.into_bytes(), fault }
}

impl YamlFault {
    /// What stands behind `end`, where a character takes `width` bytes of the file. One that is cut off is seen at the end
    /// only, the others with the chunk that they are in.
    fn new(reason: &'static str, end: usize, width: usize, is_cut: bool) -> Self {
        let seen_from = if is_cut { end } else { end * width / CHUNK * CHUNK / width };
        Self { reason, seen_from }
    }
}

/// The characters of YAML 1.1, U+FEFF among them, which `yaml.v3` takes anywhere.
fn is_allowed(c: char) -> bool {
    matches!(
        c,
        '\t' | '\n' | '\r' | ' '..='~' | '\u{85}' | '\u{a0}'..='\u{d7ff}' | '\u{e000}'..='\u{fffd}' | '\u{10000}'..
    )
}
