//! What `netcheck` finds with a STUN server of this machine, without a NAT. `tests/e2e` has NATs.

use std::net::SocketAddr;

use tokio::net::UdpSocket;
use towpath::{Allocator, Dependence, Endpoint, Region, RelayMap, netcheck};
use towpath_live::map_of;
use towpath_stun::{BoundServer, Policy, RunningServer, StunSettings};
use towpath_wire::map::{DerpNode, DerpRegion};

fn server(alternates: &[SocketAddr]) -> (RunningServer, SocketAddr) {
    let listen = vec!["127.0.0.1:0".parse().expect("an address")];
    let settings = StunSettings { listen, alternates: alternates.to_vec(), policy: Policy::default() };
    let server = BoundServer::bind(&settings).expect("a port");
    let address = server.local_addrs()[0];
    (server.spawn().expect("a thread"), address)
}

fn map(servers: &[SocketAddr]) -> RelayMap {
    let regions = (1..).zip(servers).map(|(number, server)| DerpRegion {
        region_id: number,
        region_code: format!("region {number}"),
        nodes: vec![DerpNode {
            host_name: "localhost".into(),
            stun_test_ip: server.ip().to_string(),
            stun_port: server.port().into(),
            ..DerpNode::default()
        }],
        ..DerpRegion::default()
    });
    map_of(regions).expect("a map")
}

#[tokio::test]
async fn a_host_without_a_nat_is_seen_as_it_is() {
    let (_first, one) = server(&["127.0.0.2:0".parse().expect("an address")]);
    let (_second, two) = server(&[]);
    let report = netcheck(&map(&[one, two])).await.expect("sockets");
    assert!(report.is_udp_open, "{report}");
    assert_eq!(report.ipv4.map(|seen| seen.ip().to_string()).as_deref(), Some("127.0.0.1"));
    assert_eq!((report.ipv6, report.captive_portal), (None, None));
    assert_eq!(report.mapping, Some(Dependence::EndpointIndependent), "{report}");
    assert_eq!(report.filtering, Some(Dependence::EndpointIndependent), "{report}");
    assert_eq!(report.allocator, Some(Allocator::Preserving), "{report}");
    assert!(report.regions.iter().all(|region| region.rtt.is_some()), "{report}");
    let regions: Vec<_> = report.regions.iter().map(|region| Region(region.region)).collect();
    assert!(regions.contains(&Region(1)) && regions.contains(&Region(2)));
    let json = serde_json::to_value(&report).expect("JSON");
    assert_eq!(json["mapping"], "endpoint-independent");
    assert_eq!(json["allocator"], "preserving");
}

#[tokio::test]
async fn a_server_that_does_not_answer_leaves_udp_blocked_and_the_rest_unknown() {
    // It is bound, and nothing reads it.
    let silent = std::net::UdpSocket::bind("127.0.0.1:0").expect("a port");
    let report = netcheck(&map(&[silent.local_addr().expect("an address")])).await.expect("sockets");
    assert!(!report.is_udp_open);
    assert_eq!((report.mapping, report.filtering, report.allocator), (None, None, None));
    assert!(report.to_string().contains("UDP             is blocked"), "{report}");
    assert!(report.regions[0].rtt.is_none());
}

#[tokio::test]
async fn the_first_requests_of_an_endpoint_are_sent() {
    let server = UdpSocket::bind("127.0.0.1:0").await.expect("a port");
    let map = map(&[server.local_addr().expect("an address")]);
    let own = "127.0.0.1:0".parse().expect("an address");
    let endpoint = Endpoint::builder().relay_map(map).bind_address(own).port_mapping(false);
    let endpoint = endpoint.bind().await.expect("an endpoint");
    server.recv_from(&mut [0; 100]).await.expect("a request");
    assert_eq!(endpoint.stats().disco_lost, 0);
}
