//! The spellings in which a reader takes a name.

/// Whether Go's JSON takes what is written for a name: in any case, also where a letter has a third form.
pub(super) fn is_name(written: &str, name: &str) -> bool {
    let folded = |c: char| match c {
        '\u{17f}' => 's',
        '\u{212a}' => 'k',
        c => c.to_ascii_lowercase(),
    };
    written.chars().map(folded).eq(name.chars().map(folded))
}
