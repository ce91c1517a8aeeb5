//! The ingress of a connection: where its packets go, to a connection of this relay, to another relay of the region, or
//! nowhere.

use std::sync::Arc;
use std::time::Duration;

use towpath_relay_proto::key_routes::Route;
use towpath_relay_proto::outbox::{DropReason, DropSink, Hop};
use towpath_relay_proto::session::{PacketKind, Relayed};
use towpath_wire::derp::frame::{GoneReason, ServerFrame};
use towpath_wire::key::NodePublic;
use towpath_wire::time::Instant;

use crate::budget::{Budget, Rate};
use crate::counters::{ColdCount, Traffic};
use crate::key::RouteKey;
use crate::mesh::MeshState;
use crate::peer::Peer;
use crate::routes::{Forwarder, RouteCache, RouteSlot};
use crate::turn::Turn;

/// How long a connection is held at a time before the reason is looked at again.
pub(crate) const HOLD: Duration = Duration::from_millis(1);

/// A connection as the source of packets.
#[derive(Debug)]
pub(crate) struct Ingress {
    pub(crate) peer: Arc<Peer>,
    routes: RouteCache,
    not_here: Budget,
    /// `None` for a connection that has nothing to do with other relays, which is nearly every one.
    pub(crate) mesh: Option<Box<MeshState>>,
    /// A destination that was congested when a packet was sent to it.
    congested: Option<Arc<Peer>>,
    holds: Budget,
    /// The packets that came.
    pub(crate) received: Traffic,
}

/// Why a connection is not read for a moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Hold {
    /// A destination has so much waiting that more packets for it would only be dropped.
    Congestion,
}

impl Ingress {
    pub(crate) fn new(peer: Arc<Peer>) -> Self {
        Self {
            peer,
            routes: RouteCache::default(),
            not_here: Budget::default(),
            mesh: None,
            congested: None,
            holds: Budget::default(),
            received: Traffic::default(),
        }
    }

    pub(crate) fn mesh_mut(&mut self) -> &mut MeshState {
        self.mesh.get_or_insert_default()
    }

    /// Sends a packet towards `to`.
    #[inline]
    pub(crate) fn send(&mut self, to: &NodePublic, packet: &[u8], turn: &mut Turn<'_>) {
        turn.tally.received(PacketKind::of(packet), packet.len());
        self.received.add(packet.len());
        let slot = match self.routes.find(to) {
            Some(slot) => slot,
            None => match self.look_up(&RouteKey::new(*to), turn) {
                Some(Route::Local(slot)) => slot,
                Some(Route::Via(forwarder)) => return self.send_via(&forwarder, to, packet, turn),
                None => return self.drop_unknown(DropReason::UnknownDestination, to, packet, turn),
            },
        };
        let destination = self.routes.at(slot);
        let from = self.peer.key.node();
        let congested = turn.push_packet(destination, Hop::Client, packet, |outbox, now, pool, tally| {
            outbox.push_packet(now, from, packet, pool, tally);
        });
        if congested && self.congested.is_none() {
            self.congested = Some(destination.clone());
        }
    }

    /// The reason not to read the connection at `now`, if there is one. Forgets a destination that has caught up.
    #[inline]
    pub(crate) fn hold(&mut self, now: Instant) -> Option<Hold> {
        self.congested.take_if(|destination| !destination.egress.is_congested());
        (self.congested.is_some() && self.holds.spend(&HOLDS, now)).then_some(Hold::Congestion)
    }

    /// Asks the registry for the route to `to`: on the first packet, and on each packet that goes over another relay.
    /// Caches the answer. Subscribes a local destination to the departure of this connection's key.
    #[inline(never)]
    fn look_up(&mut self, to: &RouteKey, turn: &Turn<'_>) -> Option<Route<RouteSlot, Arc<Forwarder>>> {
        if let Some(forwarder) = self.mesh.as_ref().and_then(|mesh| mesh.routes.get(to)) {
            return Some(Route::Via(forwarder.clone()));
        }
        Some(match turn.registry().find(to)? {
            Route::Local(destination) => {
                // The key of this connection is here, so the subscription needs no note.
                let _ = turn.registry().subscribe(&self.peer.key, &destination);
                Route::Local(self.routes.put(destination))
            }
            Route::Via(forwarder) => {
                self.mesh_mut().routes.put(forwarder.clone());
                Route::Via(forwarder)
            }
        })
    }

