//! One peer: what is known of it, the probes to its candidates, and the path that data takes.
//!
//! | what | file |
//! |---|---|
//! | offers: hellos, and the CallMeMaybe of stock clients | `offer.rs` |
//! | probes that wait for an answer, and bursts of them | `probes.rs` |
//! | the direct path, and when it is suspected | `path.rs` |
//! | the regions in which the peer is looked for | `search.rs` |
//! | why the path is what it is | `why.rs` |

mod offer;
mod path;
mod probes;
mod search;
pub(crate) mod why;

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::Duration;

use towpath_wire::disco::key::DiscoPublic;
use towpath_wire::disco::message::{Message, Ping, TxId};
use towpath_wire::disco::packet::{PACKET_OVERHEAD, seal};
use towpath_wire::key::NodePublic;
use towpath_wire::sealed::SharedKey;
use towpath_wire::time::Instant;

use self::offer::Offers;
use self::path::Path;
use self::probes::{Burst, LATER, Probes, TRIGGERED, WHOLE};
use self::search::Search;
use self::why::Why;
use crate::MappingClass;
use crate::candidates::{Candidate, Candidates, MOST_KEPT, Origin, is_local};
use crate::config::PeerConfig;
use crate::context::Context;
use crate::datagram::{Region, Route, Transmit};
use crate::node::Event;

/// Bytes of a ping: type, version, transaction id and node key.
const PING_LEN: usize = PACKET_OVERHEAD + 2 + 12 + 32;
/// Hops of the packet that opens this node's NAT for a peer and dies before it reaches the NAT of the peer. A NAT that hears
/// of an address before it has sent to it may give it another port.
const OPENER_TTL: u8 = 3;
/// A ping from a new address is answered by probes to it, unless one was sent within this time.
const PROBED: Duration = Duration::from_millis(30);
/// Hellos that come this soon after the probes to all candidates cause no others.
const FIRED: Duration = Duration::from_secs(1);
/// Addresses by which data is known as the peer's.
const MOST_HEARD: usize = 16;
/// How long after data was sent last a peer is made direct again without being asked.
const ACTIVE: Duration = Duration::from_secs(45);
/// How long a path is kept alive after data was sent last.
const KEPT_ALIVE: Duration = Duration::from_secs(600);
/// When an attempt that has failed is repeated: at first soon, in case packets were lost; then ever more seldom.
const RETRIES: [Duration; 6] = [
    Duration::from_secs(1),
    Duration::from_secs(10),
    Duration::from_secs(20),
    Duration::from_secs(60),
    Duration::from_secs(300),
    Duration::from_secs(600),
];
/// The first of these pauses where an attempt is unlikely to succeed.
const UNLIKELY: usize = 3;
/// Tries to have a larger size proven one after the other, and the time until the next tries.
const SIZE_TRIES: u32 = 5;
const SIZE_PAUSE: Duration = Duration::from_secs(30);

/// The disco key of a peer, and the agreement with it.
struct Disco {
    public: DiscoPublic,
    shared: SharedKey,
    /// Whether a control plane has named it. Such a peer gets no hello.
    is_given: bool,
    /// Whether it is known not to come from a recording.
    is_proven: bool,
}

/// Probes for a datagram that is larger than what the path is proven for.
#[derive(Clone, Copy, Debug, Default)]
struct SizeProbes {
    tries: u32,
    last: Option<Instant>,
}

/// A peer.
pub(crate) struct Peer {
    pub(crate) key: NodePublic,
    region: Option<Region>,
    heard_in: Option<Region>,
    search: Search,
    disco: Option<Disco>,
    offers: Offers,
    mapping: MappingClass,
    relay_rtt: Option<Duration>,
    candidates: Candidates,
    probes: Probes,
    bursts: Vec<Burst>,
    /// When probes go to all candidates, and when they have gone last.
    fire_at: Option<Instant>,
    fired: Option<Instant>,
    /// How often they have gone since the peer was direct or has named another address.
    fires: u32,
    /// The addresses from which the peer was heard, the oldest first.
    heard_at: VecDeque<SocketAddr>,
    path: Option<Path>,
    /// The address at which the peer was direct last, while this node has been in this network.
    met: Option<SocketAddr>,
    sizes: SizeProbes,
    /// When data was sent last.
    sent: Option<Instant>,
    attempts: usize,
    retry_at: Instant,
    /// When the node looks at this peer next, and the disco key by which it knows it.
    pub(crate) due: Option<Instant>,
    pub(crate) indexed: Option<DiscoPublic>,
}

