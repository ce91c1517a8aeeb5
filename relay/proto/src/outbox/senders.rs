//! A queue for each sender, for packets that cannot be sent at once.
//!
//! Packets of a sender leave in order. The senders take turns (surplus round robin: each may send a quantum more in each
//! round, less what it has sent too much), so that a sender of little waits for a round and not for the backlog of the
//! others. Where there is no room, the sender that holds the most loses its oldest packet.
//!
//! A queue is a list of chunks. A chunk that is sent or dropped goes back to the allocator, so that a queue takes
//! hardly more than its frames.

use std::collections::VecDeque;
use std::ops::RangeInclusive;
use std::time::Duration;

use towpath_wire::derp::HEADER_LEN;
use towpath_wire::derp::frame::Header;
use towpath_wire::key::NodePublic;
use towpath_wire::pool::BufferPool;
use towpath_wire::time::Instant;

use super::drops::{DropReason, DropSink, Hop};
use super::lane::age_step;
use crate::session::PacketKind;

/// Most queues. A sender beyond them shares the queue that its key falls to, as in stochastic fairness queueing.
const MAX_QUEUES: usize = 128;
/// What a sender may send in a round, in bytes: two packets of the usual length.
const QUANTUM: isize = 3 * 1024;
/// The shortest and the longest chunk, unless one frame alone is longer. A packet of the usual length fills the shortest.
const CHUNKS: RangeInclusive<usize> = 1536..=16 * 1024;

/// Some frames of one sender that came at about the same time.
#[derive(Debug)]
struct Chunk {
    buffer: Vec<u8>,
    head: usize,
    /// When the first of them came.
    since: Instant,
}

impl Chunk {
    fn frames(&self) -> &[u8] {
        &self.buffer[self.head..]
    }

    /// The header of the frame at the head. A chunk in a queue has one.
    fn header(&self) -> Option<Header> {
        Header::decode(self.frames())
    }

    /// The length of the frame at the head, header included.
    fn head_frame(&self) -> usize {
        self.header().map_or(0, |header| HEADER_LEN + header.len as usize)
    }
}

/// The packets of one sender, or of several that share a queue.
#[derive(Debug)]
struct SenderQueue {
    chunks: VecDeque<Chunk>,
    bytes: usize,
    /// What is left of the quantum; below zero what was sent too much.
    surplus: isize,
}

impl SenderQueue {
    fn head_frame(&self) -> usize {
        self.chunks.front().map_or(0, Chunk::head_frame)
    }

    /// Removes the frame at the head, which has `len` bytes.
    fn advance(&mut self, len: usize, pool: &mut BufferPool) {
        self.bytes -= len;
        let Some(chunk) = self.chunks.front_mut() else { return };
        chunk.head += len;
        if chunk.head == chunk.buffer.len()
            && let Some(chunk) = self.chunks.pop_front()
        {
            pool.release(chunk.buffer);
        }
    }

    /// The length of the next chunk, whose first frame has `len` bytes: an eighth of the queue, in frames of that length,
    /// so that a chunk that is half empty takes little more memory than its frames.
    fn next_chunk(&self, len: usize) -> usize {
        let most = (self.bytes / 8).clamp(*CHUNKS.start(), *CHUNKS.end());
        len * (most / len).max(1)
    }

    /// Whether a frame of `len` bytes that comes at `now` goes into the last chunk.
    fn last_takes(&self, len: usize, now: Instant, age: Duration) -> bool {
        self.chunks.back().is_some_and(|chunk| {
            chunk.buffer.len() + len <= chunk.buffer.capacity()
                && now.as_nanos() <= chunk.since.as_nanos().saturating_add(age_step(age))
        })
    }
}

/// The queues of all senders whose packets wait, at least one while the value exists.
#[derive(Debug, Default)]
pub(super) struct SenderQueues {
    /// The keys of the senders, in the order of `queues`.
    tags: Vec<u64>,
    queues: Vec<SenderQueue>,
    /// The queue whose turn it is.
    turn: usize,
    len: usize,
    frames: usize,
}

impl SenderQueues {
    /// Bytes of frames.
    pub(super) const fn len(&self) -> usize {
        self.len
    }

    /// Frames that wait.
    pub(super) const fn frames(&self) -> usize {
        self.frames
    }

    /// The buffer for a frame of `len` bytes of the sender `from`.
    pub(super) fn buffer_for(
        &mut self,
        from: &NodePublic,
        len: usize,
        (now, age): (Instant, Duration),
        pool: &mut BufferPool,
    ) -> &mut Vec<u8> {
        let at = self.queue_of(tag(from));
        let queue = &mut self.queues[at];
        queue.bytes += len;
        self.len += len;
        self.frames += 1;
        if !queue.last_takes(len, now, age) {
            let buffer = pool.allocate(queue.next_chunk(len));
            queue.chunks.push_back(Chunk { buffer, head: 0, since: now });
        }
        &mut queue.chunks.back_mut().expect("a chunk is there").buffer
    }

