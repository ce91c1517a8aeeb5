//! NATs: as data, by class, and at work.

mod class;
mod gateway;
mod model;
mod table;
#[cfg(test)]
mod tests;

pub use class::{Class, UnknownClass};
pub(crate) use gateway::{GATEWAY_PORT, answer};
pub use model::{Allocator, Dependence, Early, Egress, Gateway, Nat, Pooling, Refresh};
pub(crate) use table::Table;
