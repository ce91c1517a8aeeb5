//! A lane: frames in the order in which they are sent, in one buffer.

use std::collections::VecDeque;
use std::time::Duration;

use towpath_wire::derp::HEADER_LEN;
use towpath_wire::derp::frame::Header;
use towpath_wire::pool::BufferPool;
use towpath_wire::time::Instant;

use super::drops::{DropReason, DropSink, Hop};
use crate::session::PacketKind;

/// Frames in the order in which they came.
#[derive(Debug, Default)]
pub(super) struct Lane {
    pub(super) buffer: Vec<u8>,
    /// Where the oldest frame starts. A lane is far below 4 GiB: see [`Limits::bytes`](super::Limits::bytes).
    head: u32,
    frames: u32,
    /// When the oldest frames came, to the precision of `marks`.
    since: Instant,
    /// From which offset on frames are younger, and since when. `None` unless frames wait for long.
    #[expect(
        clippy::box_collection,
        reason = "each connection has three lanes, and nearly every lane has no marks"
    )]
    marks: Option<Box<VecDeque<(usize, Instant)>>>,
}

/// How many steps an outbox's age is measured in.
const AGE_STEPS: u32 = 16;

/// The step in which `age` is measured, in nanoseconds.
pub(super) const fn age_step(age: Duration) -> u64 {
    let seconds = age.as_secs().saturating_mul(1_000_000_000 / AGE_STEPS as u64);
    seconds.saturating_add((age.subsec_nanos() / AGE_STEPS) as u64)
}

impl Lane {
    #[inline(always)]
    pub(super) fn len(&self) -> usize {
        self.buffer.len() - self.start()
    }

    #[inline(always)]
    const fn start(&self) -> usize {
        self.head as usize
    }

    /// Frames that wait.
    #[inline]
    pub(super) const fn frames(&self) -> u32 {
        self.frames
    }

    #[inline(always)]
    pub(super) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The header of the frame at the head.
    fn head_header(&self) -> Option<Header> {
        Header::decode(&self.buffer[self.start()..])
    }

    /// The length of the frame at the head, header included; zero if there is none.
    pub(super) fn head_frame(&self) -> usize {
        self.head_header().map_or(0, |header| HEADER_LEN + header.len as usize)
    }

    /// Whether a frame came before `deadline`.
    #[inline(always)]
    pub(super) fn is_older_than(&self, deadline: Instant) -> bool {
        !self.is_empty() && self.since < deadline
    }

    /// When the oldest frame came; `None` if there is none.
    pub(super) fn since(&self) -> Option<Instant> {
        (!self.is_empty()).then_some(self.since)
    }

    /// Makes ready for one more frame of `len` bytes that came at `now`.
    #[inline(always)]
    pub(super) fn note(&mut self, now: Instant, age: Duration, len: usize, pool: &mut BufferPool) {
        if self.is_empty() {
            if self.buffer.capacity() == 0 {
                self.buffer = pool.take();
            }
            self.buffer.clear();
            (self.head, self.frames) = (0, 0);
            self.marks = None;
            self.since = now;
        } else {
            self.note_behind(now, age);
        }
        self.frames += 1;
        pool.reserve(&mut self.buffer, len);
    }

    /// Notes when a frame came that others are in front of.
    #[inline(always)]
    fn note_behind(&mut self, now: Instant, age: Duration) {
        // As a rule all frames of a lane come in one turn, which has one time.
        if now != self.since {
            self.mark(now, age);
        }
        if self.start() > self.len() {
            self.compact();
        }
    }

    /// Notes that frames from here on came at `now`, unless the latest mark says so within a step.
    #[cold]
    #[inline(never)]
    fn mark(&mut self, now: Instant, age: Duration) {
        let marked = self.marks.as_ref().and_then(|marks| marks.back());
        let latest = marked.map_or(self.since, |&(_, since)| since);
        if now.as_nanos() > latest.as_nanos().saturating_add(age_step(age)) {
            self.marks.get_or_insert_default().push_back((self.buffer.len(), now));
        }
    }

