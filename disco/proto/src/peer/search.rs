//! Where a peer is reached: the region that is known of it, the one in which it was heard, or those in which it is looked for.

use std::time::Duration;

use towpath_wire::time::Instant;

use super::Peer;
use crate::context::Context;
use crate::datagram::Region;
use crate::links::Answering;

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
    pub(super) fn regions(&self, now: Instant, ctx: &Context) -> Vec<Region> {
        match self.relays(now, ctx) {
            (Some(region), standby) if self.is_known(region) => [region].into_iter().chain(standby).collect(),
            _ => self.searched(now, ctx).take(AT_ONCE).collect(),
        }
    }

    /// The region over which data goes, and another one while the first does not answer.
    pub(super) fn relays(&self, now: Instant, ctx: &Context) -> (Option<Region>, Option<Region>) {
        let mut known = self.known_regions(now, ctx);
        let Some(first) = known.next() else {
            return (self.searched(now, ctx).next().or_else(|| ctx.links.first_up()), None);
        };
        let mut others = known.filter(|region| ctx.links.answering(*region, now) == Answering::Yes);
        match ctx.links.answering(first, now) {
            Answering::Yes => (Some(first), None),
            Answering::Silent => (Some(first), others.next()),
            Answering::No => (others.next().or(Some(first)), None),
        }
    }

    fn is_known(&self, region: Region) -> bool {
        [self.region, self.heard_in, self.standby].contains(&Some(region))
    }

    /// The regions in which the peer is reached, the best first: its home, the one in which it was heard last, and the one that it
    /// keeps ready. None whose relay cannot be reached.
    fn known_regions(&self, now: Instant, ctx: &Context) -> impl Iterator<Item = Region> {
        let known = [self.region, self.heard_in, self.standby];
        (0..known.len()).filter_map(move |at| {
            known[at].filter(|region| !known[..at].contains(&Some(*region)) && !ctx.is_lost(*region, now))
        })
    }

    fn searched<'a>(&'a self, now: Instant, ctx: &'a Context) -> impl Iterator<Item = Region> + 'a {
        let is_left = move |region: &Region| !self.search.gone.contains(region) && !ctx.is_lost(*region, now);
        ctx.searched.iter().copied().filter(is_left)
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
        if self.standby == Some(region) {
            self.standby = None;
        }
        let is_asked = ctx.searched.contains(&region) && !self.search.gone.contains(&region);
        if self.known_regions(now, ctx).next().is_some() || self.search.ended.is_some() || !is_asked {
            return;
        }
        let asked = self.regions(now, ctx);
        self.search.gone.push(region);
        let next = self.regions(now, ctx).into_iter().find(|region| !asked.contains(region));
        match next {
            Some(next) => self.offer_in(next, None, now, ctx),
            None if self.search.gone.len() >= ctx.searched.len() => self.search.ended = Some(now),
            None => {}
        }
    }
}
