//! A DERP relay with STUN: forwards encrypted packets between WireGuard keys.
