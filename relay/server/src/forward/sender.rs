//! Where the packets of a connection go: to a connection here, to another relay of the region, or nowhere.

use std::sync::Arc;
use std::time::Duration;

use towpath_relay_proto::outbox::{DropReason, DropSink, Hop, Limits};
use towpath_relay_proto::session::PacketKind;
use towpath_wire::derp::frame::{GoneReason, ServerFrame};
use towpath_wire::key::NodePublic;
use towpath_wire::time::Instant;

use super::connection::READ_SIZE;
use super::desk::Desk;
use super::mesh::MeshSide;
use super::peer::Peer;
use super::route::{Forwarder, Place, Route, Routes};

/// A connection as the source of packets.
#[derive(Debug)]
pub(super) struct Sender {
    pub(super) peer: Arc<Peer>,
    routes: Routes,
    not_here: NotHereBudget,
    /// `None` for those who have nothing to do with other relays, so for nearly all.
    pub(super) mesh: Option<Box<MeshSide>>,
    ahead: Option<Ahead>,
}

/// A destination that had much waiting when a client sent to it.
#[derive(Debug)]
struct Ahead {
    of: Arc<Peer>,
    since: Instant,
}

/// The way to a destination, found once for each packet: the flags on which it rests may change at any moment.
enum Found {
    Here(Place),
    By(Arc<Forwarder>),
}

/// How much may wait at a destination before those who send to it are held back: half of what may wait at all, and so
/// little that what one read brings still fits.
fn hold_above(limits: &Limits) -> usize {
    (limits.bytes / 2).min(limits.bytes.saturating_sub(READ_SIZE))
}

impl Sender {
    pub(super) fn new(peer: Arc<Peer>) -> Self {
        Self { peer, routes: Routes::default(), not_here: NotHereBudget::default(), mesh: None, ahead: None }
    }

    /// Sends a packet to wherever `to` is.
    #[inline]
    pub(super) fn send(&mut self, to: &NodePublic, packet: &[u8], desk: &mut Desk<'_>) {
        desk.tally.received(PacketKind::of(packet), packet.len());
        let place = match self.routes.find(to) {
            Some(place) => place,
            None => match self.look_up(to, desk) {
                Some(Found::Here(place)) => place,
                Some(Found::By(forwarder)) => return self.send_by(&forwarder, to, packet, desk),
                None => return self.drop_unknown(DropReason::UnknownDestination, to, packet, desk),
            },
        };
        let peer = self.routes.at(place);
        let waiting = desk.push_to(peer, &self.peer.key, packet);
        if waiting > hold_above(desk.limits) && self.ahead.is_none() {
            self.ahead = Some(Ahead { of: peer.clone(), since: desk.now });
        }
    }

    /// Since when a destination has so much waiting that reading on would only be dropping. Once it has caught up it is
    /// forgotten.
    pub(super) fn ahead_since(&mut self, limits: &Limits) -> Option<Instant> {
        let caught_up = self.ahead.take_if(|ahead| ahead.of.egress.waiting() <= hold_above(limits)).is_some();
        if caught_up { None } else { self.ahead.as_ref().map(|ahead| ahead.since) }
    }

    /// Looks for the way to `to`: the first time, and each time that it leads over another relay. What the registry says is
    /// remembered. A connection here joins the audience of this one's key, so that it is told when that leaves.
    #[inline(never)]
    fn look_up(&mut self, to: &NodePublic, desk: &Desk<'_>) -> Option<Found> {
        if let Some(forwarder) = self.mesh.as_ref().and_then(|side| side.detours.get(to)) {
            return Some(Found::By(forwarder.clone()));
        }
        Some(match desk.registry.find(to)? {
            Route::Here(peer) => {
                // This connection is here.
                let _ = desk.registry.note_heard(&self.peer.key, &peer);
                Found::Here(self.routes.put(peer))
            }
            Route::By(forwarder) => {
                self.mesh_side().detours.put(forwarder.clone());
                Found::By(forwarder)
            }
        })
    }

    /// Sends a packet on to the relay that has its destination.
    #[inline(never)]
    fn send_by(&mut self, forwarder: &Forwarder, to: &NodePublic, packet: &[u8], desk: &mut Desk<'_>) {
        let link = forwarder.link();
        desk.tally.handed_to_link(packet.len());
        let waiting = desk.push_packet(link, Hop::Relay, packet, |outbox, now, limits, pool, tally| {
            outbox.push_forward(now, (&self.peer.key, to), packet, limits, pool, tally);
        });
        if waiting > hold_above(desk.limits) && self.ahead.is_none() {
            self.ahead = Some(Ahead { of: link.clone(), since: desk.now });
        }
    }

    /// Drops a packet to a key that is not here. Who sent disco is told, now and then: it has other ways to try.
    pub(super) fn drop_unknown(
        &mut self,
        reason: DropReason,
        to: &NodePublic,
        packet: &[u8],
        desk: &mut Desk<'_>,
    ) {
        let kind = PacketKind::of(packet);
        desk.tally.dropped(Hop::Client, reason, kind, packet.len());
        if kind == PacketKind::Disco && self.not_here.spend(desk.now) {
            desk.push_control(&self.peer, &ServerFrame::PeerGone { peer: *to, reason: GoneReason::NotHere });
            desk.tally.rare_mut().gone_not_here += 1;
        }
    }
}

/// How often a client is told that a peer is not here: as upstream, three at once and then one a second.
#[derive(Clone, Copy, Debug)]
struct NotHereBudget {
    /// When all three are there again.
    full_at: Instant,
}

impl Default for NotHereBudget {
    fn default() -> Self {
        Self { full_at: Instant::ZERO }
    }
}

impl NotHereBudget {
    const BURST: u32 = 3;
    const INTERVAL: Duration = Duration::from_secs(1);

    fn spend(&mut self, now: Instant) -> bool {
        let granted = self.full_at.since(now) <= Self::INTERVAL * (Self::BURST - 1);
        if granted {
            self.full_at = self.full_at.max(now) + Self::INTERVAL;
        }
        granted
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn not_here_is_told_three_times_at_once_and_then_once_a_second() {
        let at = |ms: u64| Instant::from_nanos(ms * 1_000_000);
        let mut budget = NotHereBudget::default();
        let granted =
            |budget: &mut NotHereBudget, ms, tries| (0..tries).filter(|_| budget.spend(at(ms))).count();
        assert_eq!(granted(&mut budget, 10, 6), 3);
        assert_eq!(granted(&mut budget, 1_000, 6), 0);
        assert_eq!(granted(&mut budget, 1_010, 6), 1);
        assert_eq!(granted(&mut budget, 100_000, 6), 3);
    }
}
