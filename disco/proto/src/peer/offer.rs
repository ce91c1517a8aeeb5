//! Offers: how two peers learn of each other's addresses over a relay, and when they fire.

use std::net::SocketAddr;
use std::time::Duration;

use towpath_wire::disco::key::DiscoPublic;
use towpath_wire::disco::message::Message;
use towpath_wire::disco::packet::seal;
use towpath_wire::sealed::SharedKey;
use towpath_wire::time::Instant;

use super::path::Path;
use super::technique::Technique;
use super::{ACTIVE, Disco, FIRED, Peer, RETRIES};
use crate::MappingClass;
use crate::candidates::{MOST_OFFERED, Origin, is_local, may_be_probed};
use crate::context::Context;
use crate::datagram::{Region, Transmit};
use crate::hello::{Challenge, Hello};

/// How long a challenge may be answered.
const ECHO_LIFETIME: Duration = Duration::from_secs(30);
/// How long a challenge is used for further hellos, so that each has time for its answer.
const CHALLENGE_USED: Duration = Duration::from_secs(10);
/// Hellos of a peer are answered this far apart at least, unless one shows that it is no recording.
const ANSWERS: Duration = Duration::from_millis(20);

/// What has been offered to a peer, and heard of it.
#[derive(Default)]
pub(super) struct Offers {
    /// The agreement of the node keys.
    shared: Option<SharedKey>,
    challenge: Option<(Challenge, Instant)>,
    /// Epoch and counter of the newest hello of the peer.
    theirs: Option<(u64, u32)>,
    /// When the peer last repeated a challenge of this node.
    echoed: Option<Instant>,
    /// When a hello of the peer was answered last.
    answered: Option<Instant>,
    /// Whether there was no relay when an offer was to go out.
    is_unsent: bool,
    /// What the last offer said of this node.
    said: Option<(MappingClass, Vec<SocketAddr>)>,
    /// Whether an offer goes out when the STUN servers have answered, if they say something new.
    pub(super) is_waiting: bool,
}

impl Offers {
    fn is_fresh(&self, echo: Option<Challenge>, now: Instant) -> bool {
        self.challenge.is_some_and(|(sent, at)| echo == Some(sent) && now.since(at) < ECHO_LIFETIME)
    }
}

impl Peer {
    /// The agreement of the node keys, by which hellos are sealed.
    pub(crate) fn hello_key(&mut self, ctx: &Context) -> &SharedKey {
        let key = self.key;
        self.offers.shared.get_or_insert_with(|| SharedKey::new(&ctx.key, &key))
    }

    /// Tells the peer where this node may be reached. `echo` answers a hello of the peer.
    pub(super) fn offer(&mut self, echo: Option<Challenge>, now: Instant, ctx: &mut Context) {
        let regions = self.regions(now, ctx);
        self.offers.is_unsent = ctx.links.first_up().is_none();
        for region in regions {
            self.offer_in(region, echo, now, ctx);
        }
    }

    /// What an offer says of this node: the class of its NAT, and where it may be reached. Addresses of a local network are for
    /// peers that are seen from outside by an address that this node has, too; to others they tell of this network and no more.
    fn offered(&self, ctx: &Context) -> (MappingClass, Vec<SocketAddr>) {
        if self.is_relay_only {
            return (MappingClass::Unknown, Vec::new());
        }
        let public = ctx.endpoints.public();
        let is_shared = |ip| public.iter().any(|own| own.ip() == ip);
        let is_near = public.is_empty()
            || self.disco.as_ref().is_some_and(|disco| disco.is_given)
            || self.candidates.iter().any(|known| is_shared(known.address.ip()));
        let offered = ctx.endpoints.offered().into_iter();
        (ctx.endpoints.class(), offered.filter(|address| is_near || !is_local(address.ip())).collect())
    }

