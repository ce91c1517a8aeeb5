//! The simulated internet in real time: endpoints of this process send their datagrams through it, as if they were behind NATs and far
//! from each other. Relays are real ones, at the end of a [`SlowStream`] that takes as long as the way to them would.

#![forbid(unsafe_code)]

mod internet;
mod local_relay;
mod pipe;
mod slow_stream;

pub use internet::{Internet, SimDatagrams};
pub use local_relay::{LocalRelay, map_of};
pub use slow_stream::SlowStream;
