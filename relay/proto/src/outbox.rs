//! What waits to be sent to one connection: three lanes of ready-made frames, bounded by bytes and by age.
//!
//! A packet is copied once, into the frame that will be sent. Control frames go first, then disco, then the rest; disco
//! has a bound of its own, so that it cannot starve the packets behind it. Where a lane is full the **oldest** frames
//! are dropped: a tunnelled TCP learns more from a loss now than from a delivery of stale packets later. A frame that
//! waited too long is dropped for the same reason, so that a slow reader's backlog is short in time as well as in bytes.
//!
//! What a watcher is to be told of other keys is none of these: it must not be lost, and may be much. It waits as
//! [`News`], and becomes control frames only as those before it leave.

use std::time::Duration;

use towpath_wire::derp::HEADER_LEN;
use towpath_wire::derp::frame::{ClientFrame, FrameType, Header, ServerFrame};
use towpath_wire::key::NodePublic;
use towpath_wire::labels;
use towpath_wire::pool::BufferPool;
use towpath_wire::time::Instant;

mod lane;

use self::lane::Lane;
use crate::news::{Change, News};
use crate::session::PacketKind;

/// How many packets upstream's queues hold, of whatever length: who probes a relay counts on as many.
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
}

/// Most bytes of control frames that wait. What comes above is dropped, newest first: a client that does not read
/// its pongs has no use for more of them.
pub const MAX_CONTROL: usize = 16 * 1024;

labels! {
    /// Why a packet was dropped. The label is upstream's where upstream has the reason.
    pub enum DropReason {
        /// No connection has the destination's key.
        UnknownDestination = "unknown_dest",
        /// Another relay of the region takes the destination to be here, and it is not.
        UnknownOnForward = "unknown_dest_on_fwd",
        /// The destination left while the packet was on its way.
        Gone = "gone_disconnected",
        /// The outbox was full and this was its oldest packet.
        QueueFull = "queue_head",
        /// The packet waited longer than the outbox allows.
        QueueAge = "queue_age",
        /// The write that carried the packet failed.
        WriteError = "write_error",
    }
}

/// Whom a packet was to be sent to next.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Hop {
    /// Its destination, as a RecvPacket.
    Client,
    /// Another relay, as a ForwardPacket.
    Relay,
}

impl Hop {
    /// The hop of a packet in a frame with this header, and the packet's length.
    fn of(header: Header) -> (Self, usize) {
        let (hop, overhead) = if header.kind == FrameType::ForwardPacket as u8 {
            (Self::Relay, ClientFrame::forward_packet_len(0))
        } else {
            (Self::Client, ServerFrame::recv_packet_len(0))
        };
        (hop, (HEADER_LEN + header.len as usize).saturating_sub(overhead))
    }
}

/// Told of each packet that is dropped.
pub trait DropSink {
    /// A packet of `bytes` (keys and headers not counted) was dropped.
    fn dropped(&mut self, hop: Hop, reason: DropReason, kind: PacketKind, bytes: usize);
}

/// What waits to be sent to one connection.
#[derive(Debug, Default)]
pub struct Outbox {
    control: Lane,
    disco: Lane,
    data: Lane,
    /// `None` unless a watcher is behind.
    news: Option<Box<News>>,
}

impl Outbox {
    /// Appends a packet `from` a peer.
    #[inline(always)]
    pub fn push_packet(
        &mut self,
        now: Instant,
        from: &NodePublic,
        packet: &[u8],
        limits: &Limits,
        pool: &mut BufferPool,
        drops: &mut impl DropSink,
    ) {
        let (kind, len) = (PacketKind::of(packet), ServerFrame::recv_packet_len(packet.len()));
        let lane = self.lane_with_room(now, kind, len, limits, pool, drops);
        ServerFrame::encode_recv_packet(lane, from, packet);
    }

    /// Appends a packet `from` a peer here `to` one behind the relay at the other end.
    #[inline]
    pub fn push_forward(
        &mut self,
        now: Instant,
        (from, to): (&NodePublic, &NodePublic),
        packet: &[u8],
        limits: &Limits,
        pool: &mut BufferPool,
        drops: &mut impl DropSink,
    ) {
        let (kind, len) = (PacketKind::of(packet), ClientFrame::forward_packet_len(packet.len()));
        let lane = self.lane_with_room(now, kind, len, limits, pool, drops);
        ClientFrame::ForwardPacket { from: *from, to: *to, packet }.encode(lane);
    }

