//! Places on the internet of a laboratory.

/// A place between which packets take time. NATs and servers stand at one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Site(pub(crate) u16);