    /// What the queues draw from the allocator, at most, for a frame of `len` bytes of the sender `from`.
    pub(super) fn cost(&self, from: &NodePublic, len: usize, now: Instant, age: Duration) -> usize {
        let queue = self.find(tag(from)).map(|at| &self.queues[at]);
        match queue {
            None => len.max(*CHUNKS.start()),
            Some(queue) if queue.last_takes(len, now, age) => len,
            Some(queue) => queue.next_chunk(len),
        }
    }

    /// The length of the frame that [`drop_longest`](Self::drop_longest) would drop.
    pub(super) fn longest_head(&self) -> usize {
        self.queues.iter().max_by_key(|queue| queue.bytes).map_or(0, SenderQueue::head_frame)
    }

    /// Drops the oldest packet of the sender that holds the most. Returns false if there is none.
    pub(super) fn drop_longest(
        &mut self,
        reason: DropReason,
        kind: PacketKind,
        pool: &mut BufferPool,
        drops: &mut impl DropSink,
    ) -> bool {
        let longest = (0..self.queues.len()).max_by_key(|&at| self.queues[at].bytes);
        longest.is_some_and(|at| {
            self.drop_head(at, reason, kind, pool, drops);
            self.forget_if_empty(at);
            true
        })
    }

    /// Drops what came before `deadline`.
    pub(super) fn expire(
        &mut self,
        deadline: Instant,
        kind: PacketKind,
        pool: &mut BufferPool,
        drops: &mut impl DropSink,
    ) {
        for at in (0..self.queues.len()).rev() {
            while self.queues[at].chunks.front().is_some_and(|chunk| chunk.since < deadline) {
                self.drop_head(at, DropReason::QueueAge, kind, pool, drops);
            }
            self.forget_if_empty(at);
        }
    }

    /// When the oldest packet came.
    pub(super) fn since(&self) -> Option<Instant> {
        self.queues.iter().filter_map(|queue| Some(queue.chunks.front()?.since)).min()
    }

    /// Drops everything.
    pub(super) fn drop_all(
        &mut self,
        reason: DropReason,
        kind: PacketKind,
        pool: &mut BufferPool,
        drops: &mut impl DropSink,
    ) {
        while self.drop_longest(reason, kind, pool, drops) {}
    }

    /// Hands the frame whose turn it is to `append`, with the time when it came. Returns false if there is none.
    pub(super) fn next(
        &mut self,
        pool: &mut BufferPool,
        append: impl FnOnce(&[u8], Instant, &mut BufferPool),
    ) -> bool {
        if self.queues.is_empty() {
            return false;
        }
        loop {
            let at = self.turn % self.queues.len();
            let queue = &mut self.queues[at];
            if queue.surplus <= 0 {
                queue.surplus += QUANTUM;
                self.turn = at + 1;
                continue;
            }
            let len = queue.head_frame();
            if let Some(chunk) = queue.chunks.front() {
                append(&chunk.frames()[..len], chunk.since, pool);
            }
            queue.surplus -= len as isize;
            queue.advance(len, pool);
            self.len -= len;
            self.frames -= 1;
            self.turn = at;
            self.forget_if_empty(at);
            return true;
        }
    }

    fn drop_head(
        &mut self,
        at: usize,
        reason: DropReason,
        kind: PacketKind,
        pool: &mut BufferPool,
        drops: &mut impl DropSink,
    ) {
        let queue = &mut self.queues[at];
        let Some(header) = queue.chunks.front().and_then(Chunk::header) else { return };
        let (hop, bytes) = Hop::of(header);
        drops.dropped(hop, reason, kind, bytes);
        let len = HEADER_LEN + header.len as usize;
        queue.advance(len, pool);
        self.len -= len;
        self.frames -= 1;
    }

    fn forget_if_empty(&mut self, at: usize) {
        if self.queues[at].chunks.is_empty() {
            self.queues.swap_remove(at);
            self.tags.swap_remove(at);
        }
    }

    fn find(&self, tag: u64) -> Option<usize> {
        let found = self.tags.iter().position(|&other| other == tag);
        found.or_else(|| (self.tags.len() >= MAX_QUEUES).then(|| (tag % MAX_QUEUES as u64) as usize))
    }

    fn queue_of(&mut self, tag: u64) -> usize {
        self.find(tag).unwrap_or_else(|| {
            self.tags.push(tag);
            self.queues.push(SenderQueue { chunks: VecDeque::new(), bytes: 0, surplus: QUANTUM });
            self.queues.len() - 1
        })
    }
}

/// The part of a key by which its queue is found. Keys with the same part share a queue, which harms only their owners:
/// a key is a point of Curve25519, and finding one with a given part takes 2^64 trials.
fn tag(key: &NodePublic) -> u64 {
    u64::from_le_bytes(*key.as_bytes().first_chunk().expect("a key has 32 bytes"))
}