impl Peer {
    pub(crate) fn new(config: &PeerConfig, ctx: &Context, now: Instant) -> Self {
        let mut candidates = Candidates::default();
        config.addresses.iter().for_each(|&address| _ = candidates.add(address, Origin::Configured, now));
        let disco = config.disco.filter(DiscoPublic::is_contributory).map(|public| Disco {
            shared: SharedKey::of_disco(&ctx.disco, &public),
            public,
            is_given: true,
            is_proven: true,
        });
        Self {
            key: config.key,
            region: config.region,
            heard_in: None,
            search: Search::default(),
            disco,
            offers: Offers::default(),
            mapping: MappingClass::Unknown,
            relay_rtt: None,
            candidates,
            probes: Probes::default(),
            bursts: Vec::new(),
            fire_at: None,
            fired: None,
            fires: 0,
            heard_at: VecDeque::new(),
            path: None,
            met: None,
            sizes: SizeProbes::default(),
            sent: None,
            attempts: 0,
            retry_at: Instant::ZERO,
            due: None,
            indexed: None,
        }
    }

    pub(crate) fn disco_key(&self) -> Option<DiscoPublic> {
        self.disco.as_ref().map(|disco| disco.public)
    }

    /// The agreement with the disco key of the peer.
    pub(crate) fn shared(&self) -> Option<&SharedKey> {
        self.disco.as_ref().map(|disco| &disco.shared)
    }

    pub(crate) const fn path(&self) -> Option<&Path> {
        self.path.as_ref()
    }

    /// The ways for a datagram of `len` bytes. Begins to make the peer direct, and probes the path that is used.
    pub(crate) fn route(&mut self, len: usize, now: Instant, ctx: &mut Context) -> Route {
        self.sent = Some(now);
        let relay = self.relay(ctx);
        let Some(path) = &self.path else {
            self.begin(now, ctx);
            return Route { direct: None, relay };
        };
        let (address, is_suspected, is_large) = (path.address, path.is_suspected(now), len > path.proven);
        if path.is_probe_due(now) {
            self.probe(address, None, now, ctx);
        }
        if is_large {
            self.probe_size(address, len, now, ctx);
        }
        if is_suspected {
            self.suspect(now, ctx);
        }
        Route { direct: Some(address), relay: relay.filter(|_| is_suspected || is_large) }
    }

    fn probe_size(&mut self, address: SocketAddr, len: usize, now: Instant, ctx: &mut Context) {
        let Some(path) = &self.path else { return };
        let pause = if self.sizes.tries < SIZE_TRIES { path.rtt * 2 } else { SIZE_PAUSE };
        if self.sizes.last.is_none_or(|last| now.since(last) >= pause) {
            let tries = if pause == SIZE_PAUSE { 0 } else { self.sizes.tries };
            self.sizes = SizeProbes { tries: tries + 1, last: Some(now) };
            self.probe(address, Some(len), now, ctx);
        }
    }

    /// Offers this node to a peer that is not direct, unless that has been done of late.
    fn begin(&mut self, now: Instant, ctx: &mut Context) {
        if now < self.retry_at {
            return;
        }
        let least = if self.is_unlikely(ctx) { UNLIKELY } else { 0 };
        self.retry_at = now + RETRIES[self.attempts.max(least).min(RETRIES.len() - 1)];
        self.attempts += 1;
        self.search_again(now);
        // The NAT may have forgotten what the servers have seen. If so, another offer follows a round trip later.
        self.offers.is_waiting = ctx.gather(now);
        self.offer(None, now, ctx);
        // The peer has sent from there, so its NAT knows this node.
        for address in self.heard_addresses() {
            self.burst(address, WHOLE, now, ctx);
        }
        if self.disco.as_ref().is_some_and(|disco| disco.is_given) {
            self.fire(now, ctx);
        }
        self.send_due(now, ctx);
    }