    /// Sends a packet to the relay that has its destination.
    #[inline(never)]
    fn send_via(&mut self, forwarder: &Forwarder, to: &NodePublic, packet: &[u8], turn: &mut Turn<'_>) {
        let link = forwarder.link();
        turn.tally.handed_to_link(packet.len());
        let keys = (self.peer.key.node(), to);
        let congested = turn.push_packet(link, Hop::Relay, packet, |outbox, now, pool, tally| {
            outbox.push_forward(now, keys, packet, pool, tally);
        });
        if congested && self.congested.is_none() {
            self.congested = Some(link.clone());
        }
    }

    /// Forwards a packet from the relay at the other end to a client of this relay. The packet never goes to a third
    /// relay.
    ///
    /// A slow destination does not hold the link back, because that would delay the packets for all others.
    #[inline(never)]
    pub(crate) fn relay(&mut self, relayed: Relayed<'_>, turn: &mut Turn<'_>) {
        let (from, to, packet) = relayed.parts();
        turn.tally.forwarded_in(packet.len());
        self.received.add(packet.len());
        match self.mesh_mut().pairs.find(&from.into(), &to.into(), turn.registry()) {
            Some(destination) => {
                turn.push_packet(destination, Hop::Client, packet, |outbox, now, pool, tally| {
                    outbox.push_packet(now, &from, packet, pool, tally);
                });
            }
            None => self.drop_unknown(DropReason::UnknownOnForward, &to, packet, turn),
        }
    }

    /// Drops a packet to an unknown key. A sender of disco is told of it at a limited rate, so that it tries other
    /// paths.
    fn drop_unknown(&mut self, reason: DropReason, to: &NodePublic, packet: &[u8], turn: &mut Turn<'_>) {
        let kind = PacketKind::of(packet);
        turn.tally.dropped(Hop::Client, reason, kind, packet.len());
        // In the account of its sender, which has one of drops anyway.
        self.peer.egress.note_dropped(reason);
        if kind == PacketKind::Disco && self.not_here.spend(&NOT_HERE, turn.now) {
            let gone = ServerFrame::PeerGone { peer: *to, reason: GoneReason::NotHere };
            turn.push_control(&self.peer, &gone);
            turn.tally.add_cold(ColdCount::GoneNotHere, 1);
        }
    }
}

/// The limit on holding a connection back until a slow destination catches up: 20 holds at once, and a tenth of the time
/// in the long run, however many destinations are slow and however often they catch up. A destination that needs longer
/// loses packets, so that packets for others are not delayed.
const HOLDS: Rate = Rate { burst: 20, interval: HOLD.saturating_mul(10) };

/// The limit on telling a client that a peer is not here: like derper, three at once and then one a second.
const NOT_HERE: Rate = Rate { burst: 3, interval: Duration::from_secs(1) };

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn not_here_is_told_three_times_at_once_and_then_once_a_second() {
        let at = |ms: u64| Instant::from_nanos(ms * 1_000_000);
        let mut budget = Budget::default();
        let granted =
            |budget: &mut Budget, ms, tries| (0..tries).filter(|_| budget.spend(&NOT_HERE, at(ms))).count();
        assert_eq!(granted(&mut budget, 10, 6), 3);
        assert_eq!(granted(&mut budget, 1_000, 6), 0);
        assert_eq!(granted(&mut budget, 1_010, 6), 1);
        assert_eq!(granted(&mut budget, 100_000, 6), 3);
    }

    #[test]
    fn a_sender_is_held_for_a_tenth_of_its_time_at_most() {
        let mut budget = Budget::default();
        let held = (0..60_000).filter(|ms| budget.spend(&HOLDS, Instant::from_nanos(ms * 1_000_000))).count();
        assert!((6_000..=6_020).contains(&held), "{held} ms of 60,000");
    }
}
