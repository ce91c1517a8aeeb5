//! Why the path to a peer is what it is, in the form for programs.

use std::net::{SocketAddr, SocketAddrV4};
use std::time::Duration;

use serde::Serialize;

use super::why::Why;
use crate::{PortMapping, PortProtocol};

/// What [`Why`] is serialised as. Addresses and classes are text.
#[derive(Serialize)]
pub(super) struct Report {
    direct: Option<Direct>,
    suspected: bool,
    lossy: bool,
    loss_percent: u32,
    mapping: &'static str,
    reflexive: Vec<Reflexive>,
    udp_blocked: bool,
    port_mapping: Forwarded,
    peer_mapping: &'static str,
    technique: &'static str,
    heard: bool,
    tried: Vec<Tried>,
    remedy: Option<&'static str>,
}

#[derive(Serialize)]
struct Direct {
    address: SocketAddr,
    /// Microseconds.
    rtt_us: u64,
}

#[derive(Serialize)]
struct Reflexive {
    server: SocketAddr,
    address: SocketAddr,
}

/// What has come of asking the gateway for a port.
#[derive(Serialize)]
struct Forwarded {
    state: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    protocol: Option<&'static str>,
    /// The result code of the protocol.
    #[serde(skip_serializing_if = "Option::is_none")]
    result: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    external: Option<SocketAddrV4>,
}

impl From<PortMapping> for Forwarded {
    fn from(mapping: PortMapping) -> Self {
        let (state, protocol, result, external) = match mapping {
            PortMapping::NoGateway => ("no gateway", None, None, None),
            PortMapping::Pending => ("pending", None, None, None),
            PortMapping::Silent => ("silent", None, None, None),
            PortMapping::Refused { protocol, result } => ("refused", Some(protocol), Some(result), None),
            PortMapping::Inner { protocol, external } => ("inner", Some(protocol), None, Some(external)),
            PortMapping::Granted { protocol, external } => ("granted", Some(protocol), None, Some(external)),
        };
        Self { state, protocol: protocol.map(PortProtocol::label), result, external }
    }
}

#[derive(Serialize)]
struct Tried {
    address: SocketAddr,
    /// Packets.
    unanswered: u32,
}

impl From<Why> for Report {
    fn from(why: Why) -> Self {
        let micros = |rtt: Duration| u64::try_from(rtt.as_micros()).unwrap_or(u64::MAX);
        Self {
            direct: why.direct.map(|(address, rtt)| Direct { address, rtt_us: micros(rtt) }),
            suspected: why.is_suspected,
            lossy: why.is_lossy,
            loss_percent: why.loss_percent,
            mapping: why.mapping.label(),
            reflexive: why.reflexive.iter().map(|&(server, address)| Reflexive { server, address }).collect(),
            udp_blocked: why.is_udp_blocked,
            port_mapping: why.port_mapping.into(),
            peer_mapping: why.peer_mapping.label(),
            technique: why.technique.label(),
            heard: why.is_heard,
            tried: why.tried.iter().map(|&(address, unanswered)| Tried { address, unanswered }).collect(),
            remedy: why.remedy(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{MappingClass, Technique};

    fn address(text: &str) -> SocketAddr {
        text.parse().expect("an address")
    }

    #[test]
    fn programs_read_units_in_the_names_and_the_remedy_as_a_field() {
        let relayed = Why {
            direct: None,
            is_suspected: false,
            loss_percent: 0,
            is_lossy: false,
            mapping: MappingClass::Dependent,
            port_mapping: PortMapping::NoGateway,
            technique: Technique::LocalOnly,
            reflexive: vec![
                (address("203.0.113.1:3478"), address("192.0.2.1:7")),
                (address("[2001:db8::2]:3478"), address("[2001:db8::1]:8")),
            ],
            is_udp_blocked: false,
            peer_mapping: MappingClass::Dependent,
            tried: vec![(address("198.51.100.1:41641"), 3)],
            is_heard: true,
        };
        let text = |why: &Why| serde_json::to_string(why).expect("it is data");
        let expected = concat!(
            r#"{"direct":null,"suspected":false,"lossy":false,"loss_percent":0,"mapping":"dependent","#,
            r#""reflexive":[{"server":"203.0.113.1:3478","address":"192.0.2.1:7"},"#,
            r#"{"server":"[2001:db8::2]:3478","address":"[2001:db8::1]:8"}],"#,
            r#""udp_blocked":false,"port_mapping":{"state":"no gateway"},"#,
            r#""peer_mapping":"dependent","technique":"local only","heard":true,"#,
            r#""tried":[{"address":"198.51.100.1:41641","unanswered":3}],"#,
            r#""remedy":"both NATs map by destination: forward a UDP port to one of the peers, or give one of them IPv6"}"#,
        );
        assert_eq!(text(&relayed), expected);
        let direct = Why {
            direct: Some((address("198.51.100.1:41641"), Duration::from_nanos(40_123_456))),
            is_suspected: true,
            loss_percent: 31,
            is_lossy: true,
            mapping: MappingClass::Unknown,
            port_mapping: PortMapping::Refused { protocol: PortProtocol::Pcp, result: 8 },
            technique: Technique::Reversal,
            reflexive: vec![],
            is_udp_blocked: true,
            tried: vec![],
            ..relayed
        };
        let expected = concat!(
            r#"{"direct":{"address":"198.51.100.1:41641","rtt_us":40123},"suspected":true,"#,
            r#""lossy":true,"loss_percent":31,"mapping":"unknown","reflexive":[],"udp_blocked":true,"#,
            r#""port_mapping":{"state":"refused","protocol":"PCP","result":8},"peer_mapping":"dependent","#,
            r#""technique":"reversal","heard":true,"tried":[],"remedy":null}"#,
        );
        assert_eq!(text(&direct), expected);
        let external = "203.0.113.9:7".parse().expect("an address");
        let granted = PortMapping::Granted { protocol: PortProtocol::NatPmp, external };
        let granted = text(&Why { port_mapping: granted, ..direct });
        let expected =
            r#""port_mapping":{"state":"granted","protocol":"NAT-PMP","external":"203.0.113.9:7"}"#;
        assert!(granted.contains(expected), "{granted}");
    }
}
