//! Warnings that repeat: the first is logged, then a number once a minute, and at last that it is over.

use std::time::Duration;

use tokio::time::{Instant, sleep_until};

/// The shortest time between two log lines about the same failure, and the time without it after which it is over.
const QUIET: Duration = Duration::from_secs(60);

/// A failure that may repeat as often as another program or the system likes.
#[derive(Debug, Default)]
pub struct Repeated {
    current: Option<Episode>,
}

/// The failures since the last quiet time.
#[derive(Debug)]
struct Episode {
    logged: Instant,
    last: Instant,
    /// How many are not in the log yet.
    unlogged: u64,
    all: u64,
}

impl Repeated {
    /// Notes the failure. Returns how often it has happened since the last line, with this time, if a line is due.
    pub fn note(&mut self) -> Option<u64> {
        let now = Instant::now();
        let Some(episode) = &mut self.current else {
            self.current = Some(Episode { logged: now, last: now, unlogged: 0, all: 1 });
            return Some(1);
        };
        episode.last = now;
        episode.all += 1;
        episode.unlogged += 1;
        if now.saturating_duration_since(episode.logged) < QUIET {
            return None;
        }
        episode.logged = now;
        Some(std::mem::take(&mut episode.unlogged))
    }

    /// Waits until it has not happened for a minute, and returns how often it had. Waits without end if it has not happened.
    ///
    /// The future may be dropped at any time. It needs a runtime of tokio with time.
    pub async fn over(&mut self) -> u64 {
        let Some(Episode { last, all, .. }) = self.current else { return std::future::pending().await };
        sleep_until(last + QUIET).await;
        self.current = None;
        all
    }

    /// Forgets the failures, because what failed has worked. Returns how often it had failed.
    pub fn clear(&mut self) -> u64 {
        self.current.take().map_or(0, |episode| episode.all)
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::{advance, timeout};

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[tokio::test(start_paused = true)]
    async fn the_first_is_logged_at_once_and_the_others_once_a_minute_by_their_number() {
        let mut repeated = Repeated::default();
        assert_eq!(repeated.note(), Some(1));
        for _ in 1..60 {
            advance(SECOND).await;
            assert_eq!(repeated.note(), None);
        }
        advance(SECOND).await;
        assert_eq!(repeated.note(), Some(60));
        advance(SECOND).await;
        assert_eq!(repeated.note(), None);
    }

    #[tokio::test(start_paused = true)]
    async fn it_is_over_after_a_minute_without_it() {
        let mut repeated = Repeated::default();
        assert!(timeout(600 * SECOND, repeated.over()).await.is_err(), "it has not begun");
        repeated.note();
        for _ in 0..3 {
            assert!(timeout(59 * SECOND, repeated.over()).await.is_err());
            repeated.note();
        }
        let last = Instant::now();
        assert_eq!(repeated.over().await, 4);
        assert_eq!(last.elapsed(), QUIET);
        assert_eq!(repeated.note(), Some(1), "it begins anew");
        assert_eq!(repeated.clear(), 1);
        assert_eq!(repeated.clear(), 0);
    }
}
