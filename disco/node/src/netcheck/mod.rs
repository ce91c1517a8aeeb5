//! What the network of this host lets through, and what its NATs do.
//!
//! | what | how it is found |
//! |---|---|
//! | UDP, IPv4, IPv6, the latency of each region | STUN servers of the relay map, three times each |
//! | mapping (RFC 4787 section 4.1) | the addresses by which different servers see one socket |
//! | filtering (section 5) | a server with two addresses answers from the other one (RFC 5780). Towpath's relays can (`stun.alternate`) |
//! | allocator | the external ports of new sockets, or of new destinations |
//! | port mapping | PCP, NAT-PMP and UPnP-IGD, as an endpoint asks for it |
//! | captive portal | the challenge of a relay's port 80, where the map says that the relay answers it |

mod captive;
mod report;
mod stun;

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use tokio::time::{Instant, sleep, timeout};
use towpath_disco::{PortMapping, RelayConfig};

pub use report::{Allocator, Dependence, NetReport, RegionReport};

use self::stun::{Asker, Seen};
use crate::builder::{BindError, Builder};
use crate::interfaces::Network;
use crate::relay_map::RelayMap;

/// New sockets, by whose external ports the allocator is known.
const SOCKETS: usize = 4;
/// How long the gateway may take to answer.
const GATEWAY: Duration = Duration::from_secs(3);

/// Looks at the network of this host with the servers of a relay map. Takes about three seconds.
///
/// # Errors
///
/// [`BindError`], if not even a socket can be made.
pub async fn netcheck(map: &RelayMap) -> Result<NetReport, BindError> {
    let relays = map.resolve().await;
    let (behaviour, port_mapping, captive_portal) =
        tokio::join!(behaviour(&relays), port_mapping(map), captive::is_there(map));
    let Behaviour { v4, v6, mapping, filtering, allocator } = behaviour;
    let regions = map.regions().iter().map(|region| RegionReport {
        region: region.region.0,
        code: region.code.clone(),
        name: region.name.clone(),
        rtt: [&v4, &v6].into_iter().filter_map(|seen| seen.rtt(&relays, region.region)).min(),
    });
    let mut regions: Vec<_> = regions.collect();
    regions.sort_by_key(|region| region.rtt.unwrap_or(Duration::MAX));
    Ok(NetReport {
        is_udp_open: v4.is_heard() || v6.is_heard(),
        ipv4: v4.address(),
        ipv6: v6.address(),
        mapping,
        filtering,
        allocator,
        regions,
        port_mapping: port_mapping?,
        captive_portal,
    })
}

/// What STUN has found.
struct Behaviour {
    v4: Answers,
    v6: Answers,
    mapping: Option<Dependence>,
    filtering: Option<Dependence>,
    allocator: Option<Allocator>,
}

/// The answers of one address family, by server.
#[derive(Debug, Default)]
struct Answers(BTreeMap<SocketAddr, Seen>);

impl Answers {
    fn is_heard(&self) -> bool {
        !self.0.is_empty()
    }

    /// The address by which the nearest server sees this host.
    fn address(&self) -> Option<SocketAddr> {
        self.0.values().min_by_key(|seen| seen.rtt).map(|seen| seen.mapped)
    }

    fn rtt(&self, relays: &[RelayConfig], region: crate::Region) -> Option<Duration> {
        let relay = relays.iter().find(|relay| relay.region == region)?;
        relay.stun.iter().filter_map(|server| self.0.get(server)).map(|seen| seen.rtt).min()
    }
}

async fn behaviour(relays: &[RelayConfig]) -> Behaviour {
    let servers = |is_v4: bool| {
        relays
            .iter()
            .flat_map(|relay| &relay.stun)
            .copied()
            .filter(move |server| server.is_ipv4() == is_v4)
            .collect::<Vec<_>>()
    };
    let (v4, v6) = tokio::join!(
        ask_all(Ipv4Addr::UNSPECIFIED.into(), servers(true)),
        ask_all(Ipv6Addr::UNSPECIFIED.into(), servers(false)),
    );
    let ((asker, v4), (_, v6)) = (v4, v6);
    let Some(asker) = asker.filter(|_| v4.is_heard()) else {
        return Behaviour { v4, v6, mapping: None, filtering: None, allocator: None };
    };
    let other = v4.0.iter().filter_map(|(server, seen)| Some((*server, seen.other?))).next();
    let mapping = mapping(&asker, &v4, other).await;
    let filtering = match other {
        Some((server, _)) => filtering(server).await,
        None => None,
    };
    let allocator = allocator(&v4, mapping).await;
    Behaviour { v4, v6, mapping, filtering, allocator }
}

