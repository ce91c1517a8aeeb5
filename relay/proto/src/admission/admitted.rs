//! The keys that are admitted: which policy admitted each, when that was last confirmed, and when it is asked again.
//!
//! A key is asked about again every `interval` while it is connected. A policy that *cannot tell* then changes nothing until
//! `grace` has passed since its last confirmation: the relay fails static. A key that comes back within `grace` is admitted at
//! once and asked about afterwards, so that no login of a known key waits for a backend.
//!
//! Time is in whole seconds of a clock that goes on over restarts and never goes back.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::ops::RangeInclusive;

use towpath_wire::key::{KEY_LEN, NodePublic};

use super::PolicyName;

/// The confirmations of a key that are written down lie at least this part of `grace` apart.
const SAVES_OF_GRACE: u64 = 24;
/// The checks of a key come up to a tenth of `interval` early, so that keys that came together do not stay together.
const SPREAD: u64 = 10;
/// Seconds after the admission of a login in which its key is taken to be on its way to the workers.
pub const ARRIVAL: u64 = 10;

/// How long admissions hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConfirmRules {
    /// Seconds after which the policies are asked again about a key that is connected.
    pub interval: u64,
    /// Seconds for which a key works without a confirmation.
    pub grace: u64,
    /// Keys that are remembered at most. A key above it works and is asked about again, and is forgotten when it leaves.
    pub most: usize,
    /// Whether a key works without a confirmation for as long as no policy can tell.
    pub admit_unknown: bool,
}

/// A key that is due to be asked about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Due {
    /// The key.
    pub key: NodePublic,
    /// The policy that admitted it.
    pub policy: PolicyName,
    /// The address from which it logged in last, if it has in this run.
    pub source: Option<IpAddr>,
}

/// What became of the admission of a key for which no policy could tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// The key works on.
    Works,
    /// Its last confirmation is too long ago; it has been forgotten.
    Expired,
}

/// The keys that are admitted. A connected client costs an entry in each of the two maps, some 120 bytes together.
#[derive(Debug)]
pub struct AdmittedKeys {
    rules: ConfirmRules,
    /// In order, which takes less memory than a table of hashes, and finds a key by its prefix.
    keys: BTreeMap<NodePublic, Admitted>,
    /// The prefixes of keys to be looked at in each second. A key whose entry names another second is passed over.
    due: BTreeMap<Second, Vec<Prefix>>,
}

/// Seconds since 1970, as far as they fit.
type Second = u32;

/// The first bytes of a key. To find two keys with the same ones takes 2^64 tries.
type Prefix = [u8; 8];

#[derive(Clone, Copy, Debug)]
struct Admitted {
    policy: PolicyName,
    source: Option<IpAddr>,
    /// When a login of the key was admitted last; 0 for none in this run.
    came: Second,
    /// The last confirmation; 0 for none, of a key that was admitted while no policy could tell.
    confirmed: Second,
    /// The confirmation that was written down last; 0 for none.
    saved: Second,
    /// When the key is looked at next; 0 while its policies are asked.
    due: Second,
}

const _: () = assert!(size_of::<Admitted>() <= 36);

impl Admitted {
    const fn new(policy: PolicyName, source: Option<IpAddr>, confirmed: u64) -> Self {
        Self { policy, source, came: 0, confirmed: second(confirmed), saved: 0, due: 0 }
    }

    /// The end of the time for which the key works without a confirmation.
    fn last(&self, rules: &ConfirmRules) -> u64 {
        u64::from(self.confirmed) + rules.grace
    }

    const fn come_from(&mut self, source: IpAddr, now: u64) {
        (self.source, self.came) = (Some(source), second(now));
    }
}

const fn second(seconds: u64) -> Second {
    if seconds > Second::MAX as u64 { Second::MAX } else { seconds as Second }
}

fn prefix_of(key: &NodePublic) -> Prefix {
    std::array::from_fn(|at| key.as_bytes()[at])
}

