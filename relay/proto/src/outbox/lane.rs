//! One lane of an outbox.

use std::collections::VecDeque;
use std::time::Duration;

use towpath_wire::derp::HEADER_LEN;
use towpath_wire::derp::frame::Header;
use towpath_wire::pool::BufferPool;
use towpath_wire::time::Instant;

use super::drops::{DropReason, DropSink, Hop};
use crate::session::PacketKind;

/// Frames in the order in which they came, in one buffer.
#[derive(Debug, Default)]
pub(super) struct Lane {
    pub(super) buffer: Vec<u8>,
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
    pub(super) fn len(&self) -> usize {
        self.buffer.len() - self.head
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The header of the frame at the head.
    pub(super) fn head_header(&self) -> Option<Header> {
        Header::decode(&self.buffer[self.head..])
    }

    /// The length of the frame at the head, header included.
    pub(super) fn head_frame(&self) -> Option<usize> {
        self.head_header().map(|header| HEADER_LEN + header.len as usize)
    }

    /// Whether frames must go before there is room for `len` bytes more: they would be more than `bytes`, and more than
    /// `packets` as long as the one at the head, or as `len`.
    #[inline(always)]
    pub(super) fn is_full(&self, len: usize, bytes: usize, packets: usize) -> bool {
        let all = self.len() + len;
        all > bytes && self.head_frame().is_some_and(|head| all > packets * head.max(len))
    }

    /// Makes ready for one more frame that came at `now`.
    #[inline(always)]
    pub(super) fn note(&mut self, now: Instant, age: Duration, pool: &mut BufferPool) {
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

    pub(super) fn compact(&mut self) {
        self.buffer.drain(..self.head);
        for (offset, _) in &mut self.marks {
            *offset -= self.head;
        }
        self.head = 0;
    }

    pub(super) fn drop_head(&mut self, reason: DropReason, kind: PacketKind, drops: &mut impl DropSink) {
        let Some(header) = self.head_header() else { return };
        let (hop, bytes) = Hop::of(header);
        drops.dropped(hop, reason, kind, bytes);
        self.advance(HEADER_LEN + header.len as usize);
    }

    pub(super) fn advance(&mut self, bytes: usize) {
        self.head += bytes;
        while let Some(&(offset, since)) = self.marks.front()
            && offset <= self.head
        {
            self.since = since;
            self.marks.pop_front();
        }
    }

    /// Drops what came before `deadline`.
    pub(super) fn expire(&mut self, deadline: Instant, kind: PacketKind, drops: &mut impl DropSink) {
        while !self.is_empty() && self.since < deadline {
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
        older.marks.push_back((shift, self.since));
        // An offset never lies before the head, so neither does its shifted image before `older`'s end.
        older.marks.extend(self.marks.iter().map(|&(offset, since)| (shift + offset - self.head, since)));
        older.buffer.extend_from_slice(&self.buffer[self.head..]);
        pool.give(std::mem::replace(self, older).buffer);
    }

    /// A run of whole frames at the head, of at most `max` bytes unless the first frame alone is longer.
    pub(super) fn chunk(&self, max: usize) -> &[u8] {
        if self.len() <= max {
            return &self.buffer[self.head..];
        }
        let mut end = self.head;
        while let Some(header) = Header::decode(&self.buffer[end..]) {
            let next = end + HEADER_LEN + header.len as usize;
            if next - self.head > max && end > self.head {
                break;
            }
            end = next;
        }
        &self.buffer[self.head..end]
    }
}
