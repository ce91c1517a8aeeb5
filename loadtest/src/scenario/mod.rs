//! The kinds of load, a file each: a plan, the jobs of its processes, and the report.

pub mod idle;
pub mod pairs;
pub mod ramp;
pub mod storm;
