//! The packets of one kind that wait: those that are sent next, in a lane, and behind them a queue for each sender.

use std::time::Duration;

use towpath_wire::key::NodePublic;
use towpath_wire::pool::BufferPool;
use towpath_wire::time::Instant;

use super::drops::{DropCounts, DropReason, DropSink, Noting};
use super::lane::Lane;
use super::senders::SenderQueues;
use crate::session::PacketKind;

/// The part of its bound that the lane may fill while the socket takes bytes. What is more goes to the queues.
const FRONT_PART: usize = 8;
/// How much the queues hand to the lane at a time, at most. What lies in the lane can be overtaken no more.
const REFILL: usize = 32 * 1024;
/// One outbox whose socket is full may take this part of the memory that is still free, so that many such outboxes
/// leave some of it to the others (the dynamic thresholds of Choudhury and Hahne).
const ROOM_PART: usize = 64;

/// The bounds of the packets of one kind.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    pub(super) kind: PacketKind,
    /// Most bytes of frames.
    pub(super) bytes: usize,
    /// Where so many packets as long as the oldest or the newest are more than `bytes`, so many wait.
    pub(super) packets: usize,
    pub(super) age: Duration,
}

/// Packets of one kind that wait.
#[derive(Debug, Default)]
pub(super) struct Packets {
    /// What is sent next.
    pub(super) front: Lane,
    /// `None` unless more waits than goes into the lane, or the socket is full.
    senders: Option<Box<SenderQueues>>,
    /// What was dropped here; `None` while nothing was.
    dropped: Option<Box<DropCounts>>,
}

impl Packets {
    #[inline(always)]
    pub(super) fn len(&self) -> usize {
        self.front.len() + self.senders.as_ref().map_or(0, |senders| senders.len())
    }

    /// Packets that wait.
    pub(super) fn frames(&self) -> usize {
        self.front.frames() as usize + self.senders.as_ref().map_or(0, |senders| senders.frames())
    }

    /// What was dropped here.
    pub(super) fn dropped(&self) -> Option<&DropCounts> {
        self.dropped.as_deref()
    }

    /// Notes that `packets` were dropped for a reason.
    #[cold]
    pub(super) fn note_dropped(&mut self, reason: DropReason, packets: u64) {
        self.dropped.get_or_insert_default().add(reason, packets);
    }

    /// The buffer for a frame of `len` bytes that comes at `now`. The oldest packets of the sender that holds the most
    /// make room for it. `None` if there is no memory for it: the packet must be dropped.
    ///
    /// `blocked`: the socket is full, so that what is pushed now will wait.
    #[inline(always)]
    pub(super) fn buffer_for(
        &mut self,
        (from, len): (&NodePublic, usize),
        (now, blocked): (Instant, bool),
        bounds: Bounds,
        pool: &mut BufferPool,
        drops: &mut impl DropSink,
    ) -> Option<&mut Vec<u8>> {
        let fits = self.front.len() + len <= bounds.bytes / FRONT_PART || self.front.is_empty();
        if fits && !blocked && self.senders.is_none() {
            self.front.note(now, bounds.age, len, pool);
            return Some(&mut self.front.buffer);
        }
        self.queue_for((from, len), (now, blocked), bounds, pool, drops)
    }

    #[cold]
    #[inline(never)]
    fn queue_for(
        &mut self,
        (from, len): (&NodePublic, usize),
        (now, blocked): (Instant, bool),
        bounds: Bounds,
        pool: &mut BufferPool,
        drops: &mut impl DropSink,
    ) -> Option<&mut Vec<u8>> {
        self.expire(now - bounds.age, bounds.kind, pool, drops);
        while self.is_full(len, bounds.bytes, bounds.packets) {
            self.drop_oldest(DropReason::QueueFull, bounds.kind, pool, drops);
        }
        if blocked {
            let cost = |packets: &Self| {
                let senders = packets.senders.as_ref();
                senders.map_or(len, |senders| senders.cost(from, len, now, bounds.age))
            };
            // What does not wait is gone by the end of the turn, and needs no room.
            while self.len() + cost(self) > pool.room() / ROOM_PART {
                if !self.drop_oldest(DropReason::Memory, bounds.kind, pool, drops) {
                    return None;
                }
            }
        }
        let senders = self.senders.get_or_insert_default();
        Some(senders.buffer_for(from, len, (now, bounds.age), pool))
    }