/// The keys that begin with `prefix`.
fn keys_with(prefix: Prefix) -> RangeInclusive<NodePublic> {
    let filled = |filling| {
        let mut bytes = [filling; KEY_LEN];
        bytes[..prefix.len()].copy_from_slice(&prefix);
        NodePublic::from_bytes(bytes)
    };
    filled(0)..=filled(u8::MAX)
}

impl AdmittedKeys {
    /// Creates an empty set.
    #[must_use]
    pub fn new(rules: ConfirmRules) -> Self {
        Self { rules, keys: BTreeMap::new(), due: BTreeMap::new() }
    }

    /// How many keys there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.keys.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// Whether a key is admitted.
    #[must_use]
    pub fn contains(&self, key: &NodePublic) -> bool {
        self.keys.contains_key(key)
    }

    /// Takes in a key as it was written down. One whose confirmation is too old, or later than `now`, is left out or taken as
    /// confirmed now.
    pub fn restore(&mut self, key: NodePublic, policy: PolicyName, confirmed: u64, now: u64) {
        let confirmed = confirmed.min(now);
        if confirmed + self.rules.grace <= now || self.keys.len() >= self.rules.most {
            return;
        }
        let admitted = Admitted::new(policy, None, confirmed);
        self.keys.insert(key, Admitted { saved: admitted.confirmed, ..admitted });
        self.schedule(&key, confirmed + self.rules.grace);
    }

    /// Forgets a key as it was written down. Returns whether it was there.
    pub fn remove(&mut self, key: &NodePublic) -> bool {
        self.keys.remove(key).is_some()
    }

    /// The policy by which a key that logs in from `source` is known. It is due at once if its confirmation is older than the
    /// interval.
    pub fn return_of(&mut self, key: &NodePublic, source: IpAddr, now: u64) -> Option<PolicyName> {
        let admitted = self.keys.get_mut(key)?;
        if admitted.last(&self.rules) <= now {
            return None;
        }
        admitted.come_from(source, now);
        let (policy, check) =
            (admitted.policy, (u64::from(admitted.confirmed) + self.rules.interval).max(now));
        if u64::from(admitted.due) > check {
            self.schedule(key, check);
        }
        Some(policy)
    }

    /// Notes that `policy` has allowed a key, which logs in from `source`; `None` if it is connected. Returns whether that is to
    /// be written down.
    pub fn confirm(&mut self, key: NodePublic, policy: PolicyName, source: Option<IpAddr>, now: u64) -> bool {
        let admitted = self.keys.entry(key).or_insert(Admitted::new(policy, source, now));
        let is_saved = admitted.policy == policy
            && u64::from(admitted.saved) + self.rules.grace / SAVES_OF_GRACE > now
            && admitted.saved > 0;
        admitted.policy = policy;
        if let Some(source) = source {
            admitted.come_from(source, now);
        }
        admitted.confirmed = second(now);
        if !is_saved {
            admitted.saved = admitted.confirmed;
        }
        let early = u64::from(key.as_bytes()[0]) % (self.rules.interval / SPREAD + 1);
        self.schedule(&key, now + self.rules.interval - early);
        !is_saved
    }

    /// Notes that a key works although no policy has allowed it, because `policy` cannot tell. It is not written down, and the
    /// policies are asked again as about any key that is connected.
    pub fn admit_unconfirmed(&mut self, key: NodePublic, policy: PolicyName, source: IpAddr, now: u64) {
        let admitted = self.keys.entry(key).or_insert(Admitted::new(policy, None, 0));
        admitted.come_from(source, now);
        self.schedule(&key, now + self.rules.interval);
    }

    /// Notes that no policy allows a key and at least one cannot tell.
    pub fn cannot_tell(&mut self, key: &NodePublic, now: u64) -> Standing {
        match self.keys.get(key) {
            Some(_) if self.rules.admit_unknown => {
                self.schedule(key, now + self.rules.interval);
                Standing::Works
            }
            Some(admitted) if now < admitted.last(&self.rules) => {
                let last = admitted.last(&self.rules);
                self.schedule(key, last.min(now + self.rules.interval));
                Standing::Works
            }
            _ => {
                self.keys.remove(key);
                Standing::Expired
            }
        }
    }

