//! The clock of an endpoint: the time that the state machine is told.

use std::time::Duration;

use tokio::time;
use towpath_wire::time::Instant;

/// A clock that begins with the endpoint. It is tokio's, so that it stands still where a test says so.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock(time::Instant);

impl Clock {
    pub(crate) fn start() -> Self {
        Self(time::Instant::now())
    }

    pub(crate) fn now(self) -> Instant {
        Instant::from(self.0.elapsed())
    }

    /// The time of the runtime at a time of this clock.
    pub(crate) fn at(self, time: Instant) -> time::Instant {
        self.0 + Duration::from_nanos(time.as_nanos())
    }
}
