//! What waits to be sent to one connection: control frames, disco, and other packets, bounded by bytes and by age.
//!
//! A packet is copied once, into the frame that will be sent. Control frames go first, then disco, then the rest; disco
//! has a bound of its own, so that it cannot starve the packets behind it. Packets that cannot be sent at once wait in a
//! queue for each sender. Where there is no room, the **oldest** packet of the sender that holds the most is dropped: a
//! tunnelled TCP learns more from a loss now than from a delivery of stale packets later, and a client that floods a key
//! drops only its own packets. A frame that waited too long is dropped, so that a slow reader's backlog is short in time
//! as well as in bytes.
//!
//! Presence changes for a watcher are none of these: they must not be lost, and may be many. They wait in a
//! [`WatchBacklog`] and become control frames only as earlier control frames leave.

use std::sync::Arc;
use std::time::Duration;

use towpath_wire::derp::frame::{ClientFrame, ServerFrame};
use towpath_wire::key::NodePublic;
use towpath_wire::pool::BufferPool;
use towpath_wire::time::Instant;

mod account;
mod drops;
mod lane;
mod packets;
mod senders;
mod shared_limits;

use self::account::Handed;
pub use self::account::OutboxAccount;
pub use self::drops::{DropCounts, DropReason, DropSink, Hop};
use self::lane::Lane;
use self::packets::{Bounds, Packets};
pub use self::shared_limits::SharedLimits;
use crate::session::PacketKind;
use crate::watch_backlog::{PresenceChange, WatchBacklog};

/// How many packets derper's queues hold, of any length. Probers of relays count on that number.
pub const UPSTREAM_PACKETS: usize = 32;

/// The bounds of an outbox.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Most bytes of frames that wait, disco and control frames apart. At least one frame always fits.
    pub bytes: usize,
    /// Where so many packets as long as the oldest or the newest are more than `bytes`, so many wait; not of disco.
    pub packets: usize,
    /// Most bytes of disco frames that wait.
    pub disco_bytes: usize,
    /// How long a packet waits at most.
    pub age: Duration,
    /// The bytes above which clients that send to the connection should be held back.
    pub hold_above: usize,
}

/// Most bytes of control frames that wait. Beyond that, new frames are dropped: a client that does not read its pongs
/// has no use for more of them.
pub const MAX_CONTROL: usize = 16 * 1024;

/// The longest control frame: a Health frame with the longest text that this relay sends, or a ServerInfo.
const MAX_CONTROL_FRAME: usize = 256;

/// What waits to be sent to one connection.
#[derive(Debug)]
pub struct Outbox {
    limits: Arc<Limits>,
    control: Lane,
    disco: Packets,
    data: Packets,
    sent: Handed,
    /// The socket is full.
    blocked: bool,
    /// `None` unless a watcher is behind.
    backlog: Option<Box<WatchBacklog>>,
}

impl Outbox {
    /// An empty outbox with these bounds.
    #[must_use]
    pub fn new(limits: Arc<Limits>) -> Self {
        let (control, disco, data, sent) = Default::default();
        Self { limits, control, disco, data, sent, blocked: false, backlog: None }
    }

    /// Notes whether the socket is full, so that what is pushed now will wait.
    pub const fn set_blocked(&mut self, blocked: bool) {
        self.blocked = blocked;
    }

    /// Appends a packet `from` a peer.
    #[inline(always)]
    pub fn push_packet(
        &mut self,
        now: Instant,
        from: &NodePublic,
        packet: &[u8],
        pool: &mut BufferPool,
        drops: &mut impl DropSink,
    ) {
        let (kind, len) = (PacketKind::of(packet), ServerFrame::recv_packet_len(packet.len()));
        match self.buffer_for((from, len), (now, kind), pool, drops) {
            Some(buffer) => ServerFrame::encode_recv_packet(buffer, from, packet),
            None => self.refuse(Hop::Client, kind, packet.len(), drops),
        }
    }

    /// Appends a packet `from` a peer here `to` one behind the relay at the other end.
    #[inline]
    pub fn push_forward(
        &mut self,
        now: Instant,
        (from, to): (&NodePublic, &NodePublic),
        packet: &[u8],
        pool: &mut BufferPool,
        drops: &mut impl DropSink,
    ) {
        let (kind, len) = (PacketKind::of(packet), ClientFrame::forward_packet_len(packet.len()));
        match self.buffer_for((from, len), (now, kind), pool, drops) {
            Some(buffer) => ClientFrame::ForwardPacket { from: *from, to: *to, packet }.encode(buffer),
            None => self.refuse(Hop::Relay, kind, packet.len(), drops),
        }
    }

