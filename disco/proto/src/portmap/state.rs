//! What has come of asking the gateway for a port, for the user.

use std::fmt;
use std::net::SocketAddrV4;

use towpath_wire::labels;

use super::{nat_pmp, pcp, upnp};

labels! {
    /// A protocol in which a gateway is asked for a port.
    pub enum PortProtocol {
        /// PCP (RFC 6887).
        Pcp = "PCP",
        /// NAT-PMP (RFC 6886).
        NatPmp = "NAT-PMP",
        /// UPnP-IGD (WANIPConnection).
        Upnp = "UPnP",
    }
}

/// What has come of asking the gateway to forward a port to this node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PortMapping {
    /// No gateway is known that has a private IPv4 address.
    #[default]
    NoGateway,
    /// The gateway has been asked, and answers are waited for.
    Pending,
    /// The gateway answers by none of the protocols.
    Silent,
    /// The gateway has refused.
    Refused {
        /// The protocol.
        protocol: PortProtocol,
        /// The result that the gateway has given (RFC 6887 section 7.4, RFC 6886 section 3.5), or the error code of UPnP.
        result: u16,
    },
    /// The gateway forwards a port of an address that the internet does not reach: it is behind another NAT.
    Inner {
        /// The protocol.
        protocol: PortProtocol,
        /// The address of the gateway in the network between both NATs, and the port.
        external: SocketAddrV4,
    },
    /// The gateway forwards a port, so that all of the internet can reach this node at it.
    Granted {
        /// The protocol.
        protocol: PortProtocol,
        /// The address of the gateway on the internet, and the port.
        external: SocketAddrV4,
    },
}

impl PortMapping {
    /// What would make the gateway forward a port, if it does not.
    pub(crate) const fn remedy(self) -> Option<&'static str> {
        match self {
            Self::NoGateway | Self::Pending | Self::Granted { .. } => None,
            Self::Silent => {
                Some("the router of this node forwards no port on request: enable PCP, NAT-PMP or UPnP on it")
            }
            Self::Refused { .. } => Some(
                "the router of this node refuses to forward a port: allow this host to use PCP, NAT-PMP or UPnP",
            ),
            Self::Inner { .. } => Some(
                "the router of this node is behind another NAT: forward a UDP port on that one to the router as well, \
                 or give one of the peers IPv6",
            ),
        }
    }
}

impl fmt::Display for PortMapping {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::NoGateway => f.write_str("no gateway is asked for a port"),
            Self::Pending => f.write_str("the gateway is asked for a port"),
            Self::Silent => f.write_str("the gateway answers neither PCP, NAT-PMP nor UPnP"),
            Self::Refused { protocol, result } => {
                let name = match protocol {
                    PortProtocol::Pcp => pcp::result_name(result),
                    PortProtocol::NatPmp => nat_pmp::result_name(result),
                    PortProtocol::Upnp => upnp::error_name(result),
                };
                write!(f, "the gateway refuses by {} with result {result}, {name}", protocol.label())
            }
            Self::Inner { protocol, external } => {
                let protocol = protocol.label();
                write!(f, "the gateway forwards {external} by {protocol}, behind another NAT")
            }
            Self::Granted { protocol, external } => {
                write!(f, "the gateway forwards {external} by {}", protocol.label())
            }
        }
    }
}