    /// Whether an attempt that fails does so for other reasons than loss.
    fn is_unlikely(&self, ctx: &Context) -> bool {
        let classes = [ctx.endpoints.mapping(), self.mapping];
        ctx.endpoints.is_blocked() || classes.contains(&MappingClass::Dependent)
    }

    /// Does what follows from a path that is suspected: the NAT of this node or of the peer may have forgotten it.
    fn suspect(&mut self, now: Instant, ctx: &mut Context) {
        let Some(path) = self.path.as_mut().filter(|path| !path.is_told) else { return };
        path.is_told = true;
        let address = path.address;
        ctx.tell(Event::Suspected { peer: self.key, address });
        self.offers.is_waiting = ctx.gather(now);
        if !self.offers.is_waiting {
            self.offer(None, now, ctx);
        }
        (self.attempts, self.retry_at) = (0, now);
    }

    /// Does what follows from another network of this node.
    pub(crate) fn move_network(&mut self, now: Instant, ctx: &mut Context) {
        self.probes.clear();
        self.bursts.clear();
        self.candidates.forget_heard();
        (self.met, self.attempts, self.retry_at, self.fire_at, self.fires) = (None, 0, now, None, 0);
        // No probe goes to the address of the path: the NAT of the peer does not know this node's new address, and might give the
        // peer another port if it heard of it before the peer has.
        if self.path.take().is_some() {
            ctx.tell(Event::Relayed { peer: self.key });
        }
        if self.sent.is_some_and(|sent| now.since(sent) < ACTIVE) {
            self.begin(now, ctx);
        }
    }

    /// Notes an address from which the peer was heard. Returns one that is no longer the peer's.
    pub(crate) fn note_address(&mut self, address: SocketAddr) -> Option<SocketAddr> {
        if self.heard_at.contains(&address) {
            return None;
        }
        self.heard_at.push_back(address);
        let current = self.path.as_ref().map(|path| path.address);
        let oldest = self.heard_at.iter().position(|heard| Some(*heard) != current)?;
        if self.heard_at.len() > MOST_HEARD { self.heard_at.remove(oldest) } else { None }
    }

    /// Sends probes to all candidates, except where both NATs map by destination and none of them can be reached.
    fn fire(&mut self, now: Instant, ctx: &mut Context) {
        (self.fire_at, self.fired) = (None, Some(now));
        // An address that does not answer bears few probes a minute, and later attempts need some as well.
        let probes = if self.fires == 0 { WHOLE } else { LATER };
        self.fires += 1;
        if self.is_unlikely(ctx) {
            self.retry_at = self.retry_at.max(now + RETRIES[UNLIKELY]);
        }
        let both =
            ctx.endpoints.mapping() == MappingClass::Dependent && self.mapping == MappingClass::Dependent;
        let current = self.path.as_ref().map(|path| path.address);
        for address in self.targets() {
            let is_sensible = ctx.endpoints.has_family(address) && (!both || is_local(address.ip()));
            if Some(address) != current && is_sensible {
                self.burst(address, probes, now, ctx);
            }
        }
        self.send_due(now, ctx);
    }

    /// The addresses that are fired at. The ports of a peer that has another one for each destination are of no use, and one of
    /// them opens this node's NAT for all if it filters by address.
    fn targets(&self) -> Vec<SocketAddr> {
        let mut targets: Vec<SocketAddr> = Vec::new();
        for Candidate { address, origin, .. } in self.candidates.iter() {
            let is_opened = targets.iter().any(|target| target.ip() == address.ip());
            if self.mapping != MappingClass::Dependent || *origin == Origin::Heard || !is_opened {
                targets.push(*address);
            }
        }
        targets
    }

    /// The addresses at which the peer was direct or from which it was heard, while this node has been in this network.
    fn heard_addresses(&self) -> Vec<SocketAddr> {
        let heard =
            self.candidates.iter().filter(|known| known.origin == Origin::Heard).map(|known| known.address);
        heard
            .chain(self.met.filter(|met| self.candidates.iter().all(|known| known.address != *met)))
            .collect()
    }

