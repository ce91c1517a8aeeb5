//! Who has received something from a key, and so must be told when it leaves.

use std::collections::HashMap;
use std::sync::{Arc, Weak};

/// Most connections that are told when one key leaves. A key that has sent to more is a server of a large network; the
/// clients beyond find out by their own timeouts.
const MAX_AUDIENCE: usize = 4096;

/// The connections that have received something from a key, by their numbers.
#[derive(Debug)]
pub(super) struct Audience<C> {
    members: HashMap<u64, Weak<C>>,
    /// After so many more additions those that left are removed: as many as there were members, so that an addition
    /// costs the same on average however many there are.
    until_sweep: usize,
}

impl<C> Default for Audience<C> {
    fn default() -> Self {
        Self { members: HashMap::new(), until_sweep: Self::LEAST_UNTIL_SWEEP }
    }
}

impl<C> Audience<C> {
    const LEAST_UNTIL_SWEEP: usize = 8;

    pub(super) fn add(&mut self, id: u64, connection: &Arc<C>) {
        self.until_sweep -= 1;
        if self.until_sweep == 0 {
            self.members.retain(|_, member| member.strong_count() > 0);
            self.until_sweep = self.members.len().max(Self::LEAST_UNTIL_SWEEP);
        }
        if self.members.len() < MAX_AUDIENCE {
            self.members.insert(id, Arc::downgrade(connection));
        }
    }

    /// Those who are still here.
    pub(super) fn into_members(self) -> Vec<Arc<C>> {
        self.members.into_values().filter_map(|member| member.upgrade()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_audience_is_bounded_and_those_who_left_make_room() {
        let mut audience = Audience::default();
        let early: Vec<_> = (0..MAX_AUDIENCE as u64).map(|id| (id, Arc::new(()))).collect();
        let late: Vec<_> = (MAX_AUDIENCE as u64..).take(100).map(|id| (id, Arc::new(()))).collect();
        for (id, connection) in early.iter().chain(&late).chain(&early) {
            audience.add(*id, connection);
        }
        assert_eq!(audience.members.len(), MAX_AUDIENCE);
        assert!(late.iter().all(|(id, _)| !audience.members.contains_key(id)), "the first ones stay");
        drop(early);
        for (id, connection) in late.iter().cycle().take(2 * MAX_AUDIENCE) {
            audience.add(*id, connection);
        }
        assert_eq!(audience.members.len(), late.len());
    }
}
