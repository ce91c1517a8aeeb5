//! The name of the program that a client is part of, as the client states it.

use std::fmt;

/// The longest name, in bytes.
pub const MAX_APP_NAME: usize = 32;

/// The name of the program that a client is part of: at most [`MAX_APP_NAME`] characters of printable ASCII. It is empty
/// where the client states none, as most do.
///
/// Nothing proves the name. It is passed on to the watchers of a relay, and decides nothing.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct AppName {
    len: u8,
    bytes: [u8; MAX_APP_NAME],
}

impl AppName {
    /// The name with these bytes; `None` if they are no name.
    #[must_use]
    pub fn from_bytes(name: &[u8]) -> Option<Self> {
        let mut bytes = [0; MAX_APP_NAME];
        bytes.get_mut(..name.len())?.copy_from_slice(name);
        let is_printable = name.iter().all(|byte| matches!(byte, b' '..=b'~'));
        is_printable.then_some(Self { len: name.len() as u8, bytes })
    }

    /// The number of characters, which is that of the bytes.
    #[must_use]
    pub const fn len(&self) -> u8 {
        self.len
    }

    /// Whether the client states no name.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The characters.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..self.len.into()]
    }

    /// The name as a text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(self.as_bytes()).expect("a name is ASCII")
    }
}

impl fmt::Debug for AppName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.as_str().fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_short_and_can_be_printed() {
        for name in ["", "some app", "~", "\"quoted\" \\ <b>", &"x".repeat(MAX_APP_NAME)] {
            let read = AppName::from_bytes(name.as_bytes()).expect("a name");
            assert_eq!(
                (read.as_str(), usize::from(read.len()), read.is_empty()),
                (name, name.len(), name.is_empty())
            );
            assert_eq!(format!("{read:?}"), format!("{name:?}"));
        }
        for byte in 0..=0xff {
            let is_name = AppName::from_bytes(&[b'a', byte, b'b']).is_some();
            assert_eq!(is_name, (0x20..0x7f).contains(&byte), "{byte:#x}");
        }
        assert_eq!(AppName::from_bytes("x".repeat(MAX_APP_NAME + 1).as_bytes()), None);
        assert_eq!(AppName::from_bytes("é".as_bytes()), None);
    }
}
