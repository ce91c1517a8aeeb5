//! How many packets an address bears that has not answered yet.
//!
//! A peer says which addresses are its own, and may lie: a node that probed all it is told would send packets to hosts of the
//! peer's choice. So probes to an IP address are counted over all peers, until one on its tuple has been answered. Where a relay
//! has seen a peer at the address, no other host is there, and it bears more.

use std::collections::{BTreeMap, VecDeque};
use std::net::IpAddr;
use std::time::Duration;

use towpath_wire::key::NodePublic;
use towpath_wire::time::Instant;

/// Probes to an address in a [`WINDOW`], over all peers and ports.
pub(crate) const PROBES_PER_ADDRESS: usize = 16;
/// Probes in a [`WINDOW`] to an address at which a relay has seen a peer within one.
const PROBES_PER_ATTESTED: usize = 512;
/// The time over which probes are counted.
const WINDOW: Duration = Duration::from_secs(60);
/// Addresses that are counted at once. While there are as many, no other is probed.
const MOST: usize = 1024;

/// Addresses that are counted for one peer, so that none can stop the probes to all others by naming many.
const MOST_OF_PEER: usize = 64;

/// The packets of the last minute to an address, the oldest first.
#[derive(Debug)]
struct Spent {
    /// The peer for which the first of them was sent.
    peer: NodePublic,
    sent: VecDeque<Instant>,
}

/// The packets of the last minute to addresses that have not answered.
#[derive(Debug, Default)]
pub(crate) struct Budget {
    spent: BTreeMap<IpAddr, Spent>,
    /// When a relay has seen a peer at an address.
    attested: BTreeMap<IpAddr, Instant>,
}

impl Budget {
    /// Whether another packet may go to `address`, at which `peer` may be. It is counted then.
    pub(crate) fn take(&mut self, address: IpAddr, peer: &NodePublic, now: Instant) -> bool {
        if !self.spent.contains_key(&address) && !self.has_room(peer, now) {
            return false;
        }
        let spent = self.spent.entry(address).or_insert_with(|| Spent { peer: *peer, sent: VecDeque::new() });
        while spent.sent.front().is_some_and(|oldest| now.since(*oldest) >= WINDOW) {
            spent.sent.pop_front();
        }
        let is_attested = self.attested.get(&address).is_some_and(|at| now.since(*at) < WINDOW);
        let most = if is_attested { PROBES_PER_ATTESTED } else { PROBES_PER_ADDRESS };
        let has_room = spent.sent.len() < most;
        if has_room {
            spent.sent.push_back(now);
        }
        has_room
    }

    /// Whether another address may be counted for a peer.
    fn has_room(&mut self, peer: &NodePublic, now: Instant) -> bool {
        let of_peer =
            |spent: &BTreeMap<IpAddr, Spent>| spent.values().filter(|spent| spent.peer == *peer).count();
        if self.spent.len() >= MOST || of_peer(&self.spent) >= MOST_OF_PEER {
            self.spent.retain(|_, spent| spent.sent.back().is_some_and(|last| now.since(*last) < WINDOW));
        }
        self.spent.len() < MOST && of_peer(&self.spent) < MOST_OF_PEER
    }

    /// Gives an address back what a ping from it is worth, which may have been sent by a peer in its name: `probes` have less than
    /// twice the bytes of the ping.
    pub(crate) fn credit(&mut self, address: IpAddr, probes: usize) {
        if let Some(spent) = self.spent.get_mut(&address) {
            spent.sent.drain(..probes.min(spent.sent.len()));
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

    const PEER: NodePublic = NodePublic::from_bytes([1; 32]);

    fn at(seconds: u64) -> Instant {
        Instant::from(Duration::from_secs(seconds))
    }

    #[test]
    fn an_address_bears_so_many_packets_a_minute_until_it_answers() {
        let mut budget = Budget::default();
        let [victim, other] = ["192.0.2.1", "192.0.2.2"].map(|text| text.parse().expect("an address"));
        assert!(budget.take(victim, &PEER, at(0)));
        let spent = (0..100).filter(|_| budget.take(victim, &PEER, at(1))).count();
        assert_eq!(spent, PROBES_PER_ADDRESS - 1);
        assert!(!budget.take(victim, &PEER, at(59)) && budget.take(other, &PEER, at(59)));
        assert!(
            budget.take(victim, &PEER, at(60)) && !budget.take(victim, &PEER, at(60)),
            "a minute after the first one"
        );
        budget.credit(victim, 2);
        assert!(
            budget.take(victim, &PEER, at(60))
                && budget.take(victim, &PEER, at(60))
                && !budget.take(victim, &PEER, at(60))
        );
        (0..100).for_each(|_| _ = budget.take(victim, &PEER, at(61)));
        budget.answered(victim);
        assert!(budget.take(victim, &PEER, at(61)));
    }

    #[test]
    fn an_address_at_which_a_relay_has_seen_a_peer_bears_more_for_a_minute() {
        let mut budget = Budget::default();
        let address = "192.0.2.1".parse().expect("an address");
        budget.attest(address, at(0));
        assert_eq!((0..1000).filter(|_| budget.take(address, &PEER, at(1))).count(), PROBES_PER_ATTESTED);
        budget.attest(address, at(2));
        assert_eq!((0..1000).filter(|_| budget.take(address, &PEER, at(61))).count(), PROBES_PER_ATTESTED);
        assert_eq!((0..1000).filter(|_| budget.take(address, &PEER, at(121))).count(), PROBES_PER_ADDRESS);
        (0..5000_u32).for_each(|number| budget.attest(IpAddr::from(number.to_be_bytes()), at(121)));
        assert_eq!(budget.attested.len(), MOST);
    }

    #[test]
    fn addresses_are_bounded_for_each_peer_and_for_all() {
        let mut budget = Budget::default();
        let take = |budget: &mut Budget, peer: u8, number: u32, seconds| {
            let peer = NodePublic::from_bytes([peer; 32]);
            budget.take(
                IpAddr::from((u32::from(peer.as_bytes()[0]) << 16 | number).to_be_bytes()),
                &peer,
                at(seconds),
            )
        };
        let taken = (0..5000).filter(|&number| take(&mut budget, 1, number, 1)).count();
        assert_eq!((taken, budget.spent.len()), (MOST_OF_PEER, MOST_OF_PEER));
        assert!(take(&mut budget, 1, 1, 1), "one that is counted already");
        assert!(take(&mut budget, 2, 1, 1), "another peer is not held up");
        let taken =
            (3..=255).map(|peer| (0..100).filter(|&number| take(&mut budget, peer, number, 1)).count());
        assert_eq!((taken.sum::<usize>(), budget.spent.len()), (MOST - MOST_OF_PEER - 1, MOST));
        assert!(take(&mut budget, 1, 4999, 61), "the old ones are forgotten");
    }
}
