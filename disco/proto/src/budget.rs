//! How many packets an address bears that has not answered yet.
//!
//! A peer says which addresses are its own, and may lie: a node that probed all it is told would send packets to hosts of the
//! peer's choice. So probes to an IP address are counted over all peers, until one on its tuple has been answered. Where a relay
//! has seen a peer at the address, no other host is there, and it bears more.

use std::collections::{BTreeMap, VecDeque};
use std::net::IpAddr;
use std::time::Duration;

use towpath_wire::time::Instant;

/// Probes to an address in a [`WINDOW`], over all peers and ports.
pub(crate) const PROBES_PER_ADDRESS: usize = 16;
/// The same for an address at which a relay has seen a peer within a [`WINDOW`].
const PROBES_PER_ATTESTED: usize = 512;
/// The time over which probes are counted.
const WINDOW: Duration = Duration::from_secs(60);
/// Addresses that are counted at once. While there are as many, no other is probed.
const MOST: usize = 1024;

/// The packets of the last minute to addresses that have not answered.
#[derive(Debug, Default)]
pub(crate) struct Budget {
    /// When the last packets were sent, the oldest first.
    spent: BTreeMap<IpAddr, VecDeque<Instant>>,
    /// When a relay has seen a peer at an address.
    attested: BTreeMap<IpAddr, Instant>,
}

impl Budget {
    /// Whether another packet may go to `address`, which is counted then.
    pub(crate) fn take(&mut self, address: IpAddr, now: Instant) -> bool {
        if !self.spent.contains_key(&address) && self.spent.len() >= MOST {
            self.spent.retain(|_, spent| spent.back().is_some_and(|last| now.since(*last) < WINDOW));
            if self.spent.len() >= MOST {
                return false;
            }
        }
        let spent = self.spent.entry(address).or_default();
        while spent.front().is_some_and(|oldest| now.since(*oldest) >= WINDOW) {
            spent.pop_front();
        }
        let is_attested = self.attested.get(&address).is_some_and(|at| now.since(*at) < WINDOW);
        let has_room = spent.len() < if is_attested { PROBES_PER_ATTESTED } else { PROBES_PER_ADDRESS };
        if has_room {
            spent.push_back(now);
        }
        has_room
    }

    /// Gives an address back what a ping from it is worth, which may have been sent by a peer in its name: `probes` have less than
    /// twice the bytes of the ping.
    pub(crate) fn credit(&mut self, address: IpAddr, probes: usize) {
        if let Some(spent) = self.spent.get_mut(&address) {
            spent.drain(..probes.min(spent.len()));
        }
    }

    /// Notes that a relay has seen a peer at an address.
    pub(crate) fn attest(&mut self, address: IpAddr, now: Instant) {
        if self.attested.len() >= MOST {
            self.attested.retain(|_, at| now.since(*at) < WINDOW);
        }
        if self.attested.len() < MOST || self.attested.contains_key(&address) {
            self.attested.insert(address, now);
        }
    }

    /// Counts nothing against an address that has answered.
    pub(crate) fn answered(&mut self, address: IpAddr) {
        self.spent.remove(&address);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Instant {
        Instant::from(Duration::from_secs(seconds))
    }

    #[test]
    fn an_address_bears_so_many_packets_a_minute_until_it_answers() {
        let mut budget = Budget::default();
        let [victim, other] = ["192.0.2.1", "192.0.2.2"].map(|text| text.parse().expect("an address"));
        assert!(budget.take(victim, at(0)));
        let spent = (0..100).filter(|_| budget.take(victim, at(1))).count();
        assert_eq!(spent, PROBES_PER_ADDRESS - 1);
        assert!(!budget.take(victim, at(59)) && budget.take(other, at(59)));
        assert!(budget.take(victim, at(60)) && !budget.take(victim, at(60)), "a minute after the first one");
        budget.credit(victim, 2);
        assert!(budget.take(victim, at(60)) && budget.take(victim, at(60)) && !budget.take(victim, at(60)));
        (0..100).for_each(|_| _ = budget.take(victim, at(61)));
        budget.answered(victim);
        assert!(budget.take(victim, at(61)));
    }

    #[test]
    fn an_address_at_which_a_relay_has_seen_a_peer_bears_more_for_a_minute() {
        let mut budget = Budget::default();
        let address = "192.0.2.1".parse().expect("an address");
        budget.attest(address, at(0));
        assert_eq!((0..1000).filter(|_| budget.take(address, at(1))).count(), PROBES_PER_ATTESTED);
        budget.attest(address, at(2));
        assert_eq!((0..1000).filter(|_| budget.take(address, at(61))).count(), PROBES_PER_ATTESTED);
        assert_eq!((0..1000).filter(|_| budget.take(address, at(121))).count(), PROBES_PER_ADDRESS);
        (0..5000_u32).for_each(|number| budget.attest(IpAddr::from(number.to_be_bytes()), at(121)));
        assert_eq!(budget.attested.len(), MOST);
    }

    #[test]
    fn addresses_are_bounded() {
        let mut budget = Budget::default();
        let address = |number: u32| IpAddr::from(number.to_be_bytes());
        let taken = (0..5000).filter(|&number| budget.take(address(number), at(1))).count();
        assert_eq!((taken, budget.spent.len()), (MOST, MOST));
        assert!(budget.take(address(4999), at(61)), "the old ones are forgotten");
    }
}
