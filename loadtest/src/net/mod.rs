//! Connections to the relay: dialled, logged in, read and written without blocking.

pub(crate) mod alarm;
pub(crate) mod connect;
pub(crate) mod dial;
pub(crate) mod link;
pub(crate) mod poll;