    /// Notes that a key is not connected, so that it is not asked about until it comes back. One whose login was admitted within
    /// [`ARRIVAL`] stays due until then, because its connection may be about to begin.
    pub fn rest(&mut self, key: &NodePublic, now: u64) {
        let Some(admitted) = self.keys.get(key) else { return };
        let last = admitted.last(&self.rules);
        if now < u64::from(admitted.came) + ARRIVAL {
            self.schedule(key, now + 1);
        } else if last <= now || self.keys.len() > self.rules.most {
            self.keys.remove(key);
        } else {
            self.schedule(key, last);
        }
    }

    /// Takes keys that are due, `most` at most. Each is then asked about, and one of [`confirm`](Self::confirm),
    /// [`cannot_tell`](Self::cannot_tell), [`remove`](Self::remove) and [`rest`](Self::rest) follows.
    pub fn take_due(&mut self, now: u64, most: usize) -> Vec<Due> {
        let mut taken = Vec::new();
        while taken.len() < most
            && let Some(mut second) = self.due.first_entry()
            && u64::from(*second.key()) <= now
        {
            let at = *second.key();
            let Some(prefix) = second.get_mut().pop() else {
                second.remove();
                continue;
            };
            for (&key, admitted) in self.keys.range_mut(keys_with(prefix)) {
                if admitted.due == at {
                    admitted.due = 0;
                    taken.push(Due { key, policy: admitted.policy, source: admitted.source });
                }
            }
        }
        taken
    }

    /// Makes every key due that `is_meant` says, as when an allow list has changed.
    pub fn hurry(&mut self, now: u64, is_meant: impl Fn(&NodePublic, PolicyName) -> bool) {
        let meant: Vec<_> = self
            .keys
            .iter()
            .filter(|(key, admitted)| admitted.due > 0 && is_meant(key, admitted.policy))
            .map(|(key, _)| *key)
            .collect();
        for key in meant {
            self.schedule(&key, now);
        }
    }

    /// Every key that a policy has allowed, with its policy and the confirmation to write down.
    pub fn confirmed(&self) -> impl Iterator<Item = (&NodePublic, PolicyName, u64)> {
        self.keys
            .iter()
            .filter(|(_, admitted)| admitted.confirmed > 0)
            .map(|(key, admitted)| (key, admitted.policy, admitted.confirmed.into()))
    }

    fn schedule(&mut self, key: &NodePublic, at: u64) {
        let at = second(at.max(1));
        if let Some(admitted) = self.keys.get_mut(key)
            && admitted.due != at
        {
            admitted.due = at;
            self.due.entry(at).or_default().push(prefix_of(key));
        }
    }
}

#[cfg(test)]
mod tests {
    use towpath_wire::key::NodePrivate;

    use super::*;

    const RULES: ConfirmRules = ConfirmRules { interval: 60, grace: 86_400, most: 3, admit_unknown: false };
    const START: u64 = 1_000_000;

    fn key(seed: u8) -> NodePublic {
        NodePrivate::from_random([seed; 32]).public()
    }

    fn source() -> IpAddr {
        "192.0.2.1".parse().expect("an address")
    }

    fn confirmed(seed: u8) -> AdmittedKeys {
        let mut keys = AdmittedKeys::new(RULES);
        assert!(keys.confirm(key(seed), PolicyName::VerifyUrl, Some(source()), START), "it is written down");
        keys
    }