    /// Makes an offer over the relay of `region`.
    pub(super) fn offer_in(
        &mut self,
        region: Region,
        echo: Option<Challenge>,
        now: Instant,
        ctx: &mut Context,
    ) {
        let (mapping, addresses) = self.offered(ctx);
        self.offers.said = Some((mapping, addresses.clone()));
        let mut packet = Vec::new();
        match &self.disco {
            Some(disco) if disco.is_given && self.is_relay_only => return,
            Some(disco) if disco.is_given => {
                let message = Message::CallMeMaybe(addresses);
                seal(&ctx.disco_public, &disco.shared, &ctx.random.bytes(), &message, &mut packet);
            }
            _ => {
                let used = self.offers.challenge.filter(|(_, at)| now.since(*at) < CHALLENGE_USED);
                let (challenge, at) = used.unwrap_or_else(|| (ctx.random.bytes(), now));
                self.offers.challenge = Some((challenge, at));
                let hello = Hello {
                    epoch: ctx.epoch,
                    counter: ctx.next_hello(),
                    challenge,
                    echo,
                    region: ctx.homes().home,
                    standby: ctx.homes().standby,
                    relay_rtt: ctx.known_relay_rtt(),
                    mapping,
                    // One that answers nothing is sent because an attempt begins, for which the peer has to fire as well.
                    wants_echo: echo.is_none()
                        || self.offers.echoed.is_none_or(|at| now.since(at) >= ECHO_LIFETIME),
                    addresses,
                };
                let (disco, nonce) = (ctx.disco_public, ctx.random.bytes());
                hello.seal(&disco, self.hello_key(ctx), &nonce, &mut packet);
            }
        }
        ctx.send(Transmit::Relay { region, peer: self.key }, packet);
    }

    /// Sends the offer that has waited for the STUN servers.
    pub(crate) fn gathered(&mut self, now: Instant, ctx: &mut Context) {
        let has_news = self.offers.said.as_ref() != Some(&self.offered(ctx));
        if std::mem::take(&mut self.offers.is_waiting) && has_news {
            self.offer(None, now, ctx);
            self.open(now, ctx);
        }
    }

    /// Makes the next attempt soon, because UDP is let out again.
    pub(crate) fn unblocked(&mut self, now: Instant) {
        if self.path.is_none() {
            (self.attempts, self.retry_at) = (0, now);
        }
    }

    /// Offers another address that the gateway forwards, or none, if the peer is being made direct.
    pub(crate) fn forwarded(&mut self, now: Instant, ctx: &mut Context) {
        let asked = [self.sent, self.offers.answered].into_iter().flatten().max();
        let is_sought = asked.is_some_and(|at| now.since(at) < ACTIVE);
        let works = self.path.as_ref().is_some_and(|path| !path.is_suspected(now));
        let has_news = self.offers.said.as_ref().is_some_and(|said| *said != self.offered(ctx));
        // An offer that waits for the STUN servers says it as well.
        if is_sought && !works && has_news && !self.offers.is_waiting {
            self.offer(None, now, ctx);
            (self.attempts, self.retry_at) = (1, now + RETRIES[0]);
        }
    }

    /// Sends the offer that has waited for a relay.
    pub(crate) fn connected(&mut self, now: Instant, ctx: &mut Context) {
        if self.offers.is_unsent {
            self.offer(None, now, ctx);
            self.open(now, ctx);
        }
    }

    /// Takes a hello of the peer that came over the relay of `region`.
    pub(crate) fn hear_hello(
        &mut self,
        disco: DiscoPublic,
        hello: &Hello,
        region: Region,
        now: Instant,
        ctx: &mut Context,
    ) {
        let is_old = |(epoch, counter)| hello.epoch == epoch && hello.counter <= counter;
        if self.offers.theirs.is_some_and(is_old) || self.disco.as_ref().is_some_and(|disco| disco.is_given) {
            return;
        }
        let is_fresh = self.offers.is_fresh(hello.echo, now);
        let may_adopt = is_fresh || self.disco.as_ref().is_none_or(|known| !known.is_proven);
        if may_adopt && !self.adopt(disco, is_fresh, now, ctx) {
            return;
        }
        let mut has_news = false;
        if may_adopt || self.disco_key() == Some(disco) {
            self.offers.theirs = Some((hello.epoch, hello.counter));
            (self.mapping, self.relay_rtt) = (hello.mapping, hello.relay_rtt);
            self.take_regions(hello, is_fresh, ctx);
            self.region = self.region.or(Some(region));
            has_news = self.take_addresses(&hello.addresses, now, ctx);
            // The peer may have moved: it does not name the address any more.
            let is_named = |path: &Path| hello.addresses.contains(&path.address);
            if [MappingClass::Open, MappingClass::Independent].contains(&hello.mapping)
                && let Some(path) = self.path.as_mut().filter(|path| !is_named(path))
            {
                path.suspect(now);
            }
        } else {
            // The peer has started anew, unless this is a recording. Data goes over the relay as well until the path answers.
            self.offers.echoed = None;
            if let Some(path) = self.path.as_mut().filter(|path| !path.is_suspected(now)) {
                path.suspect(now);
                let address = path.address;
                self.probe(address, None, now, ctx);
            }
        }
        if is_fresh {
            self.offers.echoed = Some(now);
        }
        let may_answer = is_fresh || self.offers.answered.is_none_or(|at| now.since(at) >= ANSWERS);
        if hello.wants_echo && may_answer {
            self.offers.answered = Some(now);
            self.offers.is_waiting = ctx.gather(now);
            self.offer(Some(hello.challenge), now, ctx);
        }
        if self.disco_key() == Some(disco) {
            self.aim(is_fresh, has_news, now, ctx);
        }
    }

