//! What has changed of a peer that is known already: by the word of a control plane, or because the peer has started anew.

use towpath_wire::disco::key::DiscoPublic;
use towpath_wire::sealed::SharedKey;
use towpath_wire::time::Instant;

use super::search::Search;
use super::{Disco, Peer, SizeProbes};
use crate::candidates::Candidates;
use crate::config::PeerConfig;
use crate::context::Context;
use crate::event::Event;

impl Disco {
    /// The disco key that a control plane names.
    pub(super) fn named(public: DiscoPublic, ctx: &Context) -> Self {
        Self { shared: SharedKey::of_disco(&ctx.disco, &public), public, is_given: true, is_proven: true }
    }
}

impl Peer {
    /// Takes what a control plane says of the peer now. What has not changed leaves the path as it is; what the peer has said
    /// itself, and where it was heard, stays in any case.
    pub(crate) fn update(&mut self, config: &PeerConfig, now: Instant, ctx: &mut Context) {
        let has_moved = std::mem::replace(&mut self.named_region, config.region) != config.region;
        if has_moved {
            // A peer without a control plane may have said where it is now.
            self.region = config.region.or(self.region.filter(|_| config.disco.is_none()));
            self.search = Search::default();
        }
        if std::mem::replace(&mut self.is_relay_only, config.is_relay_only) != config.is_relay_only {
            self.leave(now, ctx);
        }
        // A relay may have said that the peer was not there.
        self.region = self.region.or(config.region);
        if self.candidates.configure(config.probed(), now) || has_moved {
            (self.attempts, self.fires, self.retry_at) = (0, 0, now);
        }
        self.take_disco(config.disco.filter(DiscoPublic::is_contributory), now, ctx);
    }

    /// Forgets the direct path, and what could lead to one.
    fn leave(&mut self, now: Instant, ctx: &mut Context) {
        self.candidates = Candidates::default();
        self.probes.clear();
        self.bursts.clear();
        (self.met, self.fire_at, self.attempts, self.retry_at) = (None, None, 0, now);
        if self.path.take().is_some() {
            ctx.tell(Event::Relayed { peer: self.key });
        }
    }

    fn take_disco(&mut self, named: Option<DiscoPublic>, now: Instant, ctx: &mut Context) {
        match (&mut self.disco, named) {
            (Some(known), Some(named)) if known.public == named => {
                (known.is_given, known.is_proven) = (true, true);
            }
            // It came with a hello.
            (Some(known), None) if !known.is_given => {}
            (None, None) => {}
            (known, named) => {
                *known = named.map(|public| Disco::named(public, ctx));
                self.start_anew(now, ctx);
            }
        }
    }

    /// Does what follows from another disco key: the peer has started anew, maybe at another address, and answers no probe that
    /// was sealed for the old one. Data goes over the relay as well until one is answered.
    pub(super) fn start_anew(&mut self, now: Instant, ctx: &mut Context) {
        self.probes.clear();
        self.sizes = SizeProbes::default();
        (self.attempts, self.fires, self.fired, self.retry_at) = (0, 0, None, now);
        if self.disco.is_none() {
            // Nothing can be sent to it before its hello comes.
            self.bursts.clear();
            if self.path.take().is_some() {
                ctx.tell(Event::Relayed { peer: self.key });
            }
        }
        if let Some(path) = &mut self.path {
            path.suspect(now);
            let address = path.address;
            self.probe(address, None, now, ctx);
        }
    }
}
