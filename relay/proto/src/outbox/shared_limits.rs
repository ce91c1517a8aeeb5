//! Bounds of outboxes that may be replaced while connections come and go.

use std::sync::{Arc, RwLock};

use towpath_wire::sync::{read, write};

use super::Limits;

/// The bounds that the next connections get. A connection keeps those that it began with. Clones share them.
#[derive(Clone, Debug)]
pub struct SharedLimits(Arc<RwLock<Arc<Limits>>>);

impl SharedLimits {
    /// These bounds, until they are replaced.
    #[must_use]
    pub fn new(limits: Limits) -> Self {
        Self(Arc::new(RwLock::new(Arc::new(limits))))
    }

    /// The bounds that a connection gets which comes now. Connections that get the same share them.
    #[must_use]
    pub fn current(&self) -> Arc<Limits> {
        read(&self.0).clone()
    }

    /// Replaces the bounds.
    pub fn replace(&self, limits: Limits) {
        *write(&self.0) = Arc::new(limits);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_connection_keeps_the_bounds_that_it_began_with() {
        let limits = |bytes| Limits {
            bytes,
            packets: 1,
            disco_bytes: 1,
            age: Duration::from_secs(1),
            hold_above: bytes,
        };
        let shared = SharedLimits::new(limits(1));
        let (other, first) = (shared.clone(), shared.current());
        shared.replace(limits(2));
        assert_eq!((first.bytes, shared.current().bytes, other.current().bytes), (1, 2, 2));
    }
}
