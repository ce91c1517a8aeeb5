//! Files of golden bytes: a line is a name and hexadecimal digits, or a comment.

use std::collections::HashMap;

/// Bytes by their names.
pub(crate) type Vectors = HashMap<&'static str, Vec<u8>>;

/// Reads a file of golden bytes.
pub(crate) fn read(text: &'static str) -> Vectors {
    text.lines()
        .filter(|line| !line.starts_with('#'))
        .filter_map(|line| line.split_once(" = "))
        .map(|(name, hex)| {
            let bytes = (0..hex.len()).step_by(2).map(|i| u8::from_str_radix(&hex[i..i + 2], 16).unwrap());
            (name, bytes.collect())
        })
        .collect()
}
