//! One input as a stream that arrives in pieces.

/// A stream, whole and in the pieces in which it arrives.
pub(crate) struct CutStream<'a> {
    pub(crate) whole: &'a [u8],
    lengths: &'a [u8],
}

impl<'a> CutStream<'a> {
    /// Takes an input apart: how many cuts there are, the length of the piece before each, and the stream.
    pub(crate) fn of(input: &'a [u8]) -> Self {
        let (&cuts, rest) = input.split_first().unwrap_or((&0, &[]));
        let (lengths, whole) = rest.split_at(usize::from(cuts % 8).min(rest.len()));
        Self { whole, lengths }
    }

    /// The pieces, of which some may be empty.
    pub(crate) fn pieces(&self) -> Vec<&'a [u8]> {
        let mut pieces = Vec::new();
        let mut rest = self.whole;
        for &length in self.lengths {
            let (piece, later) = rest.split_at(usize::from(length).min(rest.len()));
            pieces.push(piece);
            rest = later;
        }
        pieces.push(rest);
        pieces
    }
}
