//! Endpoints in this process, with real relays, behind simulated NATs.

mod netcheck;
mod paths;
mod settings;
mod support;
