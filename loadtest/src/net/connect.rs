//! Logins of many clients, with keys that every process of a run can derive.

use std::sync::Arc;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use crate::net::dial::Connector;
use crate::net::link::RelayLink;
use crate::protocol::{ClientKey, RelayProtocol};
use crate::target::LoadTarget;

/// How many logins run at a time: enough to keep a relay busy, and few enough that each meets its deadline.
const CONCURRENCY: usize = 32;

/// The role of the clients that send flows.
pub(crate) const SENDER: &str = "sender";
/// The role of the clients that receive flows.
pub(crate) const RECEIVER: &str = "receiver";

/// The secret that all keys of a run are derived from, so that each process knows the keys of the others.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct KeySeed {
    pub(crate) secret: [u8; 16],
    protocol: RelayProtocol,
}

impl KeySeed {
    /// Makes a random seed, so that no two runs use the same keys.
    pub(crate) fn new(target: &LoadTarget) -> Result<Self> {
        let mut secret = [0; 16];
        getrandom::fill(&mut secret).context("getting random bytes from the system")?;
        Ok(Self { secret, protocol: target.protocol })
    }

    /// Derives the key of the client `index` in `role`.
    pub(crate) fn key(&self, role: &str, index: u32) -> ClientKey {
        let hash = Sha256::new()
            .chain_update(self.secret)
            .chain_update(index.to_be_bytes())
            .chain_update(role)
            .finalize();
        ClientKey::from_random(self.protocol, hash.into())
    }
}

/// The order in which the clients of a process log in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum LoginOrder {
    /// Many clients at a time, in any order.
    Together,
    /// One client after the other, from the one at this index to the last, then the ones before it.
    InTurn(usize),
}

/// Logs in a client for each key. Returns the links in the order of the keys.
pub(crate) fn connect_all(
    target: &LoadTarget,
    keys: Vec<ClientKey>,
    logins: LoginOrder,
) -> Result<Vec<RelayLink>> {
    let connector = Connector::new(target)?;
    runtime()?.block_on(async {
        match logins {
            LoginOrder::Together => connect_together(connector, keys).await,
            LoginOrder::InTurn(first) => connect_in_turn(&connector, keys, first).await,
        }
    })
}

async fn connect_together(connector: Connector, keys: Vec<ClientKey>) -> Result<Vec<RelayLink>> {
    let connector = Arc::new(connector);
    let slots = Arc::new(Semaphore::new(CONCURRENCY));
    let mut logins = JoinSet::new();
    for (index, key) in keys.into_iter().enumerate() {
        let (connector, slot) = (connector.clone(), slots.clone().acquire_owned());
        logins.spawn(async move {
            let _slot = slot.await;
            anyhow::Ok((index, connector.connect(&key).await?))
        });
    }
    let mut links = Vec::with_capacity(logins.len());
    while let Some(login) = logins.join_next().await {
        let count = links.len();
        links.push(login?.with_context(|| format!("connecting, after {count} successful logins"))?);
    }
    links.sort_unstable_by_key(|(index, _)| *index);
    Ok(links.into_iter().map(|(_, link)| link).collect())
}

async fn connect_in_turn(
    connector: &Connector,
    mut keys: Vec<ClientKey>,
    first: usize,
) -> Result<Vec<RelayLink>> {
    let first = first.min(keys.len());
    keys.rotate_left(first);
    let mut links = Vec::with_capacity(keys.len());
    for key in &keys {
        links.push(connector.connect(key).await?);
    }
    links.rotate_right(first);
    Ok(links)
}

/// Builds a runtime for the calling thread.
pub(crate) fn runtime() -> Result<tokio::runtime::Runtime> {
    Ok(tokio::runtime::Builder::new_current_thread().enable_all().build()?)
}
