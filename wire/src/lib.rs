//! Keys, sealed boxes, DERP frames, DERP maps and time: what every Towpath program agrees on.
//!
//! Pure: no sockets, no clock, no source of randomness. Everything that reads bytes from a network returns an error for
//! each malformed input and panics on none.

pub mod derp;
pub mod disco;
mod error_chain;
mod hex;
pub mod host;
pub mod key;
mod labels;
pub mod map;
pub mod pin;
pub mod pool;
pub mod ports;
pub mod rate;
pub mod sealed;
mod secret;
pub mod sync;
pub mod time;

pub use error_chain::ErrorChain;
