//! What a file may come to, and errors of one that comes to more, or to nothing.

/// The largest file that is read, in bytes. The map of Tailscale's own relays, all of them, has about 50 KiB.
pub const MAX_BYTES: usize = 4 << 20;

/// The most values that a file may come to, once YAML's aliases are expanded: few bytes can make billions.
pub(super) const MAX_VALUES: usize = 200_000;

/// The deepest nesting. A DERP map has six levels; the rest is room for a policy file.
pub(super) const MAX_DEPTH: usize = 100;

/// Why a text is no document at all.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// More than [`MAX_BYTES`].
    #[error("is larger than {} MiB, which no DERP map is", MAX_BYTES >> 20)]
    TooLarge,
    /// Nothing, or nothing but white space and comments.
    #[error("is empty")]
    Empty,
    /// Text that is neither JSON nor YAML.
    #[error("line {line}: not {language}: {reason}")]
    Syntax {
        /// The line, from 1.
        line: u32,
        /// What it was read as.
        language: &'static str,
        /// What the parser says.
        reason: String,
    },
    /// Nested deeper than any map.
    #[error("line {line}: is nested more than {MAX_DEPTH} levels deep")]
    TooDeep {
        /// The line, from 1.
        line: u32,
    },
    /// More values than any map has.
    #[error("line {line}: comes to more than {MAX_VALUES} values, aliases expanded")]
    TooMany {
        /// The line, from 1.
        line: u32,
    },
}

impl ReadError {
    /// The line that is named, from 1.
    pub(super) fn line(&self) -> Option<u32> {
        match self {
            Self::TooLarge | Self::Empty => None,
            Self::Syntax { line, .. } | Self::TooDeep { line } | Self::TooMany { line } => Some(*line),
        }
    }
}
