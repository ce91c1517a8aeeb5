//! The backends of admission: programs outside of the relay that say whether a key may use it.
//!
//! - `verify_url.rs`: a URL that speaks derper's contract, as Headscale's `/verify` does (`docs/protocol/verify.md`).
//! - `tailscaled.rs`: the local tailscaled, over its socket.
//!
//! Both ask through a desk (`desk.rs`), which bounds what a backend is asked and what a dead one costs: one request for
//! each key, 64 over all, a deadline over everything, and a pause (`circuit.rs`) while nothing answers. `pool.rs` keeps
//! connections, `connect.rs` makes them. Only a well-formed answer of the backend allows or refuses. Everything else,
//! each with a label of its own, means that the backend cannot tell (`failure.rs`).

use std::future::Future;
use std::pin::Pin;

use towpath_relay_proto::admission::Answer;

use super::{Backend, Question};

mod circuit;
mod connect;
mod desk;
mod failure;
mod metrics;
mod notices;
mod pool;
mod setup;
mod tailscaled;
mod verify_url;

#[cfg(test)]
mod tests;

pub(crate) use failure::BackendFailure;
#[cfg(test)]
pub(crate) use metrics::ANSWERS;
pub(crate) use metrics::BackendMetrics;
pub(crate) use setup::VerifySetup;
pub use setup::VerifySetupError;
pub(crate) use tailscaled::Tailscaled;
pub(crate) use verify_url::VerifyUrl;

/// What a backend says of a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Told {
    /// The client may use the relay.
    Allow,
    /// The client may not.
    Refuse,
    /// The backend has given no answer that counts.
    CannotTell(BackendFailure),
}

impl From<Told> for Answer {
    fn from(told: Told) -> Self {
        match told {
            Told::Allow => Self::Allow,
            Told::Refuse => Self::Refuse,
            Told::CannotTell(_) => Self::CannotTell,
        }
    }
}

impl Backend for VerifyUrl {
    fn ask(&self, question: Question) -> Pin<Box<dyn Future<Output = Answer> + Send + '_>> {
        Box::pin(async move { self.told(question).await.into() })
    }
}

impl Backend for Tailscaled {
    fn ask(&self, question: Question) -> Pin<Box<dyn Future<Output = Answer> + Send + '_>> {
        Box::pin(async move { self.told(question).await.into() })
    }
}
