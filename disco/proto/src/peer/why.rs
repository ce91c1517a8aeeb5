//! Why the path to a peer is what it is.

use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

use serde::Serialize;

use super::report::Report;
use crate::{MappingClass, PortMapping, Technique};

/// Why the path to a peer is what it is, for a person as text and for a program by serde:
///
/// | field | shape |
/// |---|---|
/// | `direct` | `{"address": "198.51.100.1:41641", "rtt_us": 40123}`, the round trip in microseconds; or null |
/// | `suspected`, `lossy` | boolean |
/// | `loss_percent` | of the probes on the direct path, without an answer |
/// | `mapping`, `peer_mapping` | the label of a [`MappingClass`] |
/// | `port_mapping` | `{"state": "granted", "protocol": "PCP", "external": "203.0.113.9:7"}`; states are `no gateway`, `pending`, `silent`, `refused` with a `result`, `inner`, `granted` |
/// | `technique` | the label of a [`Technique`] |
/// | `reflexive` | a list of `{"server": "203.0.113.1:3478", "address": "192.0.2.1:7"}` |
/// | `udp_blocked` | boolean |
/// | `heard` | boolean |
/// | `tried` | a list of `{"address": "198.51.100.1:41641", "unanswered": 3}` |
/// | `remedy` | [`remedy`](Self::remedy), or null |
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(into = "Report")]
pub struct Why {
    /// The direct path, and its smoothed round trip.
    pub direct: Option<(SocketAddr, Duration)>,
    /// Whether the direct path is suspected to be a hole, so that data goes over the relay as well.
    pub is_suspected: bool,
    /// The smoothed share of probes on the direct path without an answer, in percent.
    pub loss_percent: u32,
    /// Whether that is so much that data goes over the relay.
    pub is_lossy: bool,
    /// The class of this node's NAT.
    pub mapping: MappingClass,
    /// What has come of asking the gateway of this node for a port.
    pub port_mapping: PortMapping,
    /// The STUN servers that have answered, each with the address by which it sees this node.
    pub reflexive: Vec<(SocketAddr, SocketAddr)>,
    /// Whether UDP is blocked: no STUN server has answered the last time that they were asked.
    pub is_udp_blocked: bool,
    /// The class of the peer's NAT, as far as the peer has said.
    pub peer_mapping: MappingClass,
    /// What is tried on a pair of these classes.
    pub technique: Technique,
    /// The addresses that were tried, each with the packets that it has not answered.
    pub tried: Vec<(SocketAddr, u32)>,
    /// Whether a packet of the peer has come, over a relay or directly.
    pub is_heard: bool,
}

