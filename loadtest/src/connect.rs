//! Many connections at once.

use std::sync::Arc;

use anyhow::{Context, Result};
use sha2::{Digest, Sha256};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use wire::key::NodePrivate;

use crate::link::Link;
use crate::target::Target;

/// Logins at a time: enough to keep a relay busy, too few to run into each other's deadline.
const CONCURRENCY: usize = 32;

/// The secret from which all keys of a run are made, so that each process knows the others' keys without being told.
pub(crate) type Seed = [u8; 16];

/// A fresh seed: no two runs meet under one key.
pub(crate) fn seed() -> Result<Seed> {
    let mut seed = Seed::default();
    getrandom::fill(&mut seed).context("the system gives no randomness")?;
    Ok(seed)
}

/// The key of the client `index` in `role`.
pub(crate) fn key(seed: &Seed, role: &str, index: u32) -> NodePrivate {
    let hash =
        Sha256::new().chain_update(seed).chain_update(index.to_be_bytes()).chain_update(role).finalize();
    NodePrivate::from_random(hash.into())
}

/// Logs all `keys` in. The links come in their order.
pub(crate) fn connect_all(target: &Target, keys: Vec<NodePrivate>) -> Result<Vec<Link>> {
    runtime()?.block_on(async {
        let dialer = Arc::new(target.dialer()?);
        let slots = Arc::new(Semaphore::new(CONCURRENCY));
        let mut logins = JoinSet::new();
        for (index, key) in keys.into_iter().enumerate() {
            let (dialer, slot) = (dialer.clone(), slots.clone().acquire_owned());
            logins.spawn(async move {
                let _slot = slot.await;
                let client = dialer.connect(&key).await?;
                anyhow::Ok((index, Link::new(client)?))
            });
        }
        let mut links = Vec::with_capacity(logins.len());
        while let Some(login) = logins.join_next().await {
            let count = links.len();
            links.push(login?.with_context(|| format!("connecting, after {count} that succeeded"))?);
        }
        links.sort_unstable_by_key(|(index, _)| *index);
        Ok(links.into_iter().map(|(_, link)| link).collect())
    })
}

/// A runtime on the calling thread.
pub(crate) fn runtime() -> Result<tokio::runtime::Runtime> {
    Ok(tokio::runtime::Builder::new_current_thread().enable_all().build()?)
}
