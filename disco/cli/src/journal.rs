//! The journal of a running peer: what has happened to its paths, for commands that ask.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};
use tokio::sync::Notify;
use tokio::time::timeout;
use towpath::{Path, PathClass};

/// The entries that are kept.
const KEPT: usize = 1024;

/// Something that has happened.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Entry {
    /// 1 for the first one since the start.
    pub(crate) number: u64,
    /// Milliseconds since 1970.
    pub(crate) time_ms: u64,
    /// The node key of the peer.
    pub(crate) peer: String,
    /// The path from then on.
    #[serde(flatten)]
    pub(crate) path: Path,
    pub(crate) class: PathClass,
}

/// A part of the journal.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Page<E> {
    /// The entries after the number that was asked for, as far as they are kept.
    pub(crate) entries: Vec<E>,
    /// The number to ask for next.
    pub(crate) next: u64,
    /// How many entries before these were asked for and are kept no more.
    pub(crate) lost: u64,
}

/// What has happened.
#[derive(Debug, Default)]
pub(crate) struct Journal {
    state: Mutex<State>,
    written: Notify,
}

#[derive(Debug, Default)]
struct State {
    entries: VecDeque<Entry>,
    last: u64,
}

impl Journal {
    pub(crate) fn write(&self, peer: String, path: Path) {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let time_ms = u64::try_from(since.as_millis()).unwrap_or(u64::MAX);
        let mut state = self.lock();
        state.last += 1;
        let entry = Entry { number: state.last, time_ms, peer, path, class: path.class() };
        if state.entries.len() >= KEPT {
            state.entries.pop_front();
        }
        state.entries.push_back(entry);
        drop(state);
        self.written.notify_waiters();
    }

    /// The number of the last entry.
    pub(crate) fn last(&self) -> u64 {
        self.lock().last
    }

    /// The entries after this number; waits for one for at most `longest`.
    pub(crate) async fn after(&self, number: u64, longest: Duration) -> Page<Entry> {
        let waiting = async {
            loop {
                let written = self.written.notified();
                if self.lock().last > number {
                    return;
                }
                written.await;
            }
        };
        // Without an entry the page is empty.
        let _ = timeout(longest, waiting).await;
        let state = self.lock();
        let entries: Vec<_> = state.entries.iter().filter(|entry| entry.number > number).cloned().collect();
        let oldest = state.entries.front().map_or(number + 1, |entry| entry.number);
        Page { entries, next: state.last, lost: oldest.saturating_sub(number + 1) }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn entries_are_given_once_and_lost_ones_are_counted() {
        let journal = Journal::default();
        let page = journal.after(0, Duration::from_secs(5)).await;
        assert_eq!((page.entries.len(), page.next, page.lost), (0, 0, 0));
        for _ in 0..KEPT + 10 {
            journal.write("nodekey:…".into(), Path::Relayed);
        }
        let page = journal.after(3, Duration::ZERO).await;
        assert_eq!((page.entries.len(), page.next, page.lost), (KEPT, KEPT as u64 + 10, 7));
        let page = journal.after(page.next - 1, Duration::ZERO).await;
        assert_eq!((page.entries.len(), page.lost), (1, 0));
    }
}
