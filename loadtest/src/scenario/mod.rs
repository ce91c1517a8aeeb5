//! The kinds of load, a file each: a plan, the jobs of its processes, and the report.

pub mod fan_in;
pub mod idle;
pub mod latency;
pub mod own_flood;
pub mod pairs;
pub mod ramp;
pub mod storm;
pub mod stun;
