//! What the scanner makes of a text and the composer takes.

/// A position in the text.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct YamlMark {
    /// In characters.
    pub(super) index: usize,
    /// From 0, as YAML counts, to which NEL, LS and PS end a line, too.
    pub(super) line: usize,
    /// The lines in front, as editors count.
    pub(super) line_feeds: usize,
    /// In characters, from 0.
    pub(super) column: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum YamlStyle {
    /// Without quotes.
    Plain,
    /// In quotes, or as a block.
    Other,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum TokenKind {
    StreamStart,
    StreamEnd,
    /// `%YAML 1.1`
    Version(u8, u8),
    /// `%TAG handle prefix`
    TagPrefix(Vec<u8>, Vec<u8>),
    /// `---`
    DocumentStart,
    /// `...`
    DocumentEnd,
    BlockSequenceStart,
    BlockMappingStart,
    BlockEnd,
    FlowSequenceStart,
    FlowSequenceEnd,
    FlowMappingStart,
    FlowMappingEnd,
    BlockEntry,
    FlowEntry,
    Key,
    Value,
    Alias(Vec<u8>),
    Anchor(Vec<u8>),
    /// A handle, which may be empty, and what follows it.
    Tag(Vec<u8>, Vec<u8>),
    Scalar(Vec<u8>, YamlStyle),
}

#[derive(Clone, Debug)]
pub(super) struct YamlToken {
    pub(super) kind: TokenKind,
    /// Where it begins.
    pub(super) start: YamlMark,
}
