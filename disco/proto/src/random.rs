//! Numbers that no other host can guess, drawn from a seed that the driver passes in.

/// A generator of random bytes: blake3 keyed with the seed, over a counter.
#[derive(Clone)]
pub(crate) struct Random {
    seed: [u8; 32],
    drawn: u64,
}

impl Random {
    pub(crate) const fn new(seed: [u8; 32]) -> Self {
        Self { seed, drawn: 0 }
    }

    /// The next `N` bytes, 32 at most.
    pub(crate) fn bytes<const N: usize>(&mut self) -> [u8; N] {
        const { assert!(N <= blake3::OUT_LEN) };
        self.drawn += 1;
        let block = blake3::keyed_hash(&self.seed, &self.drawn.to_le_bytes());
        std::array::from_fn(|at| block.as_bytes()[at])
    }
}