    fn burst(&mut self, address: SocketAddr, probes: usize, now: Instant, ctx: &Context) {
        self.bursts.retain(|burst| burst.address != address);
        if self.bursts.len() < MOST_KEPT {
            self.bursts.push(Burst::new(address, now, if ctx.one_probe { 1 } else { probes }));
        }
    }

    /// Sends one probe to each candidate.
    fn fire_once(&mut self, now: Instant, ctx: &mut Context) {
        for address in self.targets() {
            if ctx.endpoints.has_family(address) {
                self.probe(address, None, now, ctx);
            }
        }
    }

    /// Opens the NAT of this node for all candidates, by packets that die before the NAT of the peer. Without a NAT here they would
    /// not die in time.
    fn open(&mut self, now: Instant, ctx: &mut Context) {
        if ctx.endpoints.mapping() == MappingClass::Open {
            return;
        }
        let far: Vec<_> = self
            .targets()
            .into_iter()
            .filter(|far| !is_local(far.ip()) && ctx.endpoints.has_family(*far))
            .collect();
        for address in far {
            self.send_ping(address, None, Some(OPENER_TTL), now, ctx);
        }
    }

    /// Sends the probes of bursts that are due.
    fn send_due(&mut self, now: Instant, ctx: &mut Context) {
        let mut due = Vec::new();
        for burst in &mut self.bursts {
            if burst.due().is_some_and(|at| at <= now) {
                burst.advance();
                due.push(burst.address);
            }
        }
        self.bursts.retain(|burst| burst.due().is_some());
        for address in due {
            self.probe(address, None, now, ctx);
        }
    }

    /// Sends a probe; one of `len` bytes, if a size is to be proven.
    fn probe(&mut self, address: SocketAddr, len: Option<usize>, now: Instant, ctx: &mut Context) {
        let Some((tx, sent)) = self.send_ping(address, len, None, now, ctx) else { return };
        self.probes.note(tx, address, sent, now);
        // A large one may be lost on a path that carries small ones.
        if let Some(path) = self.path.as_mut().filter(|path| path.address == address && len.is_none()) {
            path.probe(now);
        }
    }

    fn send_ping(
        &mut self,
        dst: SocketAddr,
        len: Option<usize>,
        ttl: Option<u8>,
        now: Instant,
        ctx: &mut Context,
    ) -> Option<(TxId, usize)> {
        let disco = self.disco.as_ref()?;
        let current = self.path.as_ref().map(|path| path.address);
        let is_answered = [current, self.met].contains(&Some(dst));
        if !is_answered && !ctx.budget.take(dst.ip(), now) {
            return None;
        }
        let tx = TxId(ctx.random.bytes());
        let padding = len.unwrap_or_default().saturating_sub(PING_LEN);
        let ping = Message::Ping(Ping { tx, node_key: Some(ctx.public), padding });
        let mut packet = Vec::with_capacity(PING_LEN + padding);
        seal(&ctx.disco_public, &disco.shared, &ctx.random.bytes(), &ping, &mut packet);
        self.candidates.spend(dst);
        let sent = packet.len();
        ctx.send(Transmit::Udp { src: None, dst, ttl }, packet);
        Some((tx, sent))
    }

    /// Answers a ping on UDP, and probes the address that it came from.
    pub(crate) fn hear_ping(&mut self, tx: TxId, remote: SocketAddr, now: Instant, ctx: &mut Context) {
        let Some(disco) = &self.disco else { return };
        let (pong, mut packet) = (Message::Pong { tx, source: remote }, Vec::new());
        seal(&ctx.disco_public, &disco.shared, &ctx.random.bytes(), &pong, &mut packet);
        ctx.send(Transmit::Udp { src: None, dst: remote, ttl: None }, packet);
        self.candidates.add(remote, Origin::Heard, now);
        ctx.budget.credit(remote.ip(), TRIGGERED);
        // The peer gets through, so an attempt that fails was a matter of loss.
        self.retry_at = self.retry_at.min(now + RETRIES[0]);
        match &mut self.path {
            Some(path) if path.address == remote => path.heard = now,
            Some(path) if !path.is_suspected(now) && !path.is_worse_than(remote, path.rtt) => {}
            _ if self.probes.is_probed(remote, PROBED, now) => {}
            _ => {
                let is_offered =
                    self.candidates.iter().any(|known| known.is_offered && known.address.ip() == remote.ip());
                if self.mapping == MappingClass::Dependent {
                    self.bursts.retain(|burst| burst.address.ip() != remote.ip());
                }
                self.burst(remote, if is_offered { WHOLE } else { TRIGGERED }, now, ctx);
                self.send_due(now, ctx);
            }
        }
    }

