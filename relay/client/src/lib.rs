//! Dialling a DERP relay: TLS with a pin, upgrade with and without fast start, login, frames.