    /// Drops a packet for which there is no memory.
    #[cold]
    fn refuse(&mut self, hop: Hop, kind: PacketKind, bytes: usize, drops: &mut impl DropSink) {
        let packets = match kind {
            PacketKind::Disco => &mut self.disco,
            PacketKind::Other => &mut self.data,
        };
        packets.note_dropped(DropReason::Memory, 1);
        drops.dropped(hop, DropReason::Memory, kind, bytes);
    }

    /// The buffer for a packet of this kind and sender, in a frame of `len` bytes.
    #[inline(always)]
    fn buffer_for(
        &mut self,
        (from, len): (&NodePublic, usize),
        (now, kind): (Instant, PacketKind),
        pool: &mut BufferPool,
        drops: &mut impl DropSink,
    ) -> Option<&mut Vec<u8>> {
        let bounds = self.limits.of(kind);
        let packets = match kind {
            PacketKind::Disco => &mut self.disco,
            PacketKind::Other => &mut self.data,
        };
        packets.buffer_for((from, len), (now, self.blocked), bounds, pool, drops)
    }

    /// Appends a control frame. Returns whether there was room for it.
    pub fn push_control(&mut self, frame: &ServerFrame<'_>, pool: &mut BufferPool) -> bool {
        self.control_buffer(pool).map(|buffer| frame.encode(buffer)).is_some()
    }

    /// Appends a control frame that is encoded. Returns whether there was room for it.
    pub fn push_encoded(&mut self, frame: &[u8], pool: &mut BufferPool) -> bool {
        let buffer = self.control_buffer(pool);
        buffer.map(|buffer| buffer.extend_from_slice(frame)).is_some()
    }

    /// Appends a request to the relay at the other end of a link. Returns whether there was room for it.
    pub fn push_request(&mut self, frame: &ClientFrame<'_>, pool: &mut BufferPool) -> bool {
        self.control_buffer(pool).map(|buffer| frame.encode(buffer)).is_some()
    }

    /// The buffer for control frames, if there is room.
    fn control_buffer(&mut self, pool: &mut BufferPool) -> Option<&mut Vec<u8>> {
        if self.control.len() >= MAX_CONTROL {
            return None;
        }
        self.control.note(Instant::ZERO, Duration::MAX, MAX_CONTROL_FRAME, pool);
        Some(&mut self.control.buffer)
    }

    /// Adds a presence change to the backlog of a watcher. Returns false where the backlog is full; the watcher must
    /// then be closed.
    #[must_use]
    pub fn push_change(&mut self, key: NodePublic, change: PresenceChange) -> bool {
        self.backlog.get_or_insert_default().push(key, change)
    }

    /// Keys of which a watcher is owed a change.
    #[must_use]
    pub fn backlog(&self) -> usize {
        self.backlog.as_ref().map_or(0, |backlog| backlog.len())
    }

    /// Makes control frames of as many changes as there is room for.
    #[cold]
    fn write_backlog(&mut self, pool: &mut BufferPool) {
        while let Some(backlog) = &mut self.backlog
            && self.control.len() < MAX_CONTROL
        {
            match backlog.pop() {
                Some((key, change)) => {
                    self.push_control(&change.frame(key), pool);
                }
                // Its memory is not kept: the next change may be long in coming.
                None => self.backlog = None,
            }
        }
    }

    /// Bytes that wait.
    #[must_use]
    pub fn len(&self) -> usize {
        self.control.len() + self.disco.len() + self.data.len()
    }

    /// Whether a packet waits.
    #[must_use]
    pub fn has_packets(&self) -> bool {
        self.disco.len() + self.data.len() > 0
    }

    /// Whether more bytes wait than [`Limits::hold_above`].
    #[must_use]
    pub fn is_congested(&self) -> bool {
        self.len() > self.limits.hold_above
    }