    /// Takes the regions of a hello, if it is fresh. Otherwise another region than before is a reason to ask for an echo.
    fn take_regions(&mut self, hello: &Hello, is_fresh: bool, ctx: &Context) {
        for (known, named) in [(&mut self.region, hello.region), (&mut self.standby, hello.standby)] {
            let named = named.filter(|region| ctx.regions.knows(*region));
            if is_fresh {
                *known = named.or(*known);
            } else if named.is_some() && named != *known {
                self.offers.echoed = None;
            }
        }
    }

    /// Takes the disco key of a hello. Returns whether it is one.
    fn adopt(&mut self, public: DiscoPublic, is_fresh: bool, now: Instant, ctx: &mut Context) -> bool {
        if !public.is_contributory() {
            return false;
        }
        match &mut self.disco {
            Some(disco) if disco.public == public => disco.is_proven |= is_fresh,
            known => {
                let shared = SharedKey::of_disco(&ctx.disco, &public);
                let before = known.replace(Disco { public, shared, is_given: false, is_proven: is_fresh });
                if before.is_some() {
                    self.start_anew(now, ctx);
                }
            }
        }
        true
    }

    /// Takes the addresses of an offer. Returns whether one of them is new.
    fn take_addresses(&mut self, offered: &[SocketAddr], now: Instant, ctx: &Context) -> bool {
        if self.is_relay_only {
            return false;
        }
        let public = ctx.endpoints.public();
        let usable: Vec<_> = offered
            .iter()
            .copied()
            .filter(|&address| may_be_probed(address, offered, &public))
            .take(MOST_OFFERED)
            .collect();
        self.candidates.offer(&usable, now)
    }

    /// Tells a peer to which data was sent of late that this node is reached in another region.
    pub(crate) fn announce(&mut self, now: Instant, ctx: &mut Context) {
        let is_active = self.sent.is_some_and(|sent| now.since(sent) < ACTIVE);
        if is_active && self.disco.as_ref().is_none_or(|disco| !disco.is_given) {
            self.offer(None, now, ctx);
        }
    }

    /// Takes an address at which a relay has seen the peer. It is probed with the others, when the peer's NAT knows this node.
    pub(crate) fn attest(&mut self, address: SocketAddr, now: Instant, ctx: &mut Context) {
        if !self.is_relay_only && may_be_probed(address, &[address], &ctx.endpoints.public()) {
            self.candidates.add(address, Origin::Attested, now);
            ctx.budget.attest(address.ip(), now);
        }
    }

    /// Fires at once if the peer fires now as well, or has done so; else opens the NAT of this node and fires when the answer
    /// reaches the peer.
    fn aim(&mut self, is_fresh: bool, has_news: bool, now: Instant, ctx: &mut Context) {
        if let Some(path) = self.path.as_ref().filter(|path| !path.is_suspected(now)) {
            // The NAT of this node may let the peer in no more.
            self.probe(path.address, None, now, ctx);
            return;
        }
        if has_news {
            self.fires = 0;
        }
        if self.fired.is_some_and(|at| now.since(at) < FIRED) && !has_news {
            // The peer has fired now, whatever delayed its hello, so that its NAT is open.
            if is_fresh && self.path.is_none() {
                self.fire_once(now, ctx);
            }
            return;
        }
        if is_fresh || Technique::may_fire_at_once(ctx.endpoints.mapping(), self.mapping) {
            self.fire(now, ctx);
        } else {
            self.open(now, ctx);
            self.fire_at = Some(now + ctx.time_to_peer(self.relay_rtt));
        }
    }

    /// Takes the CallMeMaybe of a stock client: it has just pinged this node, whose NAT may not have known the client's address and
    /// does now. It would ping again only after 5 s, or when it is called; so it is called back if it has named a new address. Two
    /// that do so stop when neither has more to name.
    pub(crate) fn hear_call_me_maybe(&mut self, offered: &[SocketAddr], now: Instant, ctx: &mut Context) {
        let has_news = self.take_addresses(offered, now, ctx);
        self.fire(now, ctx);
        if has_news && self.path.is_none() {
            self.offer(None, now, ctx);
        }
    }
}
