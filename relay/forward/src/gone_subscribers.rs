//! The subscribers to the departure of a key: connections that have received something from it and so must be told when
//! it leaves. Tailscale's code calls them peerGoneWatchers.

use std::collections::HashMap;
use std::sync::{Arc, Weak};

/// Most connections that are told when one key leaves. A key that has sent to more is a server of a large network; the
/// clients beyond find out by their own timeouts.
const MAX_SUBSCRIBERS: usize = 4096;

/// The connections that are told when one key leaves, by their numbers.
#[derive(Debug)]
pub(crate) struct GoneSubscribers<C> {
    members: HashMap<u64, Weak<C>>,
    /// How many more additions until members that have left are removed. It starts at the number of members, so that
    /// the average cost of an addition does not depend on it.
    until_sweep: usize,
}

impl<C> Default for GoneSubscribers<C> {
    fn default() -> Self {
        Self { members: HashMap::new(), until_sweep: Self::LEAST_UNTIL_SWEEP }
    }
}

impl<C> GoneSubscribers<C> {
    const LEAST_UNTIL_SWEEP: usize = 8;

    pub(crate) fn add(&mut self, id: u64, connection: &Arc<C>) {
        self.until_sweep -= 1;
        if self.until_sweep == 0 {
            self.members.retain(|_, member| member.strong_count() > 0);
            self.until_sweep = self.members.len().max(Self::LEAST_UNTIL_SWEEP);
        }
        if self.members.len() < MAX_SUBSCRIBERS {
            self.members.insert(id, Arc::downgrade(connection));
        }
    }

    /// The subscribers that are still connected.
    pub(crate) fn into_live(self) -> Vec<Arc<C>> {
        self.members.into_values().filter_map(|member| member.upgrade()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn subscribers_are_bounded_and_departed_ones_make_room() {
        let mut subscribers = GoneSubscribers::default();
        let early: Vec<_> = (0..MAX_SUBSCRIBERS as u64).map(|id| (id, Arc::new(()))).collect();
        let late: Vec<_> = (MAX_SUBSCRIBERS as u64..).take(100).map(|id| (id, Arc::new(()))).collect();
        for (id, connection) in early.iter().chain(&late).chain(&early) {
            subscribers.add(*id, connection);
        }
        assert_eq!(subscribers.members.len(), MAX_SUBSCRIBERS);
        assert!(late.iter().all(|(id, _)| !subscribers.members.contains_key(id)), "the first ones stay");
        drop(early);
        for (id, connection) in late.iter().cycle().take(2 * MAX_SUBSCRIBERS) {
            subscribers.add(*id, connection);
        }
        assert_eq!(subscribers.members.len(), late.len());
    }
}
