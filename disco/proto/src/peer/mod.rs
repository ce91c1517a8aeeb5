//! One peer: what is known of it, the probes to its candidates, and the path that data takes.
//!
//! | what | file |
//! |---|---|
//! | offers: hellos, and the CallMeMaybe of stock clients | `offer.rs` |
//! | probes to the candidates, all at once at the right moment | `fire.rs` |
//! | probes that wait for an answer, and bursts of them | `probes.rs` |
//! | the direct path, and when it is suspected | `path.rs` |
//! | what is tried on a pair of NATs | `technique.rs` |
//! | the regions in which the peer is looked for | `search.rs` |
//! | what has changed of the peer | `update.rs` |
//! | why the path is what it is, and that for programs | `why.rs`, `report.rs` |

mod fire;
mod offer;
mod path;
mod probes;
mod report;
mod search;
pub(crate) mod technique;
mod update;
pub(crate) mod why;

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::Duration;

use towpath_wire::disco::key::DiscoPublic;
use towpath_wire::disco::message::{Message, TxId};
use towpath_wire::disco::packet::{PACKET_OVERHEAD, seal};
use towpath_wire::key::NodePublic;
use towpath_wire::sealed::SharedKey;
use towpath_wire::time::Instant;

use self::offer::Offers;
use self::path::{KEEP_ALIVE, Path};
use self::probes::{Burst, Probes, TRIGGERED, WHOLE};
use self::search::Search;
use self::technique::Technique;
use self::why::Why;
use crate::MappingClass;
use crate::candidates::{Candidates, Origin, is_local};
use crate::config::PeerConfig;
use crate::context::Context;
use crate::datagram::{Region, Route, Transmit};
use crate::event::Event;

/// Bytes of a ping: type, version, transaction id and node key.
const PING_LEN: usize = PACKET_OVERHEAD + 2 + 12 + 32;
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
    is_relay_only: bool,
    region: Option<Region>,
    /// The region that the configuration or a control plane names.
    named_region: Option<Region>,
    /// The region in which it can be reached if that one cannot, and the one in which it was heard last.
    standby: Option<Region>,
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
    /// How often a direct path is kept alive in this network, and how often if the one that is suspected was forgotten by a NAT.
    keep_alive: Duration,
    learned: Option<Duration>,
    /// When data was sent last.
    sent: Option<Instant>,
    attempts: usize,
    retry_at: Instant,
    /// When the node looks at this peer next, and the disco key by which it knows it.
    pub(crate) due: Option<Instant>,
    pub(crate) indexed: Option<DiscoPublic>,
}

/// What each peer takes of memory before anything is known of it.
const _: () = assert!(size_of::<Peer>() <= 832);

