//! The memory that frames may take, over all workers.
//!
//! Every buffer that holds frames comes from the pool of a worker, which counts what it draws from the allocator. Once a
//! turn each worker settles its count here and is told what is left, so that the bound is exceeded by no more than what
//! one turn of each worker brings.

use towpath_wire::pool::BufferPool;

use crate::counters::{Gauges, Level};

/// Settles what a pool has drawn since the last time, and tells it what is left of `most` bytes for all pools. Returns how
/// many bytes are above the bound.
#[inline]
pub(crate) fn settle(pool: &mut BufferPool, most: usize, gauges: &Gauges) -> usize {
    let drawn = pool.settle();
    if drawn != 0 {
        gauges.change(Level::FrameMemory, drawn as i64);
    }
    let used = gauges.level(Level::FrameMemory) as usize;
    pool.set_room(most.saturating_sub(used) as isize);
    used.saturating_sub(most)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_one_worker_draws_is_missing_to_the_other() {
        let gauges = Gauges::default();
        let settle = |pool: &mut BufferPool| settle(pool, 10_000, &gauges);
        let (mut one, mut other) = (BufferPool::default(), BufferPool::default());
        let buffer = one.allocate(8_000);
        assert_eq!(settle(&mut one), 0);
        assert_eq!((settle(&mut other), other.room()), (0, 2_000));
        let more = other.allocate(5_000);
        assert_eq!((settle(&mut other), other.room()), (3_000, 0));
        other.release(buffer);
        other.release(more);
        assert_eq!((settle(&mut other), other.room()), (0, 10_000));
    }
}
