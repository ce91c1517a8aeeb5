//! Pings: whether a peer answers, by which way, and how long that takes.

use std::net::SocketAddr;
use std::time::Duration;

use serde::Serialize;
use tokio::sync::broadcast::error::RecvError;
use tokio::time::{Instant, sleep, timeout_at};
use towpath_disco::datagram::Received;
use towpath_wire::key::NodePublic;

use crate::endpoint::{Endpoint, SendError};

/// How long an answer is waited for.
const PATIENCE: Duration = Duration::from_secs(5);
/// How often it is looked whether the peer has introduced itself, so that it can be asked.
const LOOK: Duration = Duration::from_millis(20);

/// The answer of a peer to a ping.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Pong {
    /// The way by which the ping went and the answer came.
    #[serde(flatten)]
    pub via: PongVia,
    /// The time between them. Serialised as microseconds.
    #[serde(rename = "rtt_us", serialize_with = "as_micros")]
    pub took: Duration,
}

/// The way of a ping.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum PongVia {
    /// Directly, at this address of the peer.
    Address(SocketAddr),
    /// Over the relay of the region with this number.
    Region(u16),
}

/// Why a ping has no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PingError {
    /// The ping cannot be sent.
    #[error(transparent)]
    Send(#[from] SendError),
    /// The peer has not introduced itself over any relay: it does not run, or cannot be reached in the regions in which it was looked
    /// for, or does not know this endpoint.
    #[error(
        "the peer is not heard over any relay: see that it runs, that it has a relay of the same map, and that it knows this key"
    )]
    NotHeard,
    /// The answer has not come in time.
    #[error("no answer within {} s", PATIENCE.as_secs())]
    Timeout,
}

impl From<Received> for PongVia {
    fn from(way: Received) -> Self {
        match way {
            Received::Udp { remote } => Self::Address(remote),
            Received::Relay { region, .. } => Self::Region(region.0),
        }
    }
}

impl Endpoint {
    /// Asks a peer for an answer, by the way that packets to it take now, and begins to make that direct if it is not. Stock clients
    /// answer, too. Waits for 5 s at most.
    ///
    /// # Errors
    ///
    /// See [`PingError`].
    pub async fn ping(&self, peer: &NodePublic) -> Result<Pong, PingError> {
        self.watch_path(peer)?;
        let shared = self.shared();
        let (deadline, mut pongs) = (Instant::now() + PATIENCE, shared.pongs.subscribe());
        while !shared.call(|node, now| node.ping(now, peer)) {
            if Instant::now() >= deadline {
                return Err(PingError::NotHeard);
            }
            sleep(LOOK).await;
        }
        loop {
            match timeout_at(deadline, pongs.recv()).await {
                Ok(Ok((from, pong))) if from == *peer => return Ok(pong),
                Ok(Ok(_) | Err(RecvError::Lagged(_))) => {}
                Ok(Err(RecvError::Closed)) => return Err(SendError::Closed.into()),
                Err(_) => return Err(PingError::Timeout),
            }
        }
    }
}

fn as_micros<S: serde::Serializer>(took: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_u64(u64::try_from(took.as_micros()).unwrap_or(u64::MAX))
}
