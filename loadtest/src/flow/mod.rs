//! Packets from one client to another: what is in them, when they are due, how they are sent, and what became of them.

pub(crate) mod ack;
pub(crate) mod packet;
pub(crate) mod receiver;
pub(crate) mod schedule;
pub(crate) mod sender;
pub(crate) mod sequence;