    #[test]
    fn a_key_is_due_within_the_interval_and_once() {
        let mut keys = confirmed(1);
        assert_eq!(keys.take_due(START + 53, 9), []);
        let due = Due { key: key(1), policy: PolicyName::VerifyUrl, source: Some(source()) };
        assert_eq!(keys.take_due(START + 60, 9), [due]);
        assert_eq!(keys.take_due(START + 600, 9), [], "it is being asked about");
        assert!(!keys.confirm(key(1), PolicyName::VerifyUrl, None, START + 61), "too soon to write it again");
        assert_eq!(keys.take_due(START + 113, 9), []);
        assert_eq!(keys.take_due(START + 121, 9), [due], "the source is kept");
    }

    #[test]
    fn a_key_that_is_being_asked_about_is_not_made_due() {
        let mut keys = confirmed(1);
        assert_eq!(keys.take_due(START + 60, 9).len(), 1);
        keys.hurry(START + 61, |_, _| true);
        assert_eq!(keys.take_due(START + 61, 9), [], "the answer is on its way");
        keys.confirm(key(1), PolicyName::VerifyUrl, None, START + 61);
        keys.hurry(START + 62, |_, _| true);
        assert_eq!(keys.take_due(START + 62, 9).len(), 1);
    }

    #[test]
    fn a_key_that_was_made_due_and_confirmed_within_a_second_is_due_once() {
        let mut keys = confirmed(1);
        keys.hurry(START, |_, _| true);
        assert_eq!(keys.take_due(START, 9).len(), 1);
        keys.confirm(key(1), PolicyName::VerifyUrl, None, START);
        assert_eq!(keys.take_due(START + 60, 9).len(), 1);
    }

    #[test]
    fn a_confirmation_is_written_down_again_after_a_part_of_the_grace() {
        let mut keys = confirmed(1);
        assert!(!keys.confirm(key(1), PolicyName::VerifyUrl, None, START + 3_599));
        assert!(keys.confirm(key(1), PolicyName::VerifyUrl, None, START + 3_600));
        assert!(keys.confirm(key(1), PolicyName::AllowList, None, START + 3_601), "another policy");
    }

    #[test]
    fn a_key_works_for_the_grace_while_no_policy_can_tell() {
        let mut keys = confirmed(1);
        let mut now = START;
        loop {
            let due = keys.take_due(now, 1);
            if !due.is_empty() && keys.cannot_tell(&key(1), now) == Standing::Expired {
                break;
            }
            now += 1;
        }
        assert_eq!(now, START + RULES.grace);
        assert!(keys.is_empty());
    }

    #[test]
    fn a_known_key_that_returns_is_admitted_at_once_and_asked_about_if_it_is_time() {
        let mut keys = confirmed(1);
        assert_eq!(keys.take_due(START + 60, 9).len(), 1);
        keys.rest(&key(1), START + 60);
        assert_eq!(keys.take_due(START + 5_000, 9), [], "it is not connected");
        assert_eq!(keys.return_of(&key(1), source(), START + 5_000), Some(PolicyName::VerifyUrl));
        assert_eq!(keys.take_due(START + 5_000, 9).len(), 1);
        keys.confirm(key(1), PolicyName::VerifyUrl, None, START + 5_000);
        assert_eq!(keys.return_of(&key(1), source(), START + 5_001), Some(PolicyName::VerifyUrl));
        assert_eq!(keys.take_due(START + 5_001, 9), [], "it has just been asked about");
        assert_eq!(keys.return_of(&key(2), source(), START + 5_001), None);
    }

    #[test]
    fn a_key_stays_due_until_its_connection_has_had_time_to_begin() {
        let mut keys = confirmed(1);
        let back = START + 5_000;
        keys.return_of(&key(1), source(), back);
        for now in back..back + ARRIVAL {
            assert_eq!(keys.take_due(now, 9).len(), 1, "{now}");
            keys.rest(&key(1), now);
        }
        assert_eq!(keys.take_due(back + ARRIVAL, 9).len(), 1);
        keys.rest(&key(1), back + ARRIVAL);
        assert_eq!(keys.take_due(back + RULES.grace / 2, 9), [], "it has not come");
        assert!(keys.contains(&key(1)));
    }

