//! The clock of the data plane.

use towpath_wire::time::Instant;

/// Nanoseconds since the process set up its data plane.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock(std::time::Instant);

impl Clock {
    pub(crate) fn start() -> Self {
        Self(std::time::Instant::now())
    }

    pub(crate) fn now(self) -> Instant {
        Instant::from(self.0.elapsed())
    }
}
