//! The order of policies, and what their answers come to.

use super::{Answer, NotAdmitted, PolicyName};

/// The policies of a relay in the order in which they are asked. The first that allows a login admits it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PolicyOrder {
    /// Each policy once. [`PolicyName::Require`] stands for those of `require`.
    pub order: Vec<PolicyName>,
    /// The policies that must all allow a login.
    pub require: Vec<PolicyName>,
}

impl PolicyOrder {
    /// An order that admits every key.
    #[must_use]
    pub fn open() -> Self {
        Self { order: vec![PolicyName::Open], require: Vec::new() }
    }

    /// Whether every key is admitted, so that nothing needs to be kept of any.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.order.first() == Some(&PolicyName::Open)
    }

    /// Whether `policy` is asked, by itself or as one of those that must all allow.
    #[must_use]
    pub fn asks(&self, policy: PolicyName) -> bool {
        self.order.contains(&policy)
            || self.order.contains(&PolicyName::Require) && self.require.contains(&policy)
    }

    /// Whether `policy` may be unable to tell, because a backend answers for it.
    #[must_use]
    pub fn has_backend(&self, policy: PolicyName) -> bool {
        match policy {
            PolicyName::Tailscaled | PolicyName::VerifyUrl => true,
            PolicyName::Require => self
                .require
                .iter()
                .any(|&inner| matches!(inner, PolicyName::Tailscaled | PolicyName::VerifyUrl)),
            PolicyName::Open
            | PolicyName::AllowList
            | PolicyName::Tokens
            | PolicyName::Mesh
            | PolicyName::Prober => false,
        }
    }
}

impl Answer {
    /// What this answer and one of another policy come to where both must allow.
    #[must_use]
    pub const fn and(self, other: Self) -> Self {
        match (self, other) {
            (Self::Refuse, _) | (_, Self::Refuse) => Self::Refuse,
            (Self::CannotTell, _) | (_, Self::CannotTell) => Self::CannotTell,
            (Self::Allow, Self::Allow) => Self::Allow,
        }
    }
}

/// The answers of an order so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    admitted: Option<PolicyName>,
    cannot_tell: Option<PolicyName>,
}

impl Verdict {
    /// Notes the answer of the next policy. Returns whether another need be asked.
    pub fn note(&mut self, policy: PolicyName, answer: Answer) -> bool {
        match answer {
            Answer::Allow => self.admitted = self.admitted.or(Some(policy)),
            Answer::CannotTell => self.cannot_tell = self.cannot_tell.or(Some(policy)),
            Answer::Refuse => {}
        }
        self.admitted.is_none()
    }

    /// The first policy that could not tell.
    #[must_use]
    pub const fn cannot_tell(&self) -> Option<PolicyName> {
        self.cannot_tell
    }

    /// The policy that admits the login.
    ///
    /// # Errors
    ///
    /// See [`NotAdmitted`].
    pub fn decide(&self) -> Result<PolicyName, NotAdmitted> {
        match (self.admitted, self.cannot_tell) {
            (Some(policy), _) => Ok(policy),
            (None, Some(_)) => Err(NotAdmitted::CannotTell),
            (None, None) => Err(NotAdmitted::Refused),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Answer::{Allow, CannotTell, Refuse};

    #[test]
    fn the_first_policy_that_allows_admits() {
        const POLICIES: [PolicyName; 3] =
            [PolicyName::AllowList, PolicyName::Tailscaled, PolicyName::VerifyUrl];
        for (answers, expected, asked) in [
            (&[Allow, Allow][..], Ok(PolicyName::AllowList), 1),
            (&[Refuse, CannotTell, Allow], Ok(PolicyName::VerifyUrl), 3),
            (&[Refuse, Refuse], Err(NotAdmitted::Refused), 2),
            (&[Refuse, CannotTell], Err(NotAdmitted::CannotTell), 2),
            (&[CannotTell, Refuse], Err(NotAdmitted::CannotTell), 2),
            (&[], Err(NotAdmitted::Refused), 0),
        ] {
            let mut verdict = Verdict::default();
            let mut count = 0;
            for (policy, answer) in POLICIES.into_iter().zip(answers) {
                count += 1;
                if !verdict.note(policy, *answer) {
                    break;
                }
            }
            assert_eq!((verdict.decide(), count), (expected, asked), "{answers:?}");
        }
    }

    #[test]
    fn policies_that_must_all_allow_refuse_if_one_does() {
        for (one, other, both) in [
            (Allow, Allow, Allow),
            (Allow, CannotTell, CannotTell),
            (Allow, Refuse, Refuse),
            (CannotTell, CannotTell, CannotTell),
            (CannotTell, Refuse, Refuse),
            (Refuse, Refuse, Refuse),
        ] {
            assert_eq!((one.and(other), other.and(one)), (both, both), "{one:?} and {other:?}");
        }
    }

    #[test]
    fn a_group_cannot_tell_if_one_of_its_policies_has_a_backend() {
        let order = |require: &[PolicyName]| PolicyOrder {
            order: vec![PolicyName::Require],
            require: require.to_vec(),
        };
        assert!(order(&[PolicyName::Tokens, PolicyName::VerifyUrl]).has_backend(PolicyName::Require));
        assert!(!order(&[PolicyName::Tokens, PolicyName::AllowList]).has_backend(PolicyName::Require));
        assert!(order(&[PolicyName::Tokens]).asks(PolicyName::Tokens));
        assert!(!order(&[PolicyName::Tokens]).asks(PolicyName::AllowList));
        assert!(PolicyOrder::open().is_open() && !PolicyOrder::default().is_open());
    }
}
