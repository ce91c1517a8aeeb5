//! The machine that the load and the server run on: CPUs, limits, and what the kernel and the server itself count.

pub(crate) mod affinity;
pub(crate) mod open_files;
pub(crate) mod prometheus;
pub(crate) mod server;
pub(crate) mod usage;
