//! Whether a NAT is of its class, found out from outside of it, by sockets in front of it and behind.
//!
//! A rule set that loads is not yet the NAT that was meant. What is expected follows from the class as the simulator has it, so
//! the NATs of both are the same in all that is compared.

mod measure;
mod sockets;

use towpath_sim::{Allocator, Class, Dependence, Early, Egress};

pub(crate) use self::measure::measure;

/// How a NAT treats UDP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Behaviour {
    /// Nothing gets out.
    Blocked,
    /// Datagrams get out.
    Passing {
        /// Whether addresses are translated.
        translates: bool,
        /// On what the external endpoint depends.
        mapping: Dependence,
        /// On what it depends which packets come in. `None` if no kind of filter behaves so.
        filtering: Option<Dependence>,
        /// How external ports follow each other.
        allocation: Allocation,
        /// What becomes of a packet to the external port of a later flow.
        early: Early,
    },
}

/// How the external ports of fresh sockets follow each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Allocation {
    /// They are those inside.
    Preserved,
    /// Each is so much above the one before.
    Step(u16),
    /// They are scattered over a block of 512 ports at most.
    Block,
    /// They are scattered further.
    Scattered,
}

impl Behaviour {
    /// How NATs of a class behave.
    #[must_use]
    pub fn of(class: Class) -> Self {
        let Some(nat) = class.nat() else {
            return Self::Passing {
                translates: false,
                mapping: Dependence::EndpointIndependent,
                filtering: Some(Dependence::EndpointIndependent),
                allocation: Allocation::Preserved,
                early: Early::Drop,
            };
        };
        if nat.egress == Egress::Nothing {
            return Self::Blocked;
        }
        let allocation = match nat.allocator {
            Allocator::Preserve => Allocation::Preserved,
            Allocator::Step(step) => Allocation::Step(step),
            Allocator::Block { .. } => Allocation::Block,
            Allocator::Random => Allocation::Scattered,
        };
        Self::Passing {
            translates: nat.translates,
            mapping: nat.mapping,
            filtering: Some(nat.filtering),
            allocation,
            early: nat.early,
        }
    }
}

impl Allocation {
    /// The widest block of ports.
    const BLOCK: u16 = 512;

    /// The allocation by which sockets on the first ports got the second ones, one after the other.
    fn of(ports: &[(u16, u16)]) -> Self {
        let external: Vec<u16> = ports.iter().map(|(_, external)| *external).collect();
        let mut steps = external.windows(2).map(|pair| pair[1].wrapping_sub(pair[0]));
        let step = steps.next().unwrap_or(0);
        let (first, last) = (external.iter().min(), external.iter().max());
        let width = last.zip(first).map_or(0, |(last, first)| last - first);
        if ports.iter().all(|(internal, external)| internal == external) {
            Self::Preserved
        } else if step > 0 && steps.all(|other| other == step) {
            Self::Step(step)
        } else if width < Self::BLOCK {
            Self::Block
        } else {
            Self::Scattered
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn allocations_are_told_apart() {
        let of = |external: [u16; 4]| {
            let ports: Vec<_> = [7001, 7002, 7003, 7004].into_iter().zip(external).collect();
            Allocation::of(&ports)
        };
        assert_eq!(of([7001, 7002, 7003, 7004]), Allocation::Preserved);
        assert_eq!(of([20_000, 20_001, 20_002, 20_003]), Allocation::Step(1));
        assert_eq!(of([20_000, 20_256, 20_512, 20_768]), Allocation::Step(256));
        assert_eq!(of([20_000, 20_256, 20_100, 20_511]), Allocation::Block);
        assert_eq!(of([20_000, 20_256, 20_100, 20_512]), Allocation::Scattered);
    }

    #[test]
    fn no_two_classes_behave_alike() {
        let others = |class: Class| {
            Class::ALL
                .into_iter()
                .filter(move |other| *other != class && Behaviour::of(*other) == Behaviour::of(class))
        };
        for class in Class::ALL {
            assert_eq!(others(class).next(), None, "{class}");
        }
    }
}
