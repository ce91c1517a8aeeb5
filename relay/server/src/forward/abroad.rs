//! Packets of a connection for keys that are not here: another relay of the region has them, or nobody.

use std::sync::Arc;
use std::time::Duration;

use relay_proto::outbox::{DropReason, DropSink, Hop};
use relay_proto::session::PacketKind;
use wire::derp::frame::{GoneReason, ServerFrame};
use wire::key::NodePublic;
use wire::time::Instant;

use super::connection::hold_above;
use super::desk::Desk;
use super::peer::Peer;
use super::route::{Detours, Forwarder};

/// What a connection remembers of such keys.
#[derive(Debug)]
pub(super) struct Abroad {
    detours: Detours,
    not_here: NotHereBudget,
}

impl Abroad {
    pub(super) fn new(now: Instant) -> Self {
        Self { detours: Detours::default(), not_here: NotHereBudget::new(now) }
    }

    /// Whether it is remembered which relay has `key`.
    pub(super) fn knows(&self, key: &NodePublic) -> bool {
        self.detours.get(key).is_some()
    }

    pub(super) fn note(&mut self, forwarder: Arc<Forwarder>) {
        self.detours.put(forwarder);
    }

    /// Sends a packet on to the relay that has its destination, or drops it. Returns the link if much waits for it.
    #[inline(never)]
    pub(super) fn send(
        &mut self,
        sender: &Arc<Peer>,
        to: &NodePublic,
        packet: &[u8],
        desk: &mut Desk<'_>,
    ) -> Option<Arc<Peer>> {
        let Some(forwarder) = self.detours.get(to) else {
            self.drop_unknown(DropReason::UnknownDestination, sender, to, packet, desk);
            return None;
        };
        let link = forwarder.link();
        desk.tally.handed_to_link(packet.len());
        let waiting = desk.push_packet(link, Hop::Relay, packet, |outbox, now, limits, pool, tally| {
            outbox.push_forward(now, (&sender.key, to), packet, limits, pool, tally);
        });
        (waiting > hold_above(desk.limits)).then(|| link.clone())
    }

    /// Drops a packet to a key that is not here. Who sent disco is told, now and then: it has other ways to try.
    pub(super) fn drop_unknown(
        &mut self,
        reason: DropReason,
        sender: &Arc<Peer>,
        to: &NodePublic,
        packet: &[u8],
        desk: &mut Desk<'_>,
    ) {
        let kind = PacketKind::of(packet);
        desk.tally.dropped(Hop::Client, reason, kind, packet.len());
        if kind == PacketKind::Disco && self.not_here.spend(desk.now) {
            desk.push_control(sender, &ServerFrame::PeerGone { peer: *to, reason: GoneReason::NotHere });
            desk.tally.gone_not_here += 1;
        }
    }
}

/// How often a client is told that a peer is not here: as upstream, three at once and then one a second.
#[derive(Clone, Copy, Debug)]
struct NotHereBudget {
    left: u8,
    since: Instant,
}

impl NotHereBudget {
    const BURST: u8 = 3;
    const INTERVAL: Duration = Duration::from_secs(1);

    const fn new(now: Instant) -> Self {
        Self { left: Self::BURST, since: now }
    }

    fn spend(&mut self, now: Instant) -> bool {
        let earned = now.since(self.since).as_nanos() / Self::INTERVAL.as_nanos();
        if earned > 0 {
            self.left = Self::BURST.min(self.left.saturating_add(u8::try_from(earned).unwrap_or(u8::MAX)));
            self.since += Self::INTERVAL * u32::try_from(earned).unwrap_or(u32::MAX);
        }
        let granted = self.left > 0;
        self.left -= u8::from(granted);
        granted
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn not_here_is_told_three_times_at_once_and_then_once_a_second() {
        let at = |ms: u64| Instant::from_nanos(ms * 1_000_000);
        let mut budget = NotHereBudget::new(at(0));
        let granted =
            |budget: &mut NotHereBudget, ms, tries| (0..tries).filter(|_| budget.spend(at(ms))).count();
        assert_eq!(granted(&mut budget, 10, 6), 3);
        assert_eq!(granted(&mut budget, 900, 6), 0);
        assert_eq!(granted(&mut budget, 1_000, 6), 1);
        assert_eq!(granted(&mut budget, 100_000, 6), 3);
    }
}
