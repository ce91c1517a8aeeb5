//! The addresses of this node: which are offered and for how long, and which change of them is another network.

use std::net::SocketAddr;

use towpath_disco::datagram::{Received, Transmit};
use towpath_disco::{Event, Node};
use towpath_stun_proto::{RESPONSE_MAX_LEN, Request, write_response};
use towpath_wire::time::Instant;

use super::lab::{Lab, address, at, bare, key, targets};

const OWN: &str = "10.0.0.1:41641";

/// A node behind a NAT that shows these servers these addresses of it; the servers answer until the given time.
struct Seen {
    node: Node,
    servers: [(SocketAddr, SocketAddr, Instant); 2],
}

impl Seen {
    fn new(seen: [&str; 2], until: [Instant; 2]) -> Self {
        let servers = [0, 1].map(|number| {
            let server = address(["203.0.113.1:3478", "203.0.113.2:3478"][number]);
            (server, address(seen[number]), until[number])
        });
        let mut node = bare(&servers.map(|(server, ..)| server));
        node.handle_interfaces(at(0), &[address(OWN)]);
        node.route(at(0), &key(2), 100);
        Self { node, servers }
    }

    /// Sends data until this time, and answers the requests meanwhile.
    fn pass(&mut self, until: Instant) {
        loop {
            self.answer(self.node.poll_timeout().unwrap_or(until).min(until));
            let Some(next) = self.node.poll_timeout().filter(|next| *next <= until) else { return };
            self.node.route(next, &key(2), 100);
            self.node.handle_timeout(next);
        }
    }

    fn answer(&mut self, now: Instant) {
        let mut packet = Vec::new();
        while let Some(transmit) = self.node.poll_transmit(&mut packet) {
            let Transmit::Udp { dst, .. } = transmit else { continue };
            let Some((server, seen, until)) = self.servers.iter().find(|(server, ..)| *server == dst) else {
                continue;
            };
            if now < *until {
                let transaction = Request::parse(&packet).unwrap().transaction();
                let mut response = [0; RESPONSE_MAX_LEN];
                let len = write_response(&mut response, transaction, *seen);
                self.node.handle_packet(now, Received::Udp { remote: *server }, &response[..len]);
            }
        }
    }
}

#[test]
fn each_address_that_a_server_sees_is_offered_once_and_before_the_local_ones() {
    for (seen, offered) in [
        (["192.0.2.1:7", "192.0.2.1:7"], &["192.0.2.1:7", OWN][..]),
        (["192.0.2.1:7", "192.0.2.1:8"], &["192.0.2.1:7", "192.0.2.1:8", OWN]),
        (["192.0.2.1:7", "192.0.2.9:7"], &["192.0.2.1:7", "192.0.2.9:7", OWN]),
    ] {
        let mut node = Seen::new(seen, [at(5000); 2]);
        node.pass(at(5000));
        assert_eq!(node.node.endpoints(), offered.iter().map(|text| address(text)).collect::<Vec<_>>());
    }
}

#[test]
fn an_address_is_offered_for_five_minutes_after_its_server_has_answered() {
    let mut node = Seen::new(["192.0.2.1:7", "192.0.2.1:8"], [at(900_000), at(1000)]);
    let [first, second, own] = ["192.0.2.1:7", "192.0.2.1:8", OWN].map(address);
    node.pass(at(300_000));
    assert_eq!(node.node.endpoints(), [second, first, own]);
    node.pass(at(340_000));
    assert_eq!(node.node.endpoints(), [first, own]);
    node.pass(at(700_000));
    assert_eq!(node.node.endpoints(), [first, own]);
}

#[test]
fn the_same_addresses_in_another_order_or_besides_those_of_the_link_are_the_same_network() {
    let place = "198.51.100.2:41641";
    let mut lab = Lab::direct(&[place]);
    let own = |lab: &mut Lab, own: &[&str]| {
        let own: Vec<_> = own.iter().map(|text| address(text)).collect();
        lab.node.handle_interfaces(lab.now, &own);
        (lab.direct_to(0).is_some(), lab.events(), targets(&lab.sent()).len())
    };
    let [one, other] = ["192.0.2.1:41641", "[2001:db8::1]:41641"];
    let of_link =
        ["127.0.0.1:41641", "169.254.1.1:41641", "[::1]:41641", "[fe80::1]:41641", "[ff02::1]:41641"];
    for same in [&[one][..], &[&[one][..], &of_link].concat(), &[&of_link[..], &[one]].concat()] {
        assert_eq!(own(&mut lab, same), (true, vec![], 0), "{same:?}");
        assert_eq!(lab.node.endpoints(), [address(one)]);
    }
    assert_eq!(own(&mut lab, &[one, other]).1, [Event::Relayed { peer: key(2) }], "another address");
    lab.answer(place, 40);
    lab.stream(0, 1000);
    assert!(lab.direct_to(0).is_some());
    lab.events();
    assert_eq!(own(&mut lab, &[other, one]), (true, vec![], 0));
    assert_eq!(own(&mut lab, &[other]).1, [Event::Relayed { peer: key(2) }], "an address less");
}

/// As in a trial on one machine, or between two that are linked by a cable.
#[test]
fn addresses_of_the_host_or_the_link_are_offered_where_there_are_no_others() {
    let mut node = bare(&[]);
    for own in ["127.0.0.1:41641", "169.254.1.1:41641"] {
        node.handle_interfaces(at(0), &[address(own)]);
        assert_eq!(node.endpoints(), [address(own)]);
    }
}
