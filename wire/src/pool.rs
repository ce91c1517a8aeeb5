//! Buffers that are owned only while bytes are in them, and the count of what they take.
//!
//! An idle connection is cheap because it holds no buffer. A busy connection is cheap because its next buffer comes
//! from this pool and not from the allocator.
//!
//! Every buffer that frames are held in comes from a pool, grows with [`BufferPool::reserve`], and goes back to a pool,
//! not necessarily the same. So the sum over all pools of what they drew from the allocator is the memory that all
//! frames and all free buffers take. [`BufferPool::settle`] reports it, and is told how much is free.

/// A stack of empty buffers of one thread.
#[derive(Debug)]
pub struct BufferPool {
    free: Vec<Vec<u8>>,
    /// The bytes of the free buffers.
    free_bytes: usize,
    /// Bytes drawn from the allocator since the last settlement, less those that were returned to it.
    drawn: isize,
    /// Bytes that all threads together may draw, as of the last settlement.
    room: isize,
}

impl Default for BufferPool {
    /// An empty pool without a bound.
    fn default() -> Self {
        Self { free: Vec::new(), free_bytes: 0, drawn: 0, room: isize::MAX }
    }
}

impl BufferPool {
    /// Most bytes of free buffers, which is more than one batch of events can need. More are returned to the allocator.
    pub const MAX_FREE_BYTES: usize = 4 * 1024 * 1024;
    /// A buffer that grew above this was for a backlog, not for a batch; it is returned to the allocator.
    pub const MAX_CAPACITY: usize = 128 * 1024;
    const INITIAL_CAPACITY: usize = 2048;
    /// A buffer doubles until it has this capacity, and then grows by it, so that a long one is not half empty.
    const STEP: usize = 16 * 1024;

    /// An empty buffer.
    #[must_use]
    pub fn take(&mut self) -> Vec<u8> {
        match self.free.pop() {
            Some(buffer) => {
                self.free_bytes -= buffer.capacity();
                buffer
            }
            None => self.allocate(Self::INITIAL_CAPACITY),
        }
    }

    /// An empty buffer with this capacity that is new. It goes back to the allocator with [`release`](Self::release).
    #[must_use]
    #[cold]
    pub fn allocate(&mut self, capacity: usize) -> Vec<u8> {
        let buffer = Vec::with_capacity(capacity);
        self.drawn += buffer.capacity() as isize;
        buffer
    }

    /// Makes room for `additional` bytes in a buffer of a pool.
    #[inline(always)]
    pub fn reserve(&mut self, buffer: &mut Vec<u8>, additional: usize) {
        if buffer.capacity() - buffer.len() < additional {
            self.grow(buffer, additional);
        }
    }

    #[cold]
    #[inline(never)]
    fn grow(&mut self, buffer: &mut Vec<u8>, additional: usize) {
        let (before, needed) = (buffer.capacity(), buffer.len() + additional);
        let capacity = needed.max((before * 2).min(before + Self::STEP));
        buffer.reserve_exact(capacity - buffer.len());
        self.drawn += (buffer.capacity() - before) as isize;
    }

    /// Takes a buffer back; its bytes are forgotten.
    pub fn give(&mut self, mut buffer: Vec<u8>) {
        let capacity = buffer.capacity();
        if (1..=Self::MAX_CAPACITY).contains(&capacity) && self.free_bytes + capacity <= Self::MAX_FREE_BYTES
        {
            buffer.clear();
            self.free_bytes += capacity;
            self.free.push(buffer);
        } else {
            self.release(buffer);
        }
    }

    /// Returns a buffer to the allocator.
    pub fn release(&mut self, buffer: Vec<u8>) {
        self.drawn -= buffer.capacity() as isize;
    }

    /// Returns all free buffers to the allocator.
    #[cold]
    pub fn clear(&mut self) {
        self.free = Vec::new();
        self.drawn -= std::mem::take(&mut self.free_bytes) as isize;
    }

    /// Bytes that all threads together may still draw from the allocator. Zero when the bound is reached.
    #[must_use]
    pub const fn room(&self) -> usize {
        let room = self.room.saturating_sub(self.drawn);
        if room < 0 { 0 } else { room as usize }
    }

    /// Reports how many bytes more than at the last settlement are drawn from the allocator, by this pool.
    #[must_use]
    pub const fn settle(&mut self) -> isize {
        std::mem::replace(&mut self.drawn, 0)
    }

    /// Sets how many bytes all threads together may draw from the allocator from now on.
    pub const fn set_room(&mut self, room: isize) {
        self.room = room;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_drawn_is_what_the_buffers_take() {
        let (mut one, mut other) = (BufferPool::default(), BufferPool::default());
        let mut buffer = one.take();
        for _ in 0..100 {
            one.reserve(&mut buffer, 1000);
            buffer.extend_from_slice(&[0; 1000]);
        }
        let large = one.allocate(1 << 20);
        let held = (buffer.capacity() + large.capacity()) as isize;
        assert_eq!(one.settle(), held);
        assert!(buffer.capacity() < 100_000 + BufferPool::STEP, "{} bytes", buffer.capacity());
        // Another thread takes them back.
        other.give(buffer);
        other.give(large);
        let kept = other.free_bytes as isize;
        assert!(kept > 0);
        assert_eq!(other.settle(), kept - held, "what is free is taken, too");
        other.clear();
        assert_eq!(one.settle() + other.settle(), -kept);
    }

    #[test]
    fn free_buffers_are_bounded_by_their_bytes() {
        let mut pool = BufferPool::default();
        let buffers: Vec<_> = (0..100).map(|_| pool.allocate(BufferPool::MAX_CAPACITY)).collect();
        buffers.into_iter().for_each(|buffer| pool.give(buffer));
        assert_eq!(pool.settle(), BufferPool::MAX_FREE_BYTES as isize);
    }

    #[test]
    fn a_buffer_that_grew_for_a_backlog_is_not_kept() {
        let mut pool = BufferPool::default();
        for (capacity, kept) in [(BufferPool::MAX_CAPACITY, 1), (BufferPool::MAX_CAPACITY + 1, 0)] {
            let buffer = pool.allocate(capacity);
            pool.give(buffer);
            assert_eq!(pool.free.len(), kept, "{capacity} bytes");
            pool.clear();
        }
    }

    #[test]
    fn room_shrinks_as_buffers_grow() {
        let mut pool = BufferPool::default();
        pool.set_room(10_000);
        let mut buffer = pool.take();
        assert_eq!(pool.room(), 10_000 - 2048);
        pool.reserve(&mut buffer, 50_000);
        assert_eq!(pool.room(), 0, "what cannot wait is not refused");
        pool.release(buffer);
        assert_eq!(pool.room(), 10_000);
    }
}
