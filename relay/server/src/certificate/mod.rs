//! The certificate that the relay shows: its files, what clients will make of it, and its replacement while the relay runs.
//!
//! - `pair.rs`: a chain and its key, read from the files that `cert` and `key` name.
//! - `judge.rs`: names, dates and chain as a client sees them.
//! - `self_signed.rs`: the pair that the relay makes and keeps by itself.
//! - `shown.rs`: what TLS shows, and the metrics of it.
//! - `renewal.rs`: the files when they are read again, and the task that warns of the end.

mod judge;
mod pair;
mod renewal;
mod self_signed;
mod shown;

pub use pair::CertificateError;
pub(crate) use pair::{Certificate, Expected, Fault, pin, pin_of_file};
pub(crate) use renewal::Renewal;
pub(crate) use self_signed::{CLOCK_SKEW, LIFE as SELF_SIGNED_LIFE, SelfSigned, throw_away};
pub(crate) use shown::{ShownCertificate, register_expiry};

#[cfg(test)]
mod tests;
