//! The lines of a file: what each says.

/// The longest name that may be one, in bytes. The longest one is PersistentKeepalive.
const NAME_MAX: usize = 24;

/// A line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Line<'a> {
    Empty,
    /// `[Peer]`
    Section(&'a str),
    /// `Address = 10.0.0.1/24`
    Setting(&'a str, &'a str),
    /// `# name = dev`, which WireGuard does not read.
    Note(&'a str, &'a str),
    /// None of these.
    Other,
}

impl<'a> Line<'a> {
    /// Reads a line as wg-quick does, to which all behind `#` is a comment.
    pub(super) fn read(text: &'a str) -> Self {
        let (said, comment) = text.split_once('#').map_or((text, None), |(said, after)| (said, Some(after)));
        let said = said.trim();
        if said.is_empty() {
            let note = comment.and_then(setting);
            return note.map_or(Self::Empty, |(name, value)| Self::Note(name, value));
        }
        if let Some(section) = said.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            return Self::Section(section.trim());
        }
        setting(said).map_or(Self::Other, |(name, value)| Self::Setting(name, value))
    }
}

/// A name and a value. What is no word in place of the name is none: it may be a key whose own `=` was taken for that of the setting, and
/// a name that is not known is repeated in a message.
fn setting(text: &str) -> Option<(&str, &str)> {
    let (name, value) = text.split_once('=')?;
    let name = name.trim();
    let is_word = name.len() <= NAME_MAX && name.bytes().all(|letter| letter.is_ascii_alphanumeric());
    is_word.then_some((name, value.trim()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_read_as_wg_quick_reads_them() {
        for (text, line) in [
            ("  ", Line::Empty),
            ("# the laptop", Line::Empty),
            (" [Peer]  # dev", Line::Section("Peer")),
            ("PublicKey=abc=", Line::Setting("PublicKey", "abc=")),
            ("MTU = 1420 # of the path", Line::Setting("MTU", "1420")),
            ("#name=dev", Line::Note("name", "dev")),
            ("  # Name = dev ", Line::Note("Name", "dev")),
            ("[Peer", Line::Other),
            ("what", Line::Other),
            ("PrivateKey yAnz5TF+lXXJte14tji3zlMNq+hd2rYUIgJBgB3fBmk=", Line::Other),
            ("PrivateKeyyAnz5TFalXXJte14tji3zlMNqahd2rYUIgJBgB3fBmk=", Line::Other),
            ("# see a = b", Line::Empty),
        ] {
            assert_eq!(Line::read(text), line, "{text}");
        }
    }
}