    /// The buffer for a packet of this kind, in a frame of `len` bytes; whatever is too much has been dropped.
    #[inline(always)]
    fn lane_with_room(
        &mut self,
        now: Instant,
        kind: PacketKind,
        len: usize,
        limits: &Limits,
        pool: &mut BufferPool,
        drops: &mut impl DropSink,
    ) -> &mut Vec<u8> {
        let (lane, bytes, packets) = match kind {
            PacketKind::Disco => (&mut self.disco, limits.disco_bytes, 0),
            PacketKind::Other => (&mut self.data, limits.bytes, limits.packets),
        };
        while lane.is_full(len, bytes, packets) {
            lane.drop_head(DropReason::QueueFull, kind, drops);
        }
        lane.note(now, limits.age, pool);
        &mut lane.buffer
    }

    /// Appends a frame that is no packet; whether there was room for it.
    pub fn push_control(&mut self, frame: &ServerFrame<'_>, pool: &mut BufferPool) -> bool {
        self.control_lane(pool).map(|lane| frame.encode(lane)).is_some()
    }

    /// The same, for the other relay of a link.
    pub fn push_request(&mut self, frame: &ClientFrame<'_>, pool: &mut BufferPool) -> bool {
        self.control_lane(pool).map(|lane| frame.encode(lane)).is_some()
    }

    /// The buffer for control frames, if there is room.
    fn control_lane(&mut self, pool: &mut BufferPool) -> Option<&mut Vec<u8>> {
        if self.control.len() >= MAX_CONTROL {
            return None;
        }
        self.control.note(Instant::ZERO, Duration::MAX, pool);
        Some(&mut self.control.buffer)
    }

    /// Adds a change to what a watcher is told. Returns false where it is owed too much and must be closed.
    #[must_use]
    pub fn push_news(&mut self, key: NodePublic, change: Change) -> bool {
        self.news.get_or_insert_default().push(key, change)
    }

    /// Keys of which a watcher is owed a change.
    #[must_use]
    pub fn news(&self) -> usize {
        self.news.as_ref().map_or(0, |news| news.len())
    }

    /// Makes control frames of as many changes as there is room for.
    #[cold]
    fn write_news(&mut self, pool: &mut BufferPool) {
        while let Some(news) = &mut self.news
            && self.control.len() < MAX_CONTROL
        {
            match news.pop() {
                Some((key, change)) => {
                    self.push_control(&change.frame(key), pool);
                }
                // Its memory is not kept: the next change may be long in coming.
                None => self.news = None,
            }
        }
    }

    /// Bytes that wait.
    #[must_use]
    pub fn len(&self) -> usize {
        self.control.len() + self.disco.len() + self.data.len()
    }

    /// Whether nothing waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0 && self.news.is_none()
    }

    /// Hands out all that waits and has not waited too long; `None` when that is nothing. Of news it hands out as much as
    /// may wait of control frames.
    pub fn take(
        &mut self,
        now: Instant,
        limits: &Limits,
        pool: &mut BufferPool,
        drops: &mut impl DropSink,
    ) -> Option<Batch> {
        if self.news.is_some() {
            self.write_news(pool);
        }
        let deadline = now - limits.age;
        self.disco.expire(deadline, PacketKind::Disco, drops);
        self.data.expire(deadline, PacketKind::Other, drops);
        if self.is_empty() {
            return None;
        }
        let Self { control, disco, data, news } = std::mem::take(self);
        self.news = news;
        Some(Batch { lanes: [control, disco, data] })
    }

    /// Takes back what of `batch` was not sent, in front of what has come since; beyond the bounds, the oldest go.
    pub fn give_back(
        &mut self,
        batch: Batch,
        limits: &Limits,
        pool: &mut BufferPool,
        drops: &mut impl DropSink,
    ) {
        let [control, disco, data] = batch.lanes;
        self.control.restore(control, pool);
        self.disco.restore(disco, pool);
        self.data.restore(data, pool);
        for (lane, bytes, packets, kind) in [
            (&mut self.disco, limits.disco_bytes, 1, PacketKind::Disco),
            (&mut self.data, limits.bytes, limits.packets.max(1), PacketKind::Other),
        ] {
            while lane.is_full(0, bytes, packets) {
                lane.drop_head(DropReason::QueueFull, kind, drops);
            }
        }
    }

    /// Drops everything for `reason`.
    pub fn drop_all(&mut self, reason: DropReason, pool: &mut BufferPool, drops: &mut impl DropSink) {
        let Self { control, disco, data, news: _ } = std::mem::take(self);
        Batch { lanes: [control, disco, data] }.drop_all(reason, pool, drops);
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
#[path = "outbox_tests.rs"]
mod tests;
