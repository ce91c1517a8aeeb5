//! Packets from one client to another: their content, when they are due, how they are sent, and what arrived.

pub(crate) mod ack;
pub(crate) mod arrivals;
pub(crate) mod job;
pub(crate) mod packet;
pub(crate) mod receiver;
pub(crate) mod schedule;
pub(crate) mod sender;
pub(crate) mod sequence;
