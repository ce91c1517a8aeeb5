//! Buffers that are owned only while bytes are in them.
//!
//! An idle connection is cheap because it holds no buffer. A busy connection is cheap because its next buffer comes
//! from this pool and not from the allocator.

/// A stack of empty buffers of one thread.
#[derive(Debug, Default)]
pub struct BufferPool {
    free: Vec<Vec<u8>>,
}

impl BufferPool {
    /// More buffers than one batch of events can need are returned to the allocator.
    const MAX_FREE: usize = 256;
    /// A buffer that grew above this was for a backlog, not for a batch; it is returned to the allocator.
    pub const MAX_CAPACITY: usize = 128 * 1024;
    const INITIAL_CAPACITY: usize = 2048;

    /// An empty buffer.
    #[must_use]
    pub fn take(&mut self) -> Vec<u8> {
        self.free.pop().unwrap_or_else(|| Vec::with_capacity(Self::INITIAL_CAPACITY))
    }

    /// Takes a buffer back; its bytes are forgotten.
    pub fn give(&mut self, mut buffer: Vec<u8>) {
        if (1..=Self::MAX_CAPACITY).contains(&buffer.capacity()) && self.free.len() < Self::MAX_FREE {
            buffer.clear();
            self.free.push(buffer);
        }
    }
}
