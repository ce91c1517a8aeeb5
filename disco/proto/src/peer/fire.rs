//! Probes to the candidates of a peer: bursts to all of them at the right moment, packets that open this node's NAT before, and
//! probes of a size.

use std::net::SocketAddr;
use std::time::Duration;

use towpath_wire::disco::message::{Message, Ping, TxId};
use towpath_wire::disco::packet::seal;
use towpath_wire::time::Instant;

use super::probes::{Burst, LATER, WHOLE};
use super::technique::Technique;
use super::{PING_LEN, Peer, RETRIES, SizeProbes, UNLIKELY};
use crate::MappingClass;
use crate::candidates::{Candidate, MOST_KEPT, Origin, is_local};
use crate::context::Context;
use crate::datagram::Transmit;

/// Hops of the packet that opens this node's NAT for a peer and dies before it reaches the NAT of the peer. A NAT that hears
/// of an address before it has sent to it may give it another port.
const OPENER_TTL: u8 = 3;
/// Tries to have a larger size proven one after the other, and the time until the next tries.
const SIZE_TRIES: u32 = 5;
const SIZE_PAUSE: Duration = Duration::from_secs(30);
/// Bytes of the largest datagram that is probed: no larger one fits into UDP over IPv4.
const MOST_PROVEN: usize = 65_507;

impl Peer {
    /// Probes the path with a datagram of `len` bytes, if that is due.
    pub(super) fn probe_size(&mut self, address: SocketAddr, len: usize, now: Instant, ctx: &mut Context) {
        let Some(path) = &self.path else { return };
        let is_tried = self.sizes.tries >= SIZE_TRIES;
        let pause = if is_tried { SIZE_PAUSE } else { path.rtt * 2 };
        if self.sizes.last.is_none_or(|last| now.since(last) >= pause) {
            let tries = if is_tried { 0 } else { self.sizes.tries };
            self.sizes = SizeProbes { tries: tries + 1, last: Some(now) };
            self.probe(address, Some(len.min(MOST_PROVEN)), now, ctx);
        }
    }

    /// Sends bursts of probes to all candidates that may be reached.
    pub(super) fn fire(&mut self, now: Instant, ctx: &mut Context) {
        (self.fire_at, self.fired) = (None, Some(now));
        // An address that does not answer bears few probes a minute, and later attempts need some as well.
        let probes = if self.fires == 0 { WHOLE } else { LATER };
        self.fires += 1;
        if self.is_unlikely(ctx) {
            self.retry_at = self.retry_at.max(now + RETRIES[UNLIKELY]);
        }
        let current = self.path.as_ref().map(|path| path.address);
        for address in self.targets(ctx).into_iter().filter(|target| Some(*target) != current) {
            self.burst(address, probes, now, ctx);
        }
        self.send_due(now, ctx);
    }

    /// The addresses that are fired at: those of a family that this node has, and none but local ones where both NATs map by
    /// destination. The ports of a peer that has another one for each destination are of no use, and one of them opens this
    /// node's NAT for all if it filters by address.
    fn targets(&self, ctx: &Context) -> Vec<SocketAddr> {
        let is_hard = self.mapping == MappingClass::Dependent;
        let is_local_only = Technique::of(ctx.endpoints.mapping(), self.mapping) == Technique::LocalOnly;
        let mut targets: Vec<SocketAddr> = Vec::new();
        for Candidate { address, origin, .. } in self.candidates.iter() {
            let is_reachable =
                ctx.endpoints.has_family(*address) && (!is_local_only || is_local(address.ip()));
            let is_opened = targets.iter().any(|target| target.ip() == address.ip());
            if is_reachable && (!is_hard || *origin == Origin::Heard || !is_opened) {
                targets.push(*address);
            }
        }
        targets
    }

    /// The addresses at which the peer was direct or from which it was heard, while this node has been in this network.
    pub(super) fn heard_addresses(&self) -> Vec<SocketAddr> {
        let heard =
            self.candidates.iter().filter(|known| known.origin == Origin::Heard).map(|known| known.address);
        heard
            .chain(self.met.filter(|met| self.candidates.iter().all(|known| known.address != *met)))
            .collect()
    }

    /// Begins a burst to an address.
    pub(super) fn burst(&mut self, address: SocketAddr, probes: usize, now: Instant, ctx: &Context) {
        self.bursts.retain(|burst| burst.address != address);
        if self.bursts.len() < MOST_KEPT {
            self.bursts.push(Burst::new(address, now, if ctx.one_probe { 1 } else { probes }));
        }
    }

    /// Sends one probe to each candidate.
    pub(super) fn fire_once(&mut self, now: Instant, ctx: &mut Context) {
        for address in self.targets(ctx) {
            self.probe(address, None, now, ctx);
        }
    }

    /// Opens the NAT of this node for all candidates, by packets that die before the NAT of the peer. Without a NAT here they would
    /// not die in time.
    pub(super) fn open(&mut self, now: Instant, ctx: &mut Context) {
        if ctx.endpoints.mapping() == MappingClass::Open {
            return;
        }
        for address in self.targets(ctx).into_iter().filter(|target| !is_local(target.ip())) {
            self.send_ping(address, None, Some(OPENER_TTL), now, ctx);
        }
    }

    /// Sends the probes of bursts that are due.
    pub(super) fn send_due(&mut self, now: Instant, ctx: &mut Context) {
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
    pub(super) fn probe(&mut self, address: SocketAddr, len: Option<usize>, now: Instant, ctx: &mut Context) {
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
        if !is_answered && !ctx.budget.take(dst.ip(), &self.key, now) {
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
}
