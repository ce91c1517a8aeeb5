//! The ports that the protocols have where none is given.

/// The TCP port of HTTP without TLS (RFC 9110 section 4.2.1).
pub const HTTP: u16 = 80;
/// The TCP port of HTTPS (RFC 9110 section 4.2.2), and so of DERP.
pub const HTTPS: u16 = 443;
/// The UDP port of STUN (RFC 8489 section 18.6).
pub const STUN: u16 = 3478;
