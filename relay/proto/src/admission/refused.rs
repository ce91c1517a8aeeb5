//! The keys that were refused of late: why, and whether they need to be asked about again.
//!
//! Stock clients that are refused dial again with every packet that they want to send. So a refusal is remembered for a few
//! seconds, for the key and the host that it came from together, and a host that brings many keys that are refused has a
//! bound on how many of them are asked about. Admitted keys behind such a host are not touched by either.

use std::collections::{HashMap, VecDeque};
use std::hash::RandomState;
use std::net::IpAddr;
use std::num::NonZeroU32;
use std::time::Duration;

use towpath_wire::host::{Host, PrefixWidth};
use towpath_wire::key::NodePublic;
use towpath_wire::rate::Limiter;

/// Keys that are remembered.
const MOST: usize = 16_384;
/// Refusals a second that a host may cause by asking for keys that no policy knows. A /56 of IPv6 may cause twice as many, a
/// /48 four times.
pub const REFUSALS_PER_HOST: u32 = 32;

/// The last refusal of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LastRefusal<R> {
    /// Why it was refused.
    pub reason: R,
    /// The address that it came from.
    pub source: IpAddr,
    /// When, since the beginning of the caller's clock.
    pub at: Duration,
    /// For how long the same host is refused without asking.
    pub holds: Duration,
    /// How often the key has been refused since it was first remembered.
    pub times: u64,
}

/// The keys that were refused of late.
#[derive(Debug)]
pub struct RefusedKeys<R> {
    keys: HashMap<NodePublic, LastRefusal<R>>,
    /// The keys in the order in which they were first refused.
    oldest: VecDeque<NodePublic>,
    hosts: [Limiter<RandomState>; PrefixWidth::ALL.len()],
}

impl<R: Copy> Default for RefusedKeys<R> {
    fn default() -> Self {
        let hosts = PrefixWidth::ALL.map(|width| {
            let rate = REFUSALS_PER_HOST.saturating_mul(u32::try_from(width.factor()).unwrap_or(1));
            Limiter::new(NonZeroU32::new(rate).unwrap_or(NonZeroU32::MIN), RandomState::new())
        });
        Self { keys: HashMap::new(), oldest: VecDeque::new(), hosts }
    }
}

impl<R: Copy> RefusedKeys<R> {
    /// Whether the last refusal of `key` still holds for a host at `source`. If it does, this counts as another.
    pub fn refuses_again(&mut self, key: &NodePublic, source: IpAddr, now: Duration) -> bool {
        let Some(last) = self.keys.get_mut(key) else { return false };
        let holds = Host::of(last.source) == Host::of(source) && now < last.at + last.holds;
        last.times += u64::from(holds);
        holds
    }

    /// Whether a host at `source` may cause another refusal now, so that a key that is not known may be asked about. The refusal is
    /// charged when it is noted, so that a host whose keys are admitted is charged nothing. Logins that wait for their answer at
    /// the same time all pass: what bounds those is the places for logins of a host.
    pub fn may_ask(&self, source: IpAddr, now: Duration) -> bool {
        Host::of(source).prefixes().all(|prefix| self.hosts[prefix.width().index()].has_room(prefix, now))
    }

    /// Notes a refusal that holds for `holds`. `asked`: policies were asked, which is charged to the host.
    pub fn note(
        &mut self,
        key: NodePublic,
        source: IpAddr,
        reason: R,
        holds: Duration,
        asked: bool,
        now: Duration,
    ) {
        if asked {
            for prefix in Host::of(source).prefixes() {
                self.hosts[prefix.width().index()].admits(prefix, now);
            }
        }
        let times = self.keys.get(&key).map_or(0, |last| last.times) + 1;
        if self.keys.insert(key, LastRefusal { reason, source, at: now, holds, times }).is_none() {
            self.oldest.push_back(key);
        }
        while self.keys.len() > MOST
            && let Some(oldest) = self.oldest.pop_front()
        {
            self.keys.remove(&oldest);
        }
    }

    /// Forgets the refusal of a key that has been admitted.
    pub fn admitted(&mut self, key: &NodePublic) {
        if let Some(last) = self.keys.get_mut(key) {
            last.holds = Duration::ZERO;
        }
    }

    /// Lets no refusal hold any longer, because what was decided by has changed.
    pub fn release(&mut self) {
        self.keys.values_mut().for_each(|last| last.holds = Duration::ZERO);
    }

    /// The last refusal of a key, if it is remembered.
    #[must_use]
    pub fn last(&self, key: &NodePublic) -> Option<LastRefusal<R>> {
        self.keys.get(key).copied()
    }
}

#[cfg(test)]
mod tests {
    use towpath_wire::key::NodePrivate;

    use super::*;

    const FIVE: Duration = Duration::from_secs(5);

    fn key(seed: u16) -> NodePublic {
        let mut bytes = [7; 32];
        bytes[4..6].copy_from_slice(&seed.to_be_bytes());
        NodePrivate::from_random(bytes).public()
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    fn at(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    #[test]
    fn a_refusal_holds_for_the_key_and_the_host_for_its_time() {
        let mut refused = RefusedKeys::default();
        refused.note(key(1), ip("192.0.2.1"), 'r', FIVE, true, at(1000));
        assert!(refused.refuses_again(&key(1), ip("192.0.2.1"), at(5999)));
        assert!(!refused.refuses_again(&key(1), ip("192.0.2.1"), at(6000)));
        assert!(!refused.refuses_again(&key(1), ip("192.0.2.2"), at(1001)), "another host");
        assert!(!refused.refuses_again(&key(2), ip("192.0.2.1"), at(1001)), "another key");
        assert_eq!(refused.last(&key(1)).map(|last| (last.reason, last.times)), Some(('r', 2)));
        refused.admitted(&key(1));
        assert!(!refused.refuses_again(&key(1), ip("192.0.2.1"), at(1001)));
        refused.note(key(1), ip("192.0.2.1"), 'r', FIVE, true, at(1002));
        refused.release();
        assert!(!refused.refuses_again(&key(1), ip("192.0.2.1"), at(1003)));
        assert!(refused.last(&key(1)).is_some() && refused.last(&key(2)).is_none());
    }

    #[test]
    fn a_host_causes_so_many_refusals_a_second_and_others_are_not_touched() {
        let mut refused = RefusedKeys::default();
        let asked = (0..1000).filter(|&seed| {
            let may = refused.may_ask(ip("192.0.2.1"), at(0));
            if may {
                refused.note(key(seed), ip("192.0.2.1"), 'r', FIVE, true, at(0));
            }
            may
        });
        assert_eq!(asked.count(), REFUSALS_PER_HOST as usize);
        assert!(refused.may_ask(ip("192.0.2.2"), at(0)));
        assert!(refused.may_ask(ip("192.0.2.1"), at(1000)));
        refused.note(key(9), ip("192.0.2.2"), 'r', FIVE, false, at(0));
        let free = (0..1000).filter(|_| refused.may_ask(ip("192.0.2.2"), at(0))).count();
        assert_eq!(free, 1000, "what was not asked about is not charged");
    }

    #[test]
    fn the_oldest_key_is_forgotten_when_there_are_too_many() {
        let mut refused = RefusedKeys::default();
        let count = u16::try_from(MOST).expect("it fits") + 1;
        for seed in 0..count {
            refused.note(key(seed), ip("192.0.2.1"), 'r', FIVE, false, at(0));
        }
        assert!(refused.last(&key(0)).is_none() && refused.last(&key(1)).is_some());
        assert_eq!((refused.keys.len(), refused.oldest.len()), (MOST, MOST));
    }
}
