//! Where a peer is reached: the region that is known of it, the one in which it was heard, or those in which it is looked for.

use std::time::Duration;

use towpath_wire::time::Instant;

use super::Peer;
use crate::context::Context;
use crate::datagram::Region;

/// Regions that are asked at a time.
const AT_ONCE: usize = 2;
/// How long a peer that was in none of the regions is not looked for again.
const NOT_FOUND: Duration = Duration::from_secs(60);

/// The regions in which a peer has been looked for.
#[derive(Clone, Debug, Default)]
pub(super) struct Search {
    /// The regions whose relay has said that the peer is not there.
    gone: Vec<Region>,
    /// When the last one of all regions said so.
    ended: Option<Instant>,
}

impl Peer {
    /// Notes that a packet of the peer came over a relay.
    pub(crate) fn hear_in(&mut self, region: Region) {
        self.heard_in = Some(region);
        self.search = Search::default();
    }

    /// Looks for a peer again that was in no region.
    pub(super) fn search_again(&mut self, now: Instant) {
        if self.search.ended.is_some_and(|at| now.since(at) >= NOT_FOUND) {
            self.search = Search::default();
        }
    }

    /// The regions to which an offer goes: the one in which the peer is reached; else two in which it may be.
    pub(super) fn regions(&self, ctx: &Context) -> Vec<Region> {
        match self.known_region(ctx) {
            Some(region) => vec![region],
            None => self.searched(ctx).take(AT_ONCE).collect(),
        }
    }

    /// The region over which data goes.
    pub(super) fn relay(&self, ctx: &Context) -> Option<Region> {
        let known = self.known_region(ctx);
        known.or_else(|| self.searched(ctx).next()).or_else(|| ctx.links.keys().next().copied())
    }

    /// The region of the peer, or the one in which it was heard last, if the relay can be reached.
    fn known_region(&self, ctx: &Context) -> Option<Region> {
        [self.region, self.heard_in].into_iter().flatten().find(|region| !ctx.is_lost(*region))
    }

    fn searched<'a>(&'a self, ctx: &'a Context) -> impl Iterator<Item = Region> + 'a {
        let is_left = |region: &Region| !self.search.gone.contains(region) && !ctx.is_lost(*region);
        ctx.regions.iter().copied().filter(is_left)
    }

    /// Takes the word of a relay that the peer is not connected to it, and looks in the next region.
    pub(crate) fn gone_from(&mut self, region: Region, now: Instant, ctx: &mut Context) {
        if self.heard_in == Some(region) {
            self.heard_in = None;
        }
        // What a peer has said of its region may be old. What a control plane says is not changed by a peer that is away.
        if self.region == Some(region) && self.disco.as_ref().is_none_or(|disco| !disco.is_given) {
            self.region = None;
        }
        let is_asked = ctx.regions.contains(&region) && !self.search.gone.contains(&region);
        if self.known_region(ctx).is_some() || self.search.ended.is_some() || !is_asked {
            return;
        }
        let asked = self.regions(ctx);
        self.search.gone.push(region);
        let next = self.regions(ctx).into_iter().find(|region| !asked.contains(region));
        match next {
            Some(next) => self.offer_in(next, None, now, ctx),
            None if self.search.gone.len() >= ctx.regions.len() => self.search.ended = Some(now),
            None => {}
        }
    }
}
