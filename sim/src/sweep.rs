//! Many runs, on all cores, and what their results are like.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

/// The results of so many runs, in the order of their numbers. The runs are spread over all cores.
///
/// # Panics
/// If a run panics.
pub fn sweep<T: Send>(runs: usize, run: impl Fn(usize) -> T + Sync) -> Vec<T> {
    let next = AtomicUsize::new(0);
    let worker = || {
        let mut done = Vec::new();
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            if number >= runs {
                return done;
            }
            done.push((number, run(number)));
        }
    };
    let cores = thread::available_parallelism().map_or(1, usize::from);
    let mut results: Vec<(usize, T)> = thread::scope(|scope| {
        let workers: Vec<_> = (0..cores.min(runs)).map(|_| scope.spawn(worker)).collect();
        workers.into_iter().flat_map(|worker| worker.join().expect("a run panicked")).collect()
    });
    results.sort_by_key(|(number, _)| *number);
    results.into_iter().map(|(_, result)| result).collect()
}

/// The items of which none can be left out without the failure going away, in their order. `fails` says whether some
/// items fail, and is called with fewer and fewer of them; all of them do fail.
pub fn shrink<T: Clone>(items: &[T], fails: impl Fn(&[T]) -> bool) -> Vec<T> {
    let mut left = items.to_vec();
    let mut chunk = left.len();
    while chunk > 0 {
        let mut start = 0;
        let mut smaller = false;
        while start < left.len() {
            let mut without = left.clone();
            without.drain(start..left.len().min(start + chunk));
            if fails(&without) {
                left = without;
                smaller = true;
            } else {
                start += chunk;
            }
        }
        // What could not be left out before may be left out once something else is gone.
        if !smaller || chunk > 1 {
            chunk /= 2;
        }
    }
    left
}

/// Durations, sorted.
#[derive(Clone, Debug, Default)]
pub struct Spread(Vec<Duration>);

impl FromIterator<Duration> for Spread {
    fn from_iter<I: IntoIterator<Item = Duration>>(durations: I) -> Self {
        let mut sorted: Vec<Duration> = durations.into_iter().collect();
        sorted.sort_unstable();
        Self(sorted)
    }
}

impl Spread {
    /// How many there are.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The smallest duration that so many of a thousand do not exceed; 500 for the median, 1,000 for the largest.
    #[must_use]
    pub fn per_mille(&self, share: usize) -> Option<Duration> {
        let rank = (self.0.len() * share).div_ceil(1000).max(1);
        self.0.get(rank - 1).or(self.0.last()).copied()
    }

    /// The median.
    #[must_use]
    pub fn median(&self) -> Option<Duration> {
        self.per_mille(500)
    }

    /// What 99 of 100 do not exceed.
    #[must_use]
    pub fn p99(&self) -> Option<Duration> {
        self.per_mille(990)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_matter_is_shrunk_away() {
        let items: Vec<u32> = (0..100).collect();
        let fails = |items: &[u32]| items.contains(&17) && items.contains(&80) && items.len() >= 3;
        let left = shrink(&items, fails);
        assert!(left.len() == 3 && left.is_sorted() && fails(&left), "{left:?}");
        assert!(shrink(&items, |_| true).is_empty());
        assert_eq!(shrink(&items, |items| items.len() == 100), items);
        // 5 can go only after 6 has gone.
        let chained = |items: &[u32]| items.contains(&9) && (!items.contains(&6) || items.contains(&5));
        assert_eq!(shrink(&items, chained), [9]);
    }

    #[test]
    fn results_are_in_order_and_shares_are_counted() {
        assert_eq!(sweep(100, |number| number), (0..100).collect::<Vec<_>>());
        assert!(sweep(0, |number| number).is_empty());
        let spread: Spread = (1..=200).rev().map(Duration::from_millis).collect();
        assert_eq!(spread.median(), Some(Duration::from_millis(100)));
        assert_eq!(spread.p99(), Some(Duration::from_millis(198)));
        assert_eq!(spread.per_mille(1000), Some(Duration::from_millis(200)));
        assert_eq!(spread.per_mille(0), Some(Duration::from_millis(1)));
        assert_eq!((Spread::default().p99(), spread.len()), (None, 200));
    }
}