impl Why {
    /// What would make the path direct, if anything is known that would.
    #[must_use]
    pub fn remedy(&self) -> Option<&'static str> {
        if self.direct.is_some() {
            return None;
        }
        match (self.mapping, self.peer_mapping) {
            (MappingClass::Unknown, _) if self.reflexive.is_empty() => {
                Some("no STUN server answers this node: let UDP out, to port 3478 as well")
            }
            _ if !self.is_heard => {
                Some("the peer does not answer: see that it runs, and by which relay it is reached")
            }
            // One of them has a port at which all of the internet reaches it, so the NATs are not to blame.
            _ if matches!(self.port_mapping, PortMapping::Granted { .. }) => None,
            (_, MappingClass::Open) => None,
            (MappingClass::Dependent, _) | (_, MappingClass::Dependent)
                if self.port_mapping.remedy().is_some() =>
            {
                self.port_mapping.remedy()
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
            Some((address, rtt)) if self.is_lossy => {
                write!(
                    f,
                    "over the relay, because of the probes to {address} {} % get no answer ({rtt:?})",
                    self.loss_percent
                )?;
            }
            Some((address, rtt)) => write!(f, "direct at {address} in {rtt:?}")?,
            None => write!(f, "over the relay")?,
        }
        write!(f, "; NAT here {}, there {}", self.mapping.label(), self.peer_mapping.label())?;
        if self.port_mapping != PortMapping::NoGateway {
            write!(f, "; {}", self.port_mapping)?;
        }
        for (server, address) in &self.reflexive {
            write!(f, "; {server} sees {address}")?;
        }
        if self.is_udp_blocked {
            write!(f, "; UDP is blocked")?;
        }
        for (address, spent) in &self.tried {
            write!(f, "; {address}: {spent} packets without an answer")?;
        }
        match self.remedy() {
            Some(remedy) => write!(f, "; {remedy}"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::MappingClass::{Dependent, Independent, Open, Unknown};
    use super::*;
    use crate::PortProtocol;

    #[test]
    fn what_would_help_follows_from_the_classes_and_from_what_was_heard() {
        let relayed = Why {
            direct: None,
            is_suspected: false,
            loss_percent: 0,
            is_lossy: false,
            mapping: Independent,
            port_mapping: PortMapping::NoGateway,
            reflexive: vec![],
            is_udp_blocked: false,
            peer_mapping: Independent,
            technique: Technique::Simultaneous,
            tried: vec![("192.0.2.1:7".parse().expect("an address"), 3)],
            is_heard: true,
        };
        let help = |mapping, peer_mapping, is_heard| {
            Why { mapping, peer_mapping, is_heard, ..relayed.clone() }.remedy().unwrap_or_default()
        };
        for (mapping, peer_mapping, is_heard, expected) in [
            (Unknown, Unknown, true, "no STUN server answers"),
            (Independent, Unknown, false, "the peer does not answer"),
            (Dependent, Dependent, false, "the peer does not answer"),
            (Dependent, Dependent, true, "both NATs map by destination"),
            (Dependent, Independent, true, "the NAT of this node maps by destination"),
            (Independent, Dependent, true, "the NAT of the peer maps by destination"),
        ] {
            let said = help(mapping, peer_mapping, is_heard);
            assert!(said.starts_with(expected), "{said}");
        }
        assert_eq!(relayed.remedy(), None);
        let (protocol, external) = (PortProtocol::Pcp, "203.0.113.9:7".parse().expect("an address"));
        let mapped = |port_mapping, mapping, peer_mapping| {
            let why = Why { port_mapping, mapping, peer_mapping, ..relayed.clone() };
            (why.remedy().unwrap_or_default(), why.to_string())
        };
        let granted = PortMapping::Granted { protocol, external };
        for (port_mapping, remedy, said) in [
            (PortMapping::Pending, "both NATs map by destination", "the gateway is asked for a port"),
            (
                PortMapping::Silent,
                "the router of this node forwards no port",
                "answers neither PCP, NAT-PMP nor UPnP",
            ),
            (
                PortMapping::Refused { protocol, result: 8 },
                "the router of this node refuses",
                "refuses by PCP with result 8, NO_RESOURCES",
            ),
            (
                PortMapping::Inner { protocol, external },
                "the router of this node is behind another NAT",
                "forwards 203.0.113.9:7 by PCP, behind another NAT;",
            ),
            (granted, "", "; the gateway forwards 203.0.113.9:7 by PCP; 192.0.2.1:7"),
        ] {
            let (help, text) = mapped(port_mapping, Dependent, Dependent);
            assert!(help.starts_with(remedy) && text.contains(said), "{help}: {text}");
            assert_eq!(help.is_empty(), remedy.is_empty());
            assert_eq!(mapped(port_mapping, Independent, Independent).0, "", "no port is missing");
        }
        assert_eq!(mapped(PortMapping::Silent, Dependent, Open).0, "", "the peer has a port");
        let text = "over the relay; NAT here independent, there independent; 192.0.2.1:7: 3 packets without an answer";
        assert_eq!(relayed.to_string(), text);
        let [server, seen] =
            ["203.0.113.1:3478", "192.0.2.9:7"].map(|text| text.parse().expect("an address"));
        let asked = Why { reflexive: vec![(server, seen)], is_udp_blocked: true, ..relayed.clone() };
        let evidence = "; 203.0.113.1:3478 sees 192.0.2.9:7; UDP is blocked; 192.0.2.1:7: 3 packets";
        assert!(asked.to_string().contains(evidence), "{asked}");
        let one = Why { mapping: Unknown, ..asked };
        assert_eq!(one.remedy(), None, "a server answers");
        let address = "192.0.2.1:7".parse().expect("an address");
        let direct = Why { direct: Some((address, Duration::from_millis(40))), mapping: Unknown, ..relayed };
        assert_eq!(direct.remedy(), None);
        let lossy = Why { is_lossy: true, loss_percent: 31, ..direct.clone() }.to_string();
        let text = "over the relay, because of the probes to 192.0.2.1:7 31 % get no answer (40ms); NAT here";
        assert!(lossy.starts_with(text), "{lossy}");
        assert!(
            direct.to_string().starts_with("direct at 192.0.2.1:7 in 40ms; NAT here unknown"),
            "{direct}"
        );
    }
}
