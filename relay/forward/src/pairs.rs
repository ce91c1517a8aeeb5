//! A cache of the pairs of sender and destination whose packets came over one link. One link carries packets of many
//! senders.
//!
//! A destination must be subscribed once to the departure of a sender. The destination of a cached pair is subscribed.

use std::sync::Arc;

use crate::key::RouteKey;
use crate::peer::Peer;
use crate::registry::Registry;
use crate::routes::{PeerRoute, leads_to};
use crate::unannounced::Epoch;

/// The cache of one link, empty until a packet comes.
#[derive(Debug, Default)]
pub(crate) struct PairCache(Option<Box<[Option<Pair>]>>);

#[derive(Debug)]
struct Pair {
    from: RouteKey,
    to: Arc<Peer>,
    /// The route to the sender, or the epoch in which it was found to be unannounced. As long as either is current, the
    /// subscription of `to` holds.
    sender: Result<PeerRoute, Epoch>,
}

impl Pair {
    fn is_current(&self, from: &RouteKey, to: &RouteKey, registry: &Registry) -> bool {
        self.from == *from
            && self.to.key == *to
            && self.to.is_active()
            && match &self.sender {
                Ok(route) => leads_to(route, from),
                Err(epoch) => *epoch == registry.epoch(),
            }
    }
}

impl PairCache {
    /// 64 KiB for each link.
    const SIZE: usize = 1024;

    fn index(from: &RouteKey, to: &RouteKey) -> usize {
        let [a, b, ..] = *from.as_bytes();
        let [c, d, ..] = *to.as_bytes();
        usize::from(u16::from_be_bytes([a, b]) ^ u16::from_be_bytes([d, c])) % Self::SIZE
    }

    /// The connection of `to`, if it is here. It is subscribed to the departure of `from`.
    #[inline]
    pub(crate) fn find(&mut self, from: &RouteKey, to: &RouteKey, registry: &Registry) -> Option<&Arc<Peer>> {
        let index = Self::index(from, to);
        let all = self.0.get_or_insert_with(|| (0..Self::SIZE).map(|_| None).collect());
        if !all[index].as_ref().is_some_and(|pair| pair.is_current(from, to, registry)) {
            let to = registry.find_local(to)?;
            let sender = registry.subscribe(from, &to);
            all[index] = Some(Pair { from: *from, to, sender });
        }
        all[index].as_ref().map(|pair| &pair.to)
    }
}
