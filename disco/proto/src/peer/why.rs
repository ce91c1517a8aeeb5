//! Why the path to a peer is what it is.

use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

use crate::MappingClass;

/// Why the path to a peer is what it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Why {
    /// The direct path, and its smoothed round trip.
    pub direct: Option<(SocketAddr, Duration)>,
    /// Whether the direct path is suspected to be a hole, so that data goes over the relay as well.
    pub is_suspected: bool,
    /// The class of this node's NAT.
    pub mapping: MappingClass,
    /// The addresses by which STUN servers see this node.
    pub reflexive: Vec<SocketAddr>,
    /// The class of the peer's NAT, as far as the peer has said.
    pub peer_mapping: MappingClass,
    /// The addresses that were tried, each with the packets that it has not answered.
    pub tried: Vec<(SocketAddr, u32)>,
    /// Whether the peer has been heard of since this node has offered itself to it.
    pub is_answered: bool,
}

impl Why {
    /// What would make the path direct, if anything is known that would.
    #[must_use]
    pub fn remedy(&self) -> Option<&'static str> {
        if self.direct.is_some() {
            return None;
        }
        match (self.mapping, self.peer_mapping) {
            (MappingClass::Unknown, _) => {
                Some("no STUN server answers this node: let UDP out, to port 3478 as well")
            }
            (MappingClass::Dependent, MappingClass::Dependent) => Some(
                "both NATs map by destination: forward a UDP port to one of the peers, or give one of them IPv6",
            ),
            (MappingClass::Dependent, _) => Some(
                "the NAT of this node maps by destination and that of the peer lets in only addresses that it has sent to: \
                 forward a UDP port to this node",
            ),
            (_, MappingClass::Dependent) => Some(
                "the NAT of the peer maps by destination and that of this node lets in only addresses that it has sent to: \
                 forward a UDP port to the peer",
            ),
            _ if !self.is_answered => {
                Some("the peer does not answer: see that it runs, and by which relay it is reached")
            }
            _ => None,
        }
    }
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.direct {
            Some((address, rtt)) if self.is_suspected => {
                write!(
                    f,
                    "direct at {address} in {rtt:?}, without an answer of late: data goes over the relay as well"
                )?;
            }
            Some((address, rtt)) => write!(f, "direct at {address} in {rtt:?}")?,
            None => write!(f, "over the relay")?,
        }
        write!(f, "; NAT here {}, there {}", self.mapping.label(), self.peer_mapping.label())?;
        for (address, spent) in &self.tried {
            write!(f, "; {address}: {spent} packets without an answer")?;
        }
        match self.remedy() {
            Some(remedy) => write!(f, "; {remedy}"),
            None => Ok(()),
        }
    }
}
