//! The STUN server as a library: batched UDP, one thread.
