//! The links to relays: one for each region that is used, made when it is needed.

mod link;
mod pause;
mod queue;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use towpath_disco::datagram::Region;

pub(crate) use link::{Link, LinkContext, RelayHealth};

/// The links of an endpoint.
#[derive(Debug)]
pub(crate) struct Links {
    context: Arc<LinkContext>,
    links: Mutex<BTreeMap<Region, Arc<Link>>>,
}

impl Links {
    pub(crate) fn new(context: LinkContext) -> Self {
        Self { context: Arc::new(context), links: Mutex::default() }
    }

    /// The link to a region, which begins to work if it is new. `None` for a region that is not on the map.
    pub(crate) fn get(&self, region: Region) -> Option<Arc<Link>> {
        let mut links = self.lock();
        if let Some(link) = links.get(&region) {
            return Some(link.clone());
        }
        let link = Link::start(&self.context, region)?;
        links.insert(region, link.clone());
        Some(link)
    }

    /// The links that there are.
    pub(crate) fn all(&self) -> Vec<Arc<Link>> {
        self.lock().values().cloned().collect()
    }

    /// Keeps the links to the home and to the standby up, and no others; the relay of the home is told that it is one.
    pub(crate) fn keep(&self, home: Option<Region>, standby: Option<Region>) {
        for region in [home, standby].into_iter().flatten() {
            self.get(region);
        }
        for link in self.all() {
            let region = Some(link.region());
            link.set_use(region == home, region == home || region == standby);
        }
    }

    /// Sends what waits, as far as that does not take long, and closes all links.
    pub(crate) async fn close(&self) {
        for link in self.all() {
            link.close().await;
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<Region, Arc<Link>>> {
        self.links.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
