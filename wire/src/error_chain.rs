//! An error with its causes, for the line that an operator reads.

use std::error::Error;
use std::fmt;

/// An error and each of its sources, from the outermost to the first cause, with `: ` between. `Display` of an error
/// speaks of its own layer only, so that a line that names them all repeats none.
#[derive(Clone, Copy, Debug)]
pub struct ErrorChain<'a>(pub &'a dyn Error);

impl fmt::Display for ErrorChain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)?;
        let mut cause = self.0.source();
        while let Some(error) = cause {
            write!(f, ": {error}")?;
            cause = error.source();
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("cannot read the key")]
    struct Outer(#[source] std::io::Error);

    #[test]
    fn every_layer_is_printed_once() {
        let error = Outer(std::io::Error::other("the disk is gone"));
        assert_eq!(ErrorChain(&error).to_string(), "cannot read the key: the disk is gone");
        assert_eq!(ErrorChain(&fmt::Error).to_string(), fmt::Error.to_string());
    }
}
