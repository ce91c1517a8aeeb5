//! The two sides of a WebSocket. What a client sends is masked, what a server sends is not (RFC 6455 section 5.1).

/// A side of a WebSocket: [`Server`] or [`Client`].
pub trait Role: Masking {}

/// The side that accepts.
#[derive(Debug)]
pub enum Server {}

/// The side that dials.
#[derive(Debug)]
pub enum Client {}

impl Role for Server {}
impl Role for Client {}

/// Which frames a side expects. The module is private, so no other crate can add a side.
pub trait Masking {
    /// Whether the frames that this side receives are masked.
    const RECEIVES_MASKED: bool;
}

impl Masking for Server {
    const RECEIVES_MASKED: bool = true;
}

impl Masking for Client {
    const RECEIVES_MASKED: bool = false;
}
