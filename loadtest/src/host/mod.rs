//! The machine: scheduling and limits of the load's processes, and the usage of load and server.

pub(crate) mod affinity;
pub(crate) mod open_files;
pub(crate) mod prometheus;
pub(crate) mod server;
pub(crate) mod usage;
