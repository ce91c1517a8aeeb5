//! Endpoints in this process, with real relays, behind simulated NATs.

mod paths;
mod support;