    #[test]
    fn a_key_that_rests_is_forgotten_at_the_end_of_the_grace() {
        let mut keys = confirmed(1);
        keys.take_due(START + 60, 9);
        keys.rest(&key(1), START + 60);
        assert_eq!(keys.return_of(&key(1), source(), START + RULES.grace), None);
        assert_eq!(keys.take_due(START + RULES.grace, 9).len(), 1);
        keys.rest(&key(1), START + RULES.grace);
        assert!(keys.is_empty());
    }

    #[test]
    fn what_was_written_down_is_restored_unless_it_is_too_old() {
        let mut keys = AdmittedKeys::new(RULES);
        keys.restore(key(1), PolicyName::VerifyUrl, START - 86_400, START);
        keys.restore(key(2), PolicyName::VerifyUrl, START - 86_399, START);
        keys.restore(key(3), PolicyName::VerifyUrl, START + 500, START);
        assert_eq!(keys.return_of(&key(1), source(), START), None);
        assert_eq!(keys.return_of(&key(2), source(), START), Some(PolicyName::VerifyUrl));
        assert_eq!(keys.return_of(&key(3), source(), START + 86_400), None, "confirmed at the latest now");
        assert_eq!(keys.take_due(START, 9).len(), 1, "the one that has come back");
    }

    #[test]
    fn a_key_that_no_policy_has_allowed_works_while_none_can_tell_and_is_never_known() {
        let mut keys = AdmittedKeys::new(ConfirmRules { admit_unknown: true, ..RULES });
        keys.admit_unconfirmed(key(1), PolicyName::VerifyUrl, source(), START);
        assert_eq!(keys.return_of(&key(1), source(), START + 1), None, "it is asked about again");
        assert_eq!(keys.confirmed().count(), 0, "nothing is written down");
        assert_eq!(keys.take_due(START + 60, 9).len(), 1);
        assert_eq!(keys.cannot_tell(&key(1), START + 60), Standing::Works);
        assert_eq!(keys.take_due(START + 120, 9).len(), 1);
        keys.confirm(key(1), PolicyName::VerifyUrl, None, START + 120);
        assert_eq!(keys.return_of(&key(1), source(), START + 121), Some(PolicyName::VerifyUrl));
        assert_eq!(keys.confirmed().count(), 1);
        keys.take_due(START + 180, 9);
        assert_eq!(
            keys.cannot_tell(&key(1), START + 120 + RULES.grace),
            Standing::Works,
            "as a stranger would"
        );
    }

    #[test]
    fn keys_are_bounded_and_few_are_taken_at_once() {
        let mut keys = AdmittedKeys::new(RULES);
        for seed in 1..=5 {
            keys.confirm(key(seed), PolicyName::AllowList, None, START);
        }
        let mut due = keys.take_due(START + 60, 4);
        assert_eq!(due.len(), 4);
        due.append(&mut keys.take_due(START + 60, 4));
        assert_eq!(due.len(), 5, "each is asked about again");
        due.iter().for_each(|due| keys.rest(&due.key, START + 60));
        assert_eq!(keys.len(), 3);
        keys.restore(key(6), PolicyName::AllowList, START, START);
        assert_eq!(keys.len(), 3);
        let known: Vec<_> = keys.confirmed().map(|(key, ..)| *key).collect();
        assert!(keys.remove(&known[0]) && !keys.remove(&known[0]));
        keys.restore(key(6), PolicyName::AllowList, START, START);
        assert_eq!(keys.len(), 3, "there is room again");
    }

    #[test]
    fn keys_of_a_policy_can_be_made_due() {
        let mut keys = confirmed(1);
        keys.confirm(key(2), PolicyName::AllowList, None, START);
        keys.hurry(START + 1, |_, policy| policy == PolicyName::AllowList);
        let due: Vec<_> = keys.take_due(START + 1, 9).into_iter().map(|due| due.key).collect();
        assert_eq!(due, [key(2)]);
    }
}