/// Asks all servers of a family from one socket.
async fn ask_all(any: IpAddr, servers: Vec<SocketAddr>) -> (Option<Asker>, Answers) {
    let Ok(asker) = Asker::bind(any).await else { return (None, Answers::default()) };
    let answers = asker.ask(&servers).await;
    (Some(asker), Answers(answers))
}

/// On what the mapping of a socket depends: servers at different addresses see different endpoints, or those at different ports of one
/// address do.
async fn mapping(
    asker: &Asker,
    answers: &Answers,
    other: Option<(SocketAddr, SocketAddr)>,
) -> Option<Dependence> {
    let by_address: BTreeMap<IpAddr, SocketAddr> =
        answers.0.iter().map(|(server, seen)| (server.ip(), seen.mapped)).collect();
    let mut all: Vec<_> = by_address.values().copied().collect();
    let (mut at_other_port, mut at_other_address) = (None, None);
    if let Some((server, other)) = other {
        let [port, address] =
            [SocketAddr::new(server.ip(), other.port()), SocketAddr::new(other.ip(), server.port())];
        let seen = asker.ask(&[port, address]).await;
        at_other_port = seen.get(&port).map(|seen| (answers.0[&server].mapped, seen.mapped));
        at_other_address = seen.get(&address).map(|seen| seen.mapped);
    }
    all.extend(at_other_address);
    if all.len() < 2 {
        return None;
    }
    let is_independent = all.iter().all(|mapped| *mapped == all[0]);
    Some(match (is_independent, at_other_port) {
        (true, _) => Dependence::EndpointIndependent,
        (false, Some((one, another))) if one == another => Dependence::AddressDependent,
        (false, Some(_)) => Dependence::AddressAndPortDependent,
        (false, None) => Dependence::Dependent,
    })
}

/// From where datagrams get in to a socket that has sent to a server: the server is asked to answer from its other address and port, and
/// then from its other port.
async fn filtering(server: SocketAddr) -> Option<Dependence> {
    let [elsewhere, port] = [(true, true), (false, true)].map(|change| async move {
        // A socket of its own, which has sent to no other address.
        let asker = Asker::bind(Ipv4Addr::UNSPECIFIED.into()).await.ok()?;
        Some(asker.hears_changed(server, change).await)
    });
    let (elsewhere, port) = tokio::join!(elsewhere, port);
    Some(match (elsewhere?, port?) {
        (true, _) => Dependence::EndpointIndependent,
        (false, true) => Dependence::AddressDependent,
        (false, false) => Dependence::AddressAndPortDependent,
    })
}

/// How external ports are chosen. A NAT whose mapping does not depend on the destination is seen by new sockets, any other by the
/// mappings of one socket to the servers, in their order.
async fn allocator(answers: &Answers, mapping: Option<Dependence>) -> Option<Allocator> {
    let servers: Vec<_> = answers.0.keys().copied().collect();
    let first = *servers.first()?;
    let mut ports = Vec::new();
    if mapping.is_none_or(|mapping| mapping == Dependence::EndpointIndependent) {
        for _ in 0..SOCKETS {
            let asker = Asker::bind(Ipv4Addr::UNSPECIFIED.into()).await.ok()?;
            let seen = asker.ask(&[first]).await;
            ports.push((asker.port(), seen.get(&first)?.mapped.port()));
        }
    } else {
        let asker = Asker::bind(Ipv4Addr::UNSPECIFIED.into()).await.ok()?;
        for server in servers {
            if let Some(seen) = asker.ask(&[server]).await.get(&server) {
                ports.push((asker.port(), seen.mapped.port()));
            }
        }
    }
    Allocator::of(&ports)
}

/// What the gateway answers to an endpoint.
async fn port_mapping(map: &RelayMap) -> Result<PortMapping, BindError> {
    if Network::look(&[]).gateway(0).is_none() {
        return Ok(PortMapping::NoGateway);
    }
    let endpoint = Builder::default().relay_map(map.clone()).bind().await?;
    let state = || endpoint.shared().look(|node, _| node.port_mapping());
    let settled = async {
        while matches!(state(), PortMapping::Pending | PortMapping::NoGateway) {
            sleep(Duration::from_millis(20)).await;
        }
    };
    let begun = Instant::now();
    // After that, it is what it is.
    let _ = timeout(GATEWAY, settled).await;
    tracing::debug!(took = ?begun.elapsed(), "asked the gateway for a port");
    let found = state();
    endpoint.close().await;
    Ok(found)
}