    /// Takes the answer to a probe. Returns false for one that this node has not sent, or from another tuple: it says nothing.
    pub(crate) fn hear_pong(
        &mut self,
        tx: TxId,
        remote: SocketAddr,
        now: Instant,
        ctx: &mut Context,
    ) -> bool {
        let Some(probe) = self.probes.take(tx, remote, now) else { return false };
        let rtt = now.since(probe.sent);
        ctx.budget.answered(remote.ip());
        self.bursts.retain(|burst| burst.address != remote);
        match &mut self.path {
            Some(path) if path.address == remote => {
                path.answer(probe.sent, probe.len, now);
                if probe.len > PING_LEN {
                    self.sizes = SizeProbes::default();
                }
                return true;
            }
            Some(path) if !path.is_suspected(now) && !path.is_worse_than(remote, rtt) => return true,
            _ => {}
        }
        self.path = Some(Path::new(remote, rtt, probe.len, now));
        self.bursts.retain(|burst| is_local(burst.address.ip()) && !is_local(remote.ip()));
        (self.met, self.attempts, self.fire_at, self.fires) = (Some(remote), 0, None, 0);
        self.sizes = SizeProbes::default();
        ctx.tell(Event::Direct { peer: self.key, address: remote });
        true
    }

    /// Does what is due.
    pub(crate) fn handle_timeout(&mut self, now: Instant, ctx: &mut Context) {
        if self.fire_at.is_some_and(|at| at <= now) {
            self.fire(now, ctx);
        }
        self.send_due(now, ctx);
        let Some(path) = &self.path else { return };
        let address = path.address;
        if path.given_up_at().is_some_and(|at| at <= now) {
            self.path = None;
            (self.attempts, self.retry_at) = (0, now);
            ctx.tell(Event::Relayed { peer: self.key });
            return;
        }
        let is_due = path.again_at(now).is_some_and(|at| at <= now)
            || (self.is_kept_alive(now) && path.keep_alive_at(self.keeps_alive(ctx)) <= now);
        let is_suspected = path.is_suspected(now);
        if is_due {
            self.probe(address, None, now, ctx);
        }
        if is_suspected {
            self.suspect(now, ctx);
        }
    }

    /// Whether this node and not the peer keeps an idle path alive.
    fn keeps_alive(&self, ctx: &Context) -> bool {
        ctx.public < self.key
    }

    fn is_kept_alive(&self, now: Instant) -> bool {
        self.sent.is_some_and(|sent| now.since(sent) < KEPT_ALIVE)
    }

    /// When this peer is to be looked at next.
    pub(crate) fn next_due(&self, now: Instant, ctx: &Context) -> Option<Instant> {
        let bursts = self.bursts.iter().filter_map(Burst::due).min();
        let path = self.path.as_ref().and_then(|path| {
            let told = (!path.is_told).then(|| path.suspected_at());
            let waiting = path.again_at(now).map(|again| told.map_or(again, |told| told.min(again)));
            let waiting = waiting.zip(path.given_up_at()).map(|(at, given_up)| at.min(given_up));
            let kept = self.is_kept_alive(now).then(|| path.keep_alive_at(self.keeps_alive(ctx)));
            waiting.or(kept)
        });
        [bursts, self.fire_at, path].into_iter().flatten().min()
    }

    /// Why the path is what it is.
    pub(crate) fn why(&self, now: Instant, ctx: &Context) -> Why {
        Why {
            direct: self.path.as_ref().map(|path| (path.address, path.rtt)),
            is_suspected: self.path.as_ref().is_some_and(|path| path.is_suspected(now)),
            mapping: ctx.endpoints.mapping(),
            reflexive: ctx.endpoints.reflexive(),
            peer_mapping: self.mapping,
            tried: self.candidates.iter().map(|candidate| (candidate.address, candidate.spent)).collect(),
            is_answered: self.offers.is_answered(),
        }
    }
}