    #[cold]
    fn compact(&mut self) {
        let head = self.start();
        self.buffer.drain(..head);
        for (offset, _) in self.marks.iter_mut().flat_map(|marks| marks.iter_mut()) {
            *offset -= head;
        }
        self.head = 0;
    }

    pub(super) fn drop_head(&mut self, reason: DropReason, kind: PacketKind, drops: &mut impl DropSink) {
        let Some(header) = self.head_header() else { return };
        let (hop, bytes) = Hop::of(header);
        drops.dropped(hop, reason, kind, bytes);
        self.advance(HEADER_LEN + header.len as usize);
    }

    /// Removes the first `bytes`, which are whole frames.
    pub(super) fn advance(&mut self, bytes: usize) {
        self.frames = if bytes == self.len() { 0 } else { self.frames - self.frames_in(bytes) };
        self.head += bytes as u32;
        let head = self.start();
        let Some(marks) = &mut self.marks else { return };
        while let Some(&(offset, since)) = marks.front()
            && offset <= head
        {
            self.since = since;
            marks.pop_front();
        }
    }

    /// The number of frames in the first `bytes`.
    #[cold]
    fn frames_in(&self, bytes: usize) -> u32 {
        let (mut frames, mut at) = (0, self.start());
        let end = at + bytes;
        while at < end
            && let Some(header) = Header::decode(&self.buffer[at..])
        {
            frames += 1;
            at += HEADER_LEN + header.len as usize;
        }
        frames
    }

    /// Drops what came before `deadline`.
    pub(super) fn expire(&mut self, deadline: Instant, kind: PacketKind, drops: &mut impl DropSink) {
        while self.is_older_than(deadline) {
            self.drop_head(DropReason::QueueAge, kind, drops);
        }
    }

    pub(super) fn drop_all(&mut self, reason: DropReason, kind: PacketKind, drops: &mut impl DropSink) {
        while !self.is_empty() {
            self.drop_head(reason, kind, drops);
        }
    }

    /// Puts `older` back in front of what has come since.
    pub(super) fn restore(&mut self, mut older: Self, pool: &mut BufferPool) {
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
        let marks = older.marks.get_or_insert_default();
        marks.push_back((shift, self.since));
        // An offset never lies before the head, so neither does its shifted image before `older`'s end.
        let later = self.marks.iter().flat_map(|marks| marks.iter());
        marks.extend(later.map(|&(offset, since)| (shift + offset - self.start(), since)));
        pool.reserve(&mut older.buffer, self.len());
        older.buffer.extend_from_slice(&self.buffer[self.start()..]);
        older.frames += self.frames;
        pool.give(std::mem::replace(self, older).buffer);
    }

    /// Gives the memory of frames that are gone back, as far as it is more than half of the lane's.
    pub(super) fn shrink(&mut self, pool: &mut BufferPool) {
        if self.is_empty() {
            pool.give(std::mem::take(&mut self.buffer));
            self.head = 0;
        } else if self.buffer.capacity() > 2 * self.len() {
            self.compact();
            let mut buffer = pool.allocate(self.len());
            buffer.extend_from_slice(&self.buffer);
            pool.give(std::mem::replace(&mut self.buffer, buffer));
        }
    }

    /// A run of whole frames at the head, of at most `max` bytes unless the first frame alone is longer.
    pub(super) fn chunk(&self, max: usize) -> &[u8] {
        let head = self.start();
        if self.len() <= max {
            return &self.buffer[head..];
        }
        let mut end = head;
        while let Some(header) = Header::decode(&self.buffer[end..]) {
            let next = end + HEADER_LEN + header.len as usize;
            if next - head > max && end > head {
                break;
            }
            end = next;
        }
        &self.buffer[head..end]
    }
}
