//! What one turn of a worker shares with everything that handles frames: the time, the tally, the buffers, and what the
//! turn leaves to be done at its end.

use std::collections::VecDeque;
use std::sync::Arc;

use towpath_relay_proto::egress::{FlushContext, Pushed};
use towpath_relay_proto::outbox::{DropReason, DropSink, Hop, Outbox};
use towpath_relay_proto::session::{Close, PacketKind};
use towpath_relay_proto::watch_backlog::PresenceChange;
use towpath_wire::derp::frame::{GoneReason, ServerFrame};
use towpath_wire::key::NodePublic;
use towpath_wire::pool::BufferPool;
use towpath_wire::time::Instant;

use crate::config::{CurrentLimits, DataPlaneConfig};
use crate::counters::{ColdCount, Tally};
use crate::departures::Departures;
use crate::inbox::OwnerRequest;
use crate::key::RouteKey;
use crate::peer::{ConnectionRef, Peer};
use crate::registry::Registry;
use crate::shared::PlaneShared;
use crate::transport::WriteScratch;
use crate::watchers::PresenceEvent;

/// The turn of a worker. One value serves all turns; its clock is read once in each.
#[derive(Debug)]
pub(crate) struct Turn<'a> {
    pub(crate) now: Instant,
    pub(crate) shared: &'a PlaneShared,
    pub(crate) pool: BufferPool,
    pub(crate) tally: Tally,
    pub(crate) scratch: WriteScratch,
    /// The peers whose outbox this turn made dirty, each once. They are flushed at the end of the turn.
    pub(crate) dirty: Vec<Arc<Peer>>,
    /// Watchers that are being sent their snapshot, some of it in each turn.
    pub(crate) snapshots: VecDeque<ConnectionRef>,
    /// What is left to do after connections have gone, some of it in each turn.
    pub(crate) departures: Departures,
}

impl<'a> Turn<'a> {
    pub(crate) fn new(shared: &'a PlaneShared, now: Instant) -> Self {
        Self {
            now,
            shared,
            pool: BufferPool::default(),
            tally: Tally::default(),
            scratch: WriteScratch::new(),
            dirty: Vec::new(),
            snapshots: VecDeque::new(),
            departures: Departures::default(),
        }
    }

    pub(crate) const fn registry(&self) -> &'a Registry {
        &self.shared.registry
    }

    pub(crate) const fn config(&self) -> &'a DataPlaneConfig {
        &self.shared.config
    }

    pub(crate) fn limits(&self) -> &'a CurrentLimits {
        &self.shared.limits
    }

    /// The context of a flush in this turn.
    pub(crate) fn flush_context(&mut self) -> FlushContext<'_, WriteScratch, Tally> {
        FlushContext {
            now: self.now,
            pool: &mut self.pool,
            drops: &mut self.tally,
            scratch: &mut self.scratch,
        }
    }

    /// Appends a control frame for `peer`.
    pub(crate) fn push_control(&mut self, peer: &Arc<Peer>, frame: &ServerFrame<'_>) {
        let pool = &mut self.pool;
        let pushed = peer.egress.push(|outbox| outbox.push_control(frame, pool));
        self.note_control(peer, pushed);
    }

    /// Notes the outcome of pushing a control frame.
    pub(crate) fn note_control(&mut self, peer: &Arc<Peer>, pushed: Pushed) {
        match pushed {
            Pushed::MustFlush => self.dirty.push(peer.clone()),
            Pushed::Queued => {}
            Pushed::Full | Pushed::Closed => self.tally.add_cold(ColdCount::ControlDropped, 1),
        }
    }

    /// Delivers an event of the registry to `peer`.
    pub(crate) fn notify(&mut self, peer: &Arc<Peer>, event: PresenceEvent) {
        match event {
            PresenceEvent::Changed(key, change) => self.push_change(peer, *key.node(), change),
            PresenceEvent::Health(text) => self.push_control(peer, &ServerFrame::Health(text)),
        }
    }

    fn push_change(&mut self, watcher: &Arc<Peer>, key: NodePublic, change: PresenceChange) {
        match watcher.egress.push(|outbox| outbox.push_change(key, change)) {
            Pushed::MustFlush => self.dirty.push(watcher.clone()),
            Pushed::Full => self.shared.ask_owner(watcher, OwnerRequest::Close(Close::WatchOverflow)),
            Pushed::Queued | Pushed::Closed => {}
        }
    }

    /// Notes that `peer`, whose key has other connections, has sent something.
    pub(crate) fn note_sent(&mut self, peer: &Peer) {
        self.registry().note_sent(peer, &mut |each, event| self.notify(each, event));
    }

    /// Tells `listener` that `key` has left.
    pub(crate) fn push_gone(&mut self, listener: &Arc<Peer>, key: &RouteKey) {
        let gone = ServerFrame::PeerGone { peer: *key.node(), reason: GoneReason::Disconnected };
        self.push_control(listener, &gone);
        self.tally.add_cold(ColdCount::GoneDisconnected, 1);
    }

    /// Appends a packet for `peer` with `append`. Returns whether `peer` is congested then. Each caller passes an
    /// `append` of its own, so that the compiler inlines the one that is called for every packet.
    #[inline]
    pub(crate) fn push_packet(
        &mut self,
        peer: &Arc<Peer>,
        hop: Hop,
        packet: &[u8],
        append: impl FnOnce(&mut Outbox, Instant, &mut BufferPool, &mut Tally),
    ) -> bool {
        let now = self.now;
        let (pool, tally) = (&mut self.pool, &mut self.tally);
        let mut congested = false;
        let pushed = peer.egress.push(|outbox| {
            append(outbox, now, pool, tally);
            congested = outbox.is_congested();
            true
        });
        match pushed {
            Pushed::MustFlush => self.dirty.push(peer.clone()),
            Pushed::Queued => {}
            Pushed::Full | Pushed::Closed => {
                self.tally.dropped(hop, DropReason::Gone, PacketKind::of(packet), packet.len());
            }
        }
        congested
    }
}