    /// Whether nothing waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0 && self.backlog.is_none()
    }

    /// Hands out what waits and has not waited too long, as far as it goes into one batch; `None` when that is nothing. Of
    /// the backlog of a watcher it hands out as many changes as may wait as control frames.
    pub fn take(&mut self, now: Instant, pool: &mut BufferPool, drops: &mut impl DropSink) -> Option<Batch> {
        if self.backlog.is_some() {
            self.write_backlog(pool);
        }
        self.expire(now, pool, drops);
        if self.is_empty() {
            return None;
        }
        let control = std::mem::take(&mut self.control);
        let disco = self.disco.take(self.limits.of(PacketKind::Disco), pool);
        let data = self.data.take(self.limits.of(PacketKind::Other), pool);
        self.sent.add(&disco);
        self.sent.add(&data);
        Some(Batch { lanes: [control, disco, data] })
    }

    /// Adds a packet to the account that was dropped elsewhere.
    #[cold]
    pub(crate) fn note_dropped(&mut self, reason: DropReason) {
        self.data.note_dropped(reason, 1);
    }

    /// Notes that what is left of `batch` will not be sent, because a write failed.
    pub(crate) fn note_write_error(&mut self, batch: &Batch) {
        let [_, disco, data] = &batch.lanes;
        for (packets, unsent) in [(&mut self.disco, disco), (&mut self.data, data)] {
            self.sent.take_back(unsent);
            if unsent.frames() > 0 {
                packets.note_dropped(DropReason::WriteError, unsent.frames().into());
            }
        }
    }

    /// What has gone through the outbox, what waits in it, and its bound.
    #[must_use]
    pub fn account(&self) -> OutboxAccount {
        let mut dropped = DropCounts::default();
        [&self.disco, &self.data]
            .into_iter()
            .filter_map(Packets::dropped)
            .for_each(|part| dropped.merge(part));
        OutboxAccount {
            sent_packets: self.sent.packets,
            sent_bytes: self.sent.bytes,
            waiting_packets: self.disco.frames() + self.data.frames(),
            waiting_bytes: self.disco.len() + self.data.len(),
            bound: self.limits.bytes,
            dropped,
        }
    }

    /// Drops what has waited too long.
    #[inline]
    pub fn expire(&mut self, now: Instant, pool: &mut BufferPool, drops: &mut impl DropSink) {
        let deadline = now - self.limits.age;
        self.disco.expire(deadline, PacketKind::Disco, pool, drops);
        self.data.expire(deadline, PacketKind::Other, pool, drops);
    }

    /// Until when no packet will have waited too long, neither one that waits at `now` nor one that comes later.
    #[must_use]
    pub fn next_expiry(&self, now: Instant) -> Instant {
        let since = self.disco.since().into_iter().chain(self.data.since()).min();
        since.unwrap_or(now) + self.limits.age
    }

    /// Takes back the unsent frames of `batch`, in front of frames that came since. Drops the oldest beyond the bounds.
    pub fn give_back(&mut self, batch: Batch, pool: &mut BufferPool, drops: &mut impl DropSink) {
        let [control, disco, data] = batch.lanes;
        self.sent.take_back(&disco);
        self.sent.take_back(&data);
        self.control.restore(control, pool);
        self.disco.give_back(disco, self.limits.of(PacketKind::Disco), pool, drops);
        self.data.give_back(data, self.limits.of(PacketKind::Other), pool, drops);
    }

    /// Drops everything for `reason`.
    pub fn drop_all(&mut self, reason: DropReason, pool: &mut BufferPool, drops: &mut impl DropSink) {
        self.backlog = None;
        pool.give(std::mem::take(&mut self.control).buffer);
        self.disco.drop_all(reason, PacketKind::Disco, pool, drops);
        self.data.drop_all(reason, PacketKind::Other, pool, drops);
    }
}

impl Limits {
    /// The bounds of packets of this kind.
    #[inline(always)]
    const fn of(&self, kind: PacketKind) -> Bounds {
        match kind {
            PacketKind::Disco => Bounds { kind, bytes: self.disco_bytes, packets: 0, age: self.age },
            PacketKind::Other => Bounds { kind, bytes: self.bytes, packets: self.packets, age: self.age },
        }
    }
}

/// Frames on their way out of an outbox, in the order in which they shall be sent.
#[derive(Debug)]
pub struct Batch {
    lanes: [Lane; 3],
}

impl Batch {
    /// A run of whole frames of one lane, of at most `max` bytes unless the first frame alone is longer.
    #[must_use]
    pub fn chunk(&self, max: usize) -> Option<&[u8]> {
        self.lanes.iter().find(|lane| !lane.is_empty()).map(|lane| lane.chunk(max))
    }

    /// Removes the first `bytes`, which [`chunk`](Self::chunk) gave and which were sent.
    pub fn advance(&mut self, bytes: usize) {
        if let Some(lane) = self.lanes.iter_mut().find(|lane| !lane.is_empty()) {
            lane.advance(bytes);
        }
    }

    /// Returns the buffers of a batch that was sent.
    pub fn recycle(self, pool: &mut BufferPool) {
        self.lanes.into_iter().for_each(|lane| pool.give(lane.buffer));
    }

    /// Drops what is left for `reason`.
    pub fn drop_all(self, reason: DropReason, pool: &mut BufferPool, drops: &mut impl DropSink) {
        let [control, mut disco, mut data] = self.lanes;
        disco.drop_all(reason, PacketKind::Disco, drops);
        data.drop_all(reason, PacketKind::Other, drops);
        [control, disco, data].into_iter().for_each(|lane| pool.give(lane.buffer));
    }
}

#[cfg(test)]
mod tests;
