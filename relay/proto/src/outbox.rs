//! What waits to be sent to one connection: three lanes of ready-made frames, bounded by bytes and by age.
//!
//! A packet is copied once, into the frame that will be sent. Control frames go first, then disco, then the rest; disco
//! has a bound of its own, so that it cannot starve the packets behind it. Where a lane is full the **oldest** frames
//! are dropped: a tunnelled TCP learns more from a loss now than from a delivery of stale packets later. A frame that
//! waited too long is dropped for the same reason, so that a slow reader's backlog is short in time as well as in bytes.
//!
//! What a watcher is to be told of other keys is none of these: it must not be lost, and may be much. It waits as
//! [`News`], and becomes control frames only as those before it leave.

use std::collections::VecDeque;
use std::time::Duration;

use wire::derp::HEADER_LEN;
use wire::derp::frame::{ClientFrame, FrameType, Header, ServerFrame};
use wire::key::NodePublic;
use wire::pool::BufferPool;
use wire::time::Instant;

use crate::news::{Change, News};
use crate::session::PacketKind;

/// The bounds of an outbox.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Most bytes of frames that wait, disco and control frames apart. At least one frame always fits.
    pub bytes: usize,
    /// Most bytes of disco frames that wait.
    pub disco_bytes: usize,
    /// How long a packet waits at most.
    pub age: Duration,
}

/// Most bytes of control frames that wait. What comes above is dropped, newest first: a client that does not read
/// its pongs has no use for more of them.
pub const MAX_CONTROL: usize = 16 * 1024;

/// Why a packet was dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DropReason {
    /// No connection has the destination's key.
    UnknownDestination,
    /// Another relay of the region takes the destination to be here, and it is not.
    UnknownOnForward,
    /// The destination left while the packet was on its way.
    Gone,
    /// The outbox was full and this was its oldest packet.
    QueueFull,
    /// The packet waited longer than the outbox allows.
    QueueAge,
    /// The write that carried the packet failed.
    WriteError,
}

impl DropReason {
    /// Every reason, for metrics that exist from the start.
    pub const ALL: [Self; 6] = [
        Self::UnknownDestination,
        Self::UnknownOnForward,
        Self::Gone,
        Self::QueueFull,
        Self::QueueAge,
        Self::WriteError,
    ];

    /// The metric label; where upstream has the reason, upstream's.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::UnknownDestination => "unknown_dest",
            Self::UnknownOnForward => "unknown_dest_on_fwd",
            Self::Gone => "gone_disconnected",
            Self::QueueFull => "queue_head",
            Self::QueueAge => "queue_age",
            Self::WriteError => "write_error",
        }
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

/// Frames in the order in which they came, in one buffer.
#[derive(Debug, Default)]
struct Lane {
    buffer: Vec<u8>,
    /// Where the oldest frame starts.
    head: usize,
    /// When the oldest frames came, to the precision of `marks`.
    since: Instant,
    /// From which offset on frames are younger, and since when. Empty unless frames wait for long.
    marks: VecDeque<(usize, Instant)>,
}

/// How many steps an outbox's age is measured in.
const AGE_STEPS: u32 = 16;

impl Lane {
    fn len(&self) -> usize {
        self.buffer.len() - self.head
    }

    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The header of the frame at the head.
    fn head_header(&self) -> Option<Header> {
        Header::decode(&self.buffer[self.head..])
    }

    /// The length of the frame at the head, header included.
    fn head_frame(&self) -> Option<usize> {
        self.head_header().map(|header| HEADER_LEN + header.len as usize)
    }

    /// Makes ready for one more frame that came at `now`.
    #[inline(always)]
    fn note(&mut self, now: Instant, age: Duration, pool: &mut BufferPool) {
        if self.is_empty() {
            if self.buffer.capacity() == 0 {
                self.buffer = pool.take();
            }
            self.buffer.clear();
            self.head = 0;
            self.marks.clear();
            self.since = now;
            return;
        }
        let latest = self.marks.back().map_or(self.since, |&(_, since)| since);
        if now.since(latest) > age / AGE_STEPS {
            self.marks.push_back((self.buffer.len(), now));
        }
        if self.head > self.len() {
            self.compact();
        }
    }

    fn compact(&mut self) {
        self.buffer.drain(..self.head);
        for (offset, _) in &mut self.marks {
            *offset -= self.head;
        }
        self.head = 0;
    }

    fn drop_head(&mut self, reason: DropReason, kind: PacketKind, drops: &mut impl DropSink) {
        let Some(header) = self.head_header() else { return };
        let (hop, bytes) = Hop::of(header);
        drops.dropped(hop, reason, kind, bytes);
        self.advance(HEADER_LEN + header.len as usize);
    }

    fn advance(&mut self, bytes: usize) {
        self.head += bytes;
        while let Some(&(offset, since)) = self.marks.front()
            && offset <= self.head
        {
            self.since = since;
            self.marks.pop_front();
        }
    }

    /// Drops what came before `deadline`.
    fn expire(&mut self, deadline: Instant, kind: PacketKind, drops: &mut impl DropSink) {
        while !self.is_empty() && self.since < deadline {
            self.drop_head(DropReason::QueueAge, kind, drops);
        }
    }

    fn drop_all(&mut self, reason: DropReason, kind: PacketKind, drops: &mut impl DropSink) {
        while !self.is_empty() {
            self.drop_head(reason, kind, drops);
        }
    }

    /// Puts `older` back in front of what has come since.
    fn restore(&mut self, mut older: Self, pool: &mut BufferPool) {
        // All of it was sent: how long that had waited says nothing of what has come since.
        if older.is_empty() {
            pool.give(older.buffer);
            return;
        }
        if self.is_empty() {
            pool.give(std::mem::replace(self, older).buffer);
            return;
        }
        let shift = older.buffer.len();
        older.marks.push_back((shift, self.since));
        // An offset never lies before the head, so neither does its shifted image before `older`'s end.
        older.marks.extend(self.marks.iter().map(|&(offset, since)| (shift + offset - self.head, since)));
        older.buffer.extend_from_slice(&self.buffer[self.head..]);
        pool.give(std::mem::replace(self, older).buffer);
    }
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
        let (lane, bound) = match kind {
            PacketKind::Disco => (&mut self.disco, limits.disco_bytes),
            PacketKind::Other => (&mut self.data, limits.bytes),
        };
        while !lane.is_empty() && lane.len() + len > bound {
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
        for (lane, bound, kind) in [
            (&mut self.disco, limits.disco_bytes, PacketKind::Disco),
            (&mut self.data, limits.bytes, PacketKind::Other),
        ] {
            while lane.len() > bound && lane.head_frame().is_some_and(|frame| frame < lane.len()) {
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
        let lane = self.lanes.iter().find(|lane| !lane.is_empty())?;
        if lane.len() <= max {
            return Some(&lane.buffer[lane.head..]);
        }
        let mut end = lane.head;
        while let Some(header) = Header::decode(&lane.buffer[end..]) {
            let next = end + HEADER_LEN + header.len as usize;
            if next - lane.head > max && end > lane.head {
                break;
            }
            end = next;
        }
        Some(&lane.buffer[lane.head..end])
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
