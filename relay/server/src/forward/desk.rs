//! What handling frames needs besides the connection itself, and what every kind of connection does with it.

use std::collections::VecDeque;
use std::sync::Arc;

use towpath_relay_proto::egress::Pushed;
use towpath_relay_proto::news::Change;
use towpath_relay_proto::outbox::{DropReason, DropSink, Hop, Limits, Outbox};
use towpath_relay_proto::session::{Close, PacketKind};
use towpath_wire::derp::frame::{GoneReason, ServerFrame};
use towpath_wire::key::NodePublic;
use towpath_wire::pool::BufferPool;
use towpath_wire::time::Instant;

use super::counters::Tally;
use super::peer::Peer;
use super::registry::{Notice, Registry};
use super::worker::Entry;

/// What handling frames needs besides the connection itself.
pub(super) struct Desk<'a> {
    pub(super) now: Instant,
    pub(super) limits: &'a Limits,
    /// This relay's own.
    pub(super) own_key: &'a NodePublic,
    pub(super) registry: &'a Registry,
    pub(super) pool: &'a mut BufferPool,
    pub(super) tally: &'a mut Tally,
    /// Peers whose outbox this turn made dirty, once each.
    pub(super) dirty: &'a mut Vec<Arc<Peer>>,
    /// Connections that must be closed, and why.
    pub(super) closing: &'a mut Vec<(Arc<Peer>, Close)>,
    /// Watchers that are being told of all who are here.
    pub(super) rolls: &'a mut VecDeque<Entry>,
}

impl Desk<'_> {
    /// Appends a control frame for `peer`.
    pub(super) fn push_control(&mut self, peer: &Arc<Peer>, frame: &ServerFrame<'_>) {
        let pool = &mut *self.pool;
        let pushed = peer.egress.push(|outbox| outbox.push_control(frame, pool));
        self.note_control(peer, pushed);
    }

    /// Notes what became of a frame that is no packet.
    pub(super) fn note_control(&mut self, peer: &Arc<Peer>, pushed: Pushed) {
        match pushed {
            Pushed::MustFlush => self.dirty.push(peer.clone()),
            Pushed::Queued => {}
            Pushed::Full | Pushed::Closed => self.tally.rare_mut().control_dropped += 1,
        }
    }

    /// Tells `peer` of what has changed in the registry, or has it closed.
    pub(super) fn notify(&mut self, peer: &Arc<Peer>, notice: Notice) {
        match notice {
            Notice::News(key, change) => self.push_news(peer, key, change),
            Notice::Health(words) => self.push_control(peer, &ServerFrame::Health(words)),
        }
    }

    /// Notes that `peer`, whose key has other connections, has sent something.
    pub(super) fn note_sent(&mut self, peer: &Peer) {
        let registry = self.registry;
        registry.note_sent(peer, &mut |each, notice| self.notify(each, notice));
    }

    /// Tells `listener` that `key` has left.
    pub(super) fn push_gone(&mut self, listener: &Arc<Peer>, key: &NodePublic) {
        let gone = ServerFrame::PeerGone { peer: *key, reason: GoneReason::Disconnected };
        self.push_control(listener, &gone);
        self.tally.rare_mut().gone_disconnected += 1;
    }

    fn push_news(&mut self, watcher: &Arc<Peer>, key: NodePublic, change: Change) {
        match watcher.egress.push(|outbox| outbox.push_news(key, change)) {
            Pushed::MustFlush => self.dirty.push(watcher.clone()),
            Pushed::Full => self.closing.push((watcher.clone(), Close::WatchOverflow)),
            Pushed::Queued | Pushed::Closed => {}
        }
    }

    /// Appends a packet `from` a client for `peer`; how much then waits there.
    #[inline]
    pub(super) fn push_to(&mut self, peer: &Arc<Peer>, from: &NodePublic, packet: &[u8]) -> usize {
        self.push_packet(peer, Hop::Client, packet, |outbox, now, limits, pool, tally| {
            outbox.push_packet(now, from, packet, limits, pool, tally);
        })
    }

    /// Has `append` append a packet for `peer`; how much then waits there. Made anew for each `append`, so that none is a
    /// call.
    #[inline]
    pub(super) fn push_packet(
        &mut self,
        peer: &Arc<Peer>,
        hop: Hop,
        packet: &[u8],
        append: impl FnOnce(&mut Outbox, Instant, &Limits, &mut BufferPool, &mut Tally),
    ) -> usize {
        let (now, limits) = (self.now, self.limits);
        let (pool, tally) = (&mut *self.pool, &mut *self.tally);
        let mut waiting = 0;
        let pushed = peer.egress.push(|outbox| {
            append(outbox, now, limits, pool, tally);
            waiting = outbox.len();
            true
        });
        match pushed {
            Pushed::MustFlush => self.dirty.push(peer.clone()),
            Pushed::Queued => {}
            Pushed::Full | Pushed::Closed => {
                self.tally.dropped(hop, DropReason::Gone, PacketKind::of(packet), packet.len());
            }
        }
        waiting
    }
}
