//! NAT behaviour discovery (RFC 5780): a server with two addresses and two ports, so with four origins of answers.
//!
//! A client learns how its NAT maps by asking several of them, and how it filters by asking one to have another answer.

use std::net::SocketAddr;
use std::num::NonZeroU16;

use crate::attribute::Attribute;

/// The four origins: each of two addresses with each of two ports.
///
/// An origin has a number: bit 1 says which address, bit 0 which port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Origins([SocketAddr; 4]);

impl Origins {
    /// The origins that two socket addresses span; the first one has number 0, the second number 3.
    ///
    /// `None` unless they are of one family and differ in both address and port, as section 6 of the RFC asks for.
    pub fn spanned_by(first: SocketAddr, second: SocketAddr) -> Option<Self> {
        let differ = first.ip() != second.ip() && first.port() != second.port();
        let across = |address: SocketAddr, port: SocketAddr| SocketAddr::new(address.ip(), port.port());
        (differ && first.is_ipv4() == second.is_ipv4())
            .then(|| Self([first, across(first, second), across(second, first), second]))
    }

    /// The origins in the order of their numbers.
    pub const fn addresses(&self) -> &[SocketAddr; 4] {
        &self.0
    }
}

/// The origin that a request was sent to, of a server that has four.
#[derive(Clone, Copy, Debug)]
pub struct AskedOrigin<'a> {
    /// The server's origins.
    pub origins: &'a Origins,
    /// The number of the one that was asked, 0 to 3.
    pub number: usize,
}

impl AskedOrigin<'_> {
    /// The origin of the answer to a request with this wish.
    pub(crate) fn origin(&self, change: ChangeRequest) -> SocketAddr {
        self.origins.0[change.of(self.number) & 3]
    }

    /// The origin that shares neither address nor port with the one that was asked.
    pub(crate) fn other(&self) -> SocketAddr {
        self.origin(ChangeRequest { address: true, port: true })
    }
}

/// From which origin a client wants its answer, relative to the one that it asked (CHANGE-REQUEST, section 7.2).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ChangeRequest {
    /// From the other address.
    pub address: bool,
    /// From the other port.
    pub port: bool,
}

impl ChangeRequest {
    /// No change: the answer comes from where the request went.
    pub const NONE: Self = Self { address: false, port: false };

    /// The number of the origin that answers for the one with this number.
    pub const fn of(self, asked: usize) -> usize {
        asked ^ ((self.address as usize) << 1) ^ self.port as usize
    }

    pub(crate) fn read(attribute: Attribute<'_>) -> Option<Self> {
        let flags = u32::from_be_bytes(attribute.value.try_into().ok()?);
        Some(Self { address: flags & 0b100 != 0, port: flags & 0b010 != 0 })
    }
}

/// RESPONSE-PORT (section 7.5): two bytes, and two of padding that some implementations count and others do not.
pub(crate) fn read_port(attribute: Attribute<'_>) -> Option<NonZeroU16> {
    match *attribute.value {
        [p0, p1] | [p0, p1, _, _] => NonZeroU16::new(u16::from_be_bytes([p0, p1])),
        _ => None,
    }
}
