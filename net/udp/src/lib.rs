//! Batched UDP sockets that answer from the address that was asked.
