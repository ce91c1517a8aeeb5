//! The classes of NATs that the tests speak of.

use std::error::Error;
use std::fmt;
use std::str::FromStr;

use super::model::{Allocator, Dependence, Early, Egress, Nat};
use crate::id::{Place, Site};

/// The classes of NATs that the tests speak of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Class {
    /// No NAT.
    O,
    /// Endpoint-independent mapping and filtering: a full cone.
    F,
    /// Endpoint-independent mapping, address-dependent filtering.
    A,
    /// Endpoint-independent mapping, address- and port-dependent filtering: the usual home router.
    P,
    /// As [`Self::P`], and unsolicited datagrams are accepted: a plain Linux gateway.
    Poisonable,
    /// Address-dependent mapping to random ports, the strictest filtering.
    M,
    /// A mapping for each remote endpoint, to ports in sequence, the strictest filtering.
    S,
    /// A mapping for each remote endpoint, to random ports of a block of 512, the strictest filtering.
    B,
    /// A mapping for each remote endpoint, to random ports, the strictest filtering.
    R,
    /// UDP is blocked.
    X,
    /// Native IPv6 behind a stateful firewall.
    V6,
}

impl Class {
    /// All of them.
    pub const ALL: [Self; 11] = [
        Self::O,
        Self::F,
        Self::A,
        Self::P,
        Self::Poisonable,
        Self::M,
        Self::S,
        Self::B,
        Self::R,
        Self::X,
        Self::V6,
    ];

    /// The NAT of the class; `None` for [`Self::O`].
    #[must_use]
    pub const fn nat(self) -> Option<Nat> {
        use Allocator::{Block, Preserve, Random, Step};
        use Dependence::{AddressAndPortDependent, AddressDependent, EndpointIndependent};
        Some(match self {
            Self::O => return None,
            Self::F => Nat::new(EndpointIndependent, EndpointIndependent, Preserve),
            Self::A => Nat::new(EndpointIndependent, AddressDependent, Preserve),
            Self::P => Nat::new(EndpointIndependent, AddressAndPortDependent, Preserve),
            Self::Poisonable => {
                let nat = Nat::new(EndpointIndependent, AddressAndPortDependent, Preserve);
                Nat { early: Early::Accept, ..nat }
            }
            Self::M => Nat::new(AddressDependent, AddressAndPortDependent, Random),
            Self::S => Nat::new(AddressAndPortDependent, AddressAndPortDependent, Step(1)),
            Self::B => {
                let block = Block { start: 32_768, size: 512 };
                Nat::new(AddressAndPortDependent, AddressAndPortDependent, block)
            }
            Self::R => Nat::new(AddressAndPortDependent, AddressAndPortDependent, Random),
            Self::X => {
                let nat = Nat::new(EndpointIndependent, AddressAndPortDependent, Preserve);
                Nat { egress: Egress::Nothing, ..nat }
            }
            Self::V6 => Nat::firewall(),
        })
    }

    /// The place outside of the NAT: the internet, with the address family of the class.
    #[must_use]
    pub const fn root(self, site: Site) -> Place {
        match self {
            Self::V6 => Place::Internet6(site),
            _ => Place::Internet(site),
        }
    }

    const fn code(self) -> &'static str {
        match self {
            Self::O => "O",
            Self::F => "F",
            Self::A => "A",
            Self::P => "P",
            Self::Poisonable => "P*",
            Self::M => "M",
            Self::S => "S",
            Self::B => "B",
            Self::R => "R",
            Self::X => "X",
            Self::V6 => "6",
        }
    }
}

impl fmt::Display for Class {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.code())
    }
}

/// A text that is not the code of a class.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnknownClass;

impl fmt::Display for UnknownClass {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "not a class of NATs; there are {}", Class::ALL.map(Class::code).join(", "))
    }
}

impl Error for UnknownClass {}

impl FromStr for Class {
    type Err = UnknownClass;

    fn from_str(text: &str) -> Result<Self, UnknownClass> {
        Self::ALL.into_iter().find(|class| class.code() == text).ok_or(UnknownClass)
    }
}