impl Peer {
    pub(crate) fn new(config: &PeerConfig, ctx: &Context, now: Instant) -> Self {
        let mut candidates = Candidates::default();
        candidates.configure(config.probed(), now);
        let disco = config.disco.filter(DiscoPublic::is_contributory);
        Self {
            key: config.key,
            is_relay_only: config.is_relay_only,
            region: config.region,
            standby: None,
            named_region: config.region,
            heard_in: None,
            search: Search::default(),
            disco: disco.map(|public| Disco::named(public, ctx)),
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
            keep_alive: KEEP_ALIVE,
            learned: None,
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

    /// The ways for a datagram of `len` bytes, over a relay in any case if it `is_precious`. Begins to make the peer direct, and probes
    /// the path that is used.
    pub(crate) fn route(
        &mut self,
        (len, is_precious): (usize, bool),
        now: Instant,
        ctx: &mut Context,
    ) -> Route {
        self.sent = Some(now);
        let Some(path) = &self.path else {
            let (relay, standby) = self.relays(now, ctx);
            self.begin(now, ctx);
            return Route { direct: None, relay, standby };
        };
        let (address, is_suspected, is_large) = (path.address, path.is_suspected(now), len > path.proven);
        let is_lossy = path.is_lossy;
        let is_relayed = is_precious || is_suspected || is_large || is_lossy || path.is_doubtful(now);
        let (relay, standby) = if is_relayed { self.relays(now, ctx) } else { (None, None) };
        if path.is_probe_due(now) {
            self.probe(address, None, now, ctx);
        }
        if is_large {
            self.probe_size(address, len, now, ctx);
        }
        if is_suspected {
            self.suspect(now, ctx);
        }
        Route {
            direct: Some(address).filter(|_| !is_lossy || is_precious || relay.is_none()),
            relay,
            standby,
        }
    }

    /// Offers this node to a peer that is not direct, unless that has been done of late.
    fn begin(&mut self, now: Instant, ctx: &mut Context) {
        if now < self.retry_at || self.is_relay_only {
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

    /// What is tried on this pair.
    fn technique(&self, ctx: &Context) -> Technique {
        Technique::of(ctx.endpoints.class(), self.mapping)
    }

    /// Whether an attempt that fails does so for other reasons than loss.
    fn is_unlikely(&self, ctx: &Context) -> bool {
        ctx.endpoints.is_blocked() || Technique::is_unlikely(ctx.endpoints.class(), self.mapping)
    }

    /// Does what follows from a path that is suspected: the NAT of this node or of the peer may have forgotten it.
    fn suspect(&mut self, now: Instant, ctx: &mut Context) {
        let Some(path) = self.path.as_mut().filter(|path| !path.is_told) else { return };
        path.is_told = true;
        self.learned = path.learned_keep_alive();
        let address = path.address;
        ctx.tell(Event::Suspected { peer: self.key, address });
        self.offers.is_waiting = ctx.gather(now);
        self.offer(None, now, ctx);
        (self.attempts, self.retry_at) = (0, now);
    }

    /// Does what follows from another network of this node.
    pub(crate) fn move_network(&mut self, now: Instant, ctx: &mut Context) {
        self.probes.clear();
        self.bursts.clear();
        self.candidates.forget_heard();
        (self.met, self.attempts, self.retry_at, self.fire_at, self.fires) = (None, 0, now, None, 0);
        (self.keep_alive, self.learned) = (KEEP_ALIVE, None);
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
        let current = self.path.as_ref().map(|path| path.address);
        let oldest = self.heard_at.iter().position(|heard| Some(*heard) != current);
        let forgotten = oldest.filter(|_| self.heard_at.len() >= MOST_HEARD);
        let forgotten = forgotten.and_then(|oldest| self.heard_at.remove(oldest));
        self.heard_at.push_back(address);
        forgotten
    }

    /// Answers a ping on UDP.
    pub(crate) fn answer_ping(&self, tx: TxId, remote: SocketAddr, ctx: &mut Context) {
        let Some(disco) = self.disco.as_ref().filter(|_| !self.is_relay_only) else { return };
        let (pong, mut packet) = (Message::Pong { tx, source: remote }, Vec::new());
        seal(&ctx.disco_public, &disco.shared, &ctx.random.bytes(), &pong, &mut packet);
        ctx.send(Transmit::Udp { src: None, dst: remote, ttl: None }, packet);
    }

    /// Answers a ping on UDP, and probes the address that it came from.
    pub(crate) fn hear_ping(&mut self, tx: TxId, remote: SocketAddr, now: Instant, ctx: &mut Context) {
        if self.is_relay_only {
            return;
        }
        self.answer_ping(tx, remote, ctx);
        self.candidates.add(remote, Origin::Heard, now);
        ctx.budget.credit(remote.ip(), TRIGGERED);
        // The peer gets through, so an attempt that fails was a matter of loss.
        self.retry_at = self.retry_at.min(now + RETRIES[0]);
        match &mut self.path {
            Some(path) if path.address == remote => {
                path.hear(now);
                ctx.links.note_use(now);
            }
            Some(path) if path.is_good(now) && !path.is_worse_than(remote, path.rtt) => {}
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
        self.candidates.answered(remote);
        self.bursts.retain(|burst| burst.address != remote);
        match &mut self.path {
            Some(path) if path.address == remote => {
                let (was_lossy, was_suspected) = (path.is_lossy, path.is_told);
                path.answer(probe.sent, probe.len, now);
                if path.is_lossy != was_lossy || was_suspected {
                    ctx.tell(path.event(self.key));
                }
                if probe.len > PING_LEN {
                    self.sizes = SizeProbes::default();
                }
                self.learn();
                return true;
            }
            Some(path) if path.is_good(now) && !path.is_worse_than(remote, rtt) => return true,
            _ => {}
        }
        self.path = Some(Path::new(remote, rtt, probe.len, self.keep_alive, now));
        self.learn();
        self.bursts.retain(|burst| is_local(burst.address.ip()) && !is_local(remote.ip()));
        (self.met, self.attempts, self.fire_at, self.fires) = (Some(remote), 0, None, 0);
        self.sizes = SizeProbes::default();
        ctx.tell(Event::Direct { peer: self.key, address: remote });
        true
    }

    /// Keeps the path alive more often, if a NAT has forgotten it before this answer.
    fn learn(&mut self) {
        if let Some(interval) = self.learned.take() {
            self.keep_alive = interval;
            self.path.iter_mut().for_each(|path| path.keep_alive_every(interval));
        }
    }

    /// Does what is due.
    pub(crate) fn handle_timeout(&mut self, now: Instant, ctx: &mut Context) {
        if self.fire_at.is_some_and(|at| at <= now) {
            self.fire(now, ctx);
        }
        self.send_due(now, ctx);
        if let Some(path) = self.path.as_mut().filter(|path| path.check_at().is_some_and(|at| at <= now)) {
            path.note_check();
            ctx.check_links(now);
        }
        let Some(path) = &self.path else { return };
        let address = path.address;
        if path.given_up_at().is_some_and(|at| at <= now) {
            (self.path, self.learned) = (None, None);
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
            waiting.or(kept).into_iter().chain(path.check_at()).min()
        });
        [bursts, self.fire_at, path].into_iter().flatten().min()
    }

    /// Why the path is what it is.
    pub(crate) fn why(&self, now: Instant, ctx: &Context) -> Why {
        Why {
            direct: self.path.as_ref().map(|path| (path.address, path.rtt)),
            is_suspected: self.path.as_ref().is_some_and(|path| path.is_suspected(now)),
            loss_percent: self.path.as_ref().map_or(0, Path::loss_percent),
            is_lossy: self.path.as_ref().is_some_and(|path| path.is_lossy),
            mapping: ctx.endpoints.mapping(),
            port_mapping: ctx.port_mapping(),
            reflexive: ctx.endpoints.seen(),
            is_udp_blocked: ctx.endpoints.is_blocked(),
            peer_mapping: self.mapping,
            technique: self.technique(ctx),
            tried: self.candidates.iter().map(|candidate| (candidate.address, candidate.spent)).collect(),
            is_heard: self.heard_in.is_some() || !self.heard_at.is_empty(),
        }
    }
}