    /// Whether packets must go before there is room for `len` bytes more.
    fn is_full(&self, len: usize, bytes: usize, packets: usize) -> bool {
        let all = self.len() + len;
        all > bytes && self.len() > 0 && all > packets * self.victim().max(len)
    }

    /// The length of the frame that is dropped next.
    fn victim(&self) -> usize {
        self.senders.as_ref().map_or_else(|| self.front.head_frame(), |senders| senders.longest_head())
    }

    /// Drops the oldest packet of the sender that holds the most. Returns false if there is none.
    fn drop_oldest(
        &mut self,
        reason: DropReason,
        kind: PacketKind,
        pool: &mut BufferPool,
        drops: &mut impl DropSink,
    ) -> bool {
        let drops = &mut Noting { counts: &mut self.dropped, sink: drops };
        match &mut self.senders {
            Some(senders) => {
                senders.drop_longest(reason, kind, pool, drops);
                self.forget_senders();
                true
            }
            None if self.front.is_empty() => false,
            None => {
                self.front.drop_head(reason, kind, drops);
                self.front.shrink(pool);
                true
            }
        }
    }

    fn forget_senders(&mut self) {
        self.senders.take_if(|senders| senders.len() == 0);
    }

    /// Drops what came before `deadline`.
    #[inline(always)]
    pub(super) fn expire(
        &mut self,
        deadline: Instant,
        kind: PacketKind,
        pool: &mut BufferPool,
        drops: &mut impl DropSink,
    ) {
        if self.senders.is_some() || self.front.is_older_than(deadline) {
            self.drop_older(deadline, kind, pool, drops);
        }
    }

    #[cold]
    #[inline(never)]
    fn drop_older(
        &mut self,
        deadline: Instant,
        kind: PacketKind,
        pool: &mut BufferPool,
        drops: &mut impl DropSink,
    ) {
        let drops = &mut Noting { counts: &mut self.dropped, sink: drops };
        self.front.expire(deadline, kind, drops);
        if let Some(senders) = &mut self.senders {
            senders.expire(deadline, kind, pool, drops);
            self.forget_senders();
        }
    }

    /// When the oldest packet came.
    pub(super) fn since(&self) -> Option<Instant> {
        let senders = self.senders.as_ref().and_then(|senders| senders.since());
        self.front.since().into_iter().chain(senders).min()
    }

    /// Hands out the lane, filled from the queues in the order in which their senders take turns.
    #[inline]
    pub(super) fn take(&mut self, bounds: Bounds, pool: &mut BufferPool) -> Lane {
        if self.senders.is_some() {
            self.refill(bounds, pool);
        }
        std::mem::take(&mut self.front)
    }

    #[cold]
    fn refill(&mut self, bounds: Bounds, pool: &mut BufferPool) {
        let Self { front, senders, .. } = self;
        let Some(queues) = senders else { return };
        let most = REFILL.min(bounds.bytes / FRONT_PART);
        while front.len() < most
            && queues.next(pool, |frame, since, pool| {
                front.note(since, bounds.age, frame.len(), pool);
                front.buffer.extend_from_slice(frame);
            })
        {}
        self.forget_senders();
    }

    /// Takes back what was not sent.
    pub(super) fn give_back(
        &mut self,
        unsent: Lane,
        bounds: Bounds,
        pool: &mut BufferPool,
        drops: &mut impl DropSink,
    ) {
        self.front.restore(unsent, pool);
        while self.is_full(0, bounds.bytes, bounds.packets.max(1)) {
            self.drop_oldest(DropReason::QueueFull, bounds.kind, pool, drops);
        }
        self.front.shrink(pool);
        // What was not sent waits from now on.
        while self.len() > pool.room() / ROOM_PART
            && self.drop_oldest(DropReason::Memory, bounds.kind, pool, drops)
        {}
    }

    /// Drops everything.
    pub(super) fn drop_all(
        &mut self,
        reason: DropReason,
        kind: PacketKind,
        pool: &mut BufferPool,
        drops: &mut impl DropSink,
    ) {
        if let Some(mut senders) = self.senders.take() {
            senders.drop_all(reason, kind, pool, drops);
        }
        self.front.drop_all(reason, kind, drops);
        pool.give(std::mem::take(&mut self.front.buffer));
        self.front = Lane::default();
    }
}
