//! The addresses under which this node can be reached: those of its interfaces, those that are configured, the one that a gateway
//! forwards, and those that STUN servers see. Two servers are asked at once from the socket that carries the data, so that after
//! one round trip it is known whether the NAT maps by destination.

use std::collections::BTreeSet;
use std::net::{SocketAddr, SocketAddrV4};
use std::time::Duration;

use towpath_stun_proto::Response;
use towpath_wire::labels;
use towpath_wire::time::Instant;

use crate::asked::Asked;
use crate::candidates::{MOST_OFFERED, is_local, is_routable, is_shared};
use crate::random::Random;

/// When the servers are asked again that have not answered, since the first request. After the last of these a round ends.
const RETRIES: [Duration; 4] = [
    Duration::from_millis(100),
    Duration::from_millis(300),
    Duration::from_millis(700),
    Duration::from_millis(1500),
];
/// Servers that are asked of each address family. Two tell whether the mapping depends on the destination.
const SERVERS: usize = 2;
/// How long what a server has seen is offered while the server is silent. Upstream's time (`endpoint_tracker.go`): servers that
/// are started anew are away for less.
const KEPT: Duration = Duration::from_secs(310);
/// Requests that may be answered.
const MOST_ASKED: usize = 32;

labels! {
    /// How the NAT of a node maps its socket (RFC 4787 section 4.1).
    pub enum MappingClass {
        /// No STUN server has answered, or one only.
        Unknown = "unknown",
        /// There is no NAT: an address of an interface is what the servers see. In an offer also: a port is forwarded.
        Open = "open",
        /// Endpoint-independent: all destinations see the same address and port.
        Independent = "independent",
        /// Address-dependent, or address- and port-dependent ("symmetric"): each destination sees another one.
        Dependent = "dependent",
    }
}

/// What an answer of a STUN server has brought.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Answered {
    /// It was no answer to a request of this node.
    Nothing,
    /// Other servers have yet to answer.
    One,
    /// The servers that were asked have answered.
    All,
}

#[derive(Clone, Copy, Debug)]
struct Mapped {
    server: SocketAddr,
    address: SocketAddr,
    at: Instant,
}

/// The addresses of this node.
#[derive(Debug, Default)]
pub(crate) struct Endpoints {
    servers: Vec<SocketAddr>,
    configured: Vec<SocketAddr>,
    interfaces: Vec<SocketAddr>,
    /// What the gateway forwards to this node.
    forwarded: Option<SocketAddrV4>,
    asked: Vec<Asked>,
    /// The round that is under way: when it began, and how often the servers were asked again.
    round: Option<(Instant, usize)>,
    mapped: Vec<Mapped>,
    rtt: Option<Duration>,
    /// Whether no server has answered the last round.
    is_blocked: bool,
}

impl Endpoints {
    pub(crate) fn new(servers: Vec<SocketAddr>, configured: Vec<SocketAddr>) -> Self {
        Self { servers, configured, ..Self::default() }
    }

    /// Takes the servers, the nearest first.
    pub(crate) fn set_servers(&mut self, servers: Vec<SocketAddr>) {
        self.servers = servers;
    }

    /// Takes the addresses of the interfaces, with the port of the socket. Those of the host or the link alone count only where
    /// there are no others. Returns whether they differ from the ones before, so that this node is in another network.
    pub(crate) fn set_interfaces(&mut self, addresses: &[SocketAddr]) -> bool {
        let mut interfaces: Vec<_> = addresses.iter().copied().filter(|own| is_routable(*own)).collect();
        if interfaces.is_empty() {
            interfaces = addresses.to_vec();
        }
        let differ = BTreeSet::from_iter(&self.interfaces) != BTreeSet::from_iter(&interfaces);
        if differ {
            self.interfaces = interfaces;
            self.forget();
        }
        differ
    }

    /// Takes what the gateway forwards. Returns whether it is something else than before.
    pub(crate) fn set_forwarded(&mut self, forwarded: Option<SocketAddrV4>) -> bool {
        std::mem::replace(&mut self.forwarded, forwarded) != forwarded
    }

    /// Whether the gateway forwards a port of an address that all of the internet reaches. One that the servers do not see is
    /// that of a gateway behind another NAT.
    pub(crate) fn is_forwarded(&self) -> bool {
        self.forwarded.is_some_and(|forwarded| {
            let ip = *forwarded.ip();
            let mut seen = self.mapped.iter().map(|mapped| mapped.address.ip()).filter(|ip| ip.is_ipv4());
            let is_seen =
                self.mapped.iter().all(|mapped| mapped.address.is_ipv6()) || seen.any(|seen| seen == ip);
            !ip.is_private() && !is_shared(ip) && is_seen
        })
    }

    /// Forgets what the servers have said, because it may be true no longer.
    pub(crate) fn forget(&mut self) {
        self.mapped.clear();
        self.asked.clear();
        (self.round, self.is_blocked) = (None, false);
    }

    /// Whether no STUN server can be reached, as where UDP is blocked.
    pub(crate) const fn is_blocked(&self) -> bool {
        self.is_blocked
    }

    /// Whether this node has an address of the family of `address`.
    pub(crate) fn has_family(&self, address: SocketAddr) -> bool {
        self.interfaces.iter().any(|own| own.is_ipv4() == address.is_ipv4())
    }

    /// The round trip to the nearest server, which stands for that to the relay beside it.
    pub(crate) const fn rtt(&self) -> Option<Duration> {
        self.rtt
    }

    /// Asks the servers, unless they have been asked and are waited for, or there are none.
    pub(crate) fn gather(&mut self, now: Instant, random: &mut Random) -> Vec<(SocketAddr, Vec<u8>)> {
        if self.round.is_some() || self.due_servers(now).is_empty() {
            return Vec::new();
        }
        self.round = Some((now, 0));
        self.ask(now, random)
    }

    /// Whether servers have been asked and are waited for.
    pub(crate) const fn are_asked(&self) -> bool {
        self.round.is_some()
    }

    fn ask(&mut self, now: Instant, random: &mut Random) -> Vec<(SocketAddr, Vec<u8>)> {
        let began = self.round.map_or(now, |(began, _)| began);
        let mut requests = Vec::new();
        for server in self.due_servers(began) {
            if self.asked.len() >= MOST_ASKED {
                self.asked.remove(0);
            }
            let asked = Asked::new(server, now, random);
            requests.push(asked.request());
            self.asked.push(asked);
        }
        requests
    }

    /// The servers that have not answered since `began`: two of each family that an interface has.
    fn due_servers(&self, began: Instant) -> Vec<SocketAddr> {
        let mut due = Vec::new();
        for is_ipv4 in [true, false] {
            let has_family = self.interfaces.iter().any(|own| own.is_ipv4() == is_ipv4);
            let of_family = self.servers.iter().filter(|server| has_family && server.is_ipv4() == is_ipv4);
            due.extend(of_family.take(SERVERS).filter(|server| {
                !self.mapped.iter().any(|mapped| mapped.server == **server && mapped.at >= began)
            }));
        }
        due
    }

    /// When the servers are to be asked again.
    pub(crate) fn due(&self) -> Option<Instant> {
        self.round.map(|(began, tries)| began + RETRIES[tries])
    }

    /// Asks the servers again that have not answered, or gives up. Returns whether the round is over.
    pub(crate) fn handle_timeout(
        &mut self,
        now: Instant,
        random: &mut Random,
    ) -> (bool, Vec<(SocketAddr, Vec<u8>)>) {
        let Some((began, tries)) = self.round.filter(|(began, tries)| *began + RETRIES[*tries] <= now) else {
            return (false, Vec::new());
        };
        if tries + 1 == RETRIES.len() {
            self.round = None;
            self.is_blocked = !self.mapped.iter().any(|mapped| mapped.at >= began);
            self.mapped.retain(|mapped| now.since(mapped.at) < KEPT);
            return (true, Vec::new());
        }
        self.round = Some((began, tries + 1));
        (false, self.ask(now, random))
    }

    /// Takes an answer of a server. One that was not asked, or to another question, says nothing.
    pub(crate) fn handle_response(&mut self, remote: SocketAddr, datagram: &[u8], now: Instant) -> Answered {
        let Ok(response) = Response::parse(datagram) else { return Answered::Nothing };
        let is_answered = |asked: &Asked| asked.is_answered_by(&response, remote);
        let Some(at) = self.asked.iter().position(is_answered) else { return Answered::Nothing };
        let asked = self.asked.remove(at);
        let rtt = now.since(asked.sent);
        self.rtt = Some(self.rtt.map_or(rtt, |before| before.min(rtt)));
        self.is_blocked = false;
        self.mapped.retain(|mapped| mapped.server != remote);
        self.mapped.push(Mapped { server: remote, address: response.mapped, at: now });
        let Some((began, _)) = self.round else { return Answered::One };
        if self.due_servers(began).is_empty() {
            self.round = None;
            return Answered::All;
        }
        Answered::One
    }

    /// The servers that have answered, each with the address that it sees.
    pub(crate) fn seen(&self) -> Vec<(SocketAddr, SocketAddr)> {
        self.mapped.iter().map(|mapped| (mapped.server, mapped.address)).collect()
    }

    /// The addresses that servers see.
    pub(crate) fn reflexive(&self) -> Vec<SocketAddr> {
        let mut seen = Vec::new();
        for mapped in &self.mapped {
            if !seen.contains(&mapped.address) {
                seen.push(mapped.address);
            }
        }
        seen
    }

    /// How the NAT maps the socket, by IPv4 if servers have answered over it.
    pub(crate) fn mapping(&self) -> MappingClass {
        let of_family = |is_ipv4: bool| {
            self.mapped.iter().filter(|mapped| mapped.server.is_ipv4() == is_ipv4).collect::<Vec<_>>()
        };
        let mut mapped = of_family(true);
        if mapped.is_empty() {
            mapped = of_family(false);
        }
        match mapped[..] {
            [] => MappingClass::Unknown,
            [first, ..] if self.interfaces.contains(&first.address) => MappingClass::Open,
            [_] => MappingClass::Unknown,
            [first, ref others @ ..] => {
                if others.iter().all(|other| other.address == first.address) {
                    MappingClass::Independent
                } else {
                    MappingClass::Dependent
                }
            }
        }
    }

    /// The class that an offer names. A node with a forwarded port is reached like one without a NAT, whatever its NAT does.
    pub(crate) fn class(&self) -> MappingClass {
        if self.is_forwarded() { MappingClass::Open } else { self.mapping() }
    }

    /// What an offer names, the most useful first: configured addresses, the one that the gateway forwards, those that servers
    /// see, those of interfaces. Local ones come last; they are of use behind the same NAT. So is a forwarded address behind
    /// another NAT.
    pub(crate) fn offered(&self) -> Vec<SocketAddr> {
        let mut offered = self.configured.clone();
        let (local, global): (Vec<_>, Vec<_>) = self.interfaces.iter().partition(|own| is_local(own.ip()));
        let forwarded = self.forwarded.map(SocketAddr::V4);
        let (open, inner) = if self.is_forwarded() { (forwarded, None) } else { (None, forwarded) };
        let mut seen = self.reflexive();
        if self.mapping() == MappingClass::Dependent {
            // Each destination sees another port of the address, so probes are for the one that is forwarded.
            seen.retain(|seen| open.is_none_or(|open| open.ip() != seen.ip()));
        }
        for address in open.into_iter().chain(seen).chain(global).chain(inner).chain(local) {
            if !offered.contains(&address) {
                offered.push(address);
            }
        }
        offered.truncate(MOST_OFFERED);
        offered
    }

    /// The addresses by which other networks see this node.
    pub(crate) fn public(&self) -> Vec<SocketAddr> {
        let mut public = self.reflexive();
        public.extend(self.interfaces.iter().filter(|own| !is_local(own.ip())));
        public
    }
}

#[cfg(test)]
mod tests {
    use towpath_stun_proto::{RESPONSE_MAX_LEN, write_response};

    use super::*;

    fn address(text: &str) -> SocketAddr {
        text.parse().expect("an address")
    }

    fn servers() -> [SocketAddr; 2] {
        ["203.0.113.1:3478", "203.0.113.2:3478"].map(address)
    }

    fn at(millis: u64) -> Instant {
        Instant::from(Duration::from_millis(millis))
    }

    fn behind(interface: &str) -> Endpoints {
        let mut endpoints = Endpoints::new(servers().to_vec(), vec![]);
        assert!(endpoints.set_interfaces(&[address(interface)]));
        assert!(!endpoints.set_interfaces(&[address(interface)]));
        endpoints
    }

    /// Answers the newest request to a server.
    fn answer(endpoints: &mut Endpoints, server: SocketAddr, seen: &str, now: Instant) -> Answered {
        let asked = endpoints.asked.iter().rev().find(|asked| asked.server == server).expect("it is asked");
        let mut response = [0; RESPONSE_MAX_LEN];
        let len = write_response(&mut response, asked.transaction, address(seen));
        endpoints.handle_response(server, &response[..len], now)
    }

    #[test]
    fn the_class_of_a_nat_is_known_after_one_round_trip() {
        let mut random = Random::new([1; 32]);
        for (interface, seen, expected) in [
            ("10.0.0.1:41641", ["192.0.2.1:7", "192.0.2.1:7"], MappingClass::Independent),
            ("10.0.0.1:41641", ["192.0.2.1:7", "192.0.2.1:8"], MappingClass::Dependent),
            ("10.0.0.1:41641", ["192.0.2.1:7", "192.0.2.9:7"], MappingClass::Dependent),
            ("192.0.2.1:41641", ["192.0.2.1:41641", "192.0.2.1:41641"], MappingClass::Open),
        ] {
            let mut endpoints = behind(interface);
            assert_eq!(endpoints.gather(at(0), &mut random).len(), 2);
            assert!(endpoints.gather(at(1), &mut random).is_empty(), "they have been asked");
            assert_eq!(answer(&mut endpoints, servers()[0], seen[0], at(50)), Answered::One);
            assert_eq!(answer(&mut endpoints, servers()[1], seen[1], at(60)), Answered::All);
            assert_eq!((endpoints.mapping(), endpoints.rtt()), (expected, Some(Duration::from_millis(50))));
            assert_eq!(endpoints.due(), None);
        }
    }

    #[test]
    fn servers_that_do_not_answer_are_asked_again_and_given_up() {
        let mut endpoints = behind("10.0.0.1:41641");
        let mut random = Random::new([1; 32]);
        endpoints.gather(at(0), &mut random);
        assert_eq!(answer(&mut endpoints, servers()[0], "192.0.2.1:7", at(20)), Answered::One);
        let mut asked = Vec::new();
        while let Some(due) = endpoints.due() {
            let (is_over, requests) = endpoints.handle_timeout(due, &mut random);
            asked.push((due.since(Instant::ZERO).as_millis(), requests.len(), is_over));
        }
        assert_eq!(asked, [(100, 1, false), (300, 1, false), (700, 1, false), (1500, 0, true)]);
        assert_eq!(endpoints.mapping(), MappingClass::Unknown, "one server tells no mapping");
        assert_eq!(endpoints.offered(), ["192.0.2.1:7", "10.0.0.1:41641"].map(address));
    }

    #[test]
    fn an_answer_counts_from_the_server_that_was_asked_and_once() {
        let mut endpoints = behind("10.0.0.1:41641");
        endpoints.gather(at(0), &mut Random::new([1; 32]));
        let asked = endpoints.asked[0];
        let mut response = [0; RESPONSE_MAX_LEN];
        let len = write_response(&mut response, asked.transaction, address("192.0.2.1:7"));
        let mut take = |from, bytes: &[u8]| endpoints.handle_response(from, bytes, at(9));
        assert_eq!(take(address("203.0.113.66:3478"), &response[..len]), Answered::Nothing);
        assert_eq!(take(asked.server, &response[..len - 1]), Answered::Nothing);
        assert_eq!(take(asked.server, &response[..len]), Answered::One);
        assert_eq!(take(asked.server, &response[..len]), Answered::Nothing);
    }

    #[test]
    fn a_forwarded_port_stands_first_and_for_the_ports_of_a_nat_that_maps_by_destination() {
        let public: SocketAddrV4 = "192.0.2.1:99".parse().expect("an address");
        for (seen, forwarded, class, offered) in [
            (["192.0.2.1:7", "192.0.2.1:8"], public, MappingClass::Open, vec!["192.0.2.1:99"]),
            (["192.0.2.1:7", "192.0.2.1:7"], public, MappingClass::Open, vec!["192.0.2.1:99", "192.0.2.1:7"]),
            (["192.0.2.9:7", "192.0.2.1:8"], public, MappingClass::Open, vec!["192.0.2.1:99", "192.0.2.9:7"]),
            // The servers see another address, so there is a NAT outside.
            (
                ["192.0.2.9:7", "192.0.2.9:7"],
                public,
                MappingClass::Independent,
                vec!["192.0.2.9:7", "192.0.2.1:99"],
            ),
            (
                ["192.0.2.9:7", "192.0.2.9:8"],
                "100.64.0.1:5".parse().expect("an address"),
                MappingClass::Dependent,
                vec!["192.0.2.9:7", "192.0.2.9:8", "100.64.0.1:5"],
            ),
        ] {
            let mut endpoints = behind("10.0.0.1:41641");
            assert!(endpoints.set_forwarded(Some(forwarded)) && !endpoints.set_forwarded(Some(forwarded)));
            let is_public = forwarded == public;
            assert_eq!(endpoints.is_forwarded(), is_public, "as long as no server has answered");
            endpoints.gather(at(0), &mut Random::new([1; 32]));
            for (server, seen) in servers().into_iter().zip(seen) {
                answer(&mut endpoints, server, seen, at(50));
            }
            assert_eq!(endpoints.class(), class, "{seen:?}");
            let mut expected: Vec<_> = offered.into_iter().map(address).collect();
            expected.push(address("10.0.0.1:41641"));
            assert_eq!(endpoints.offered(), expected, "{seen:?}");
        }
    }

    #[test]
    fn another_network_is_asked_about_anew() {
        let mut endpoints = behind("10.0.0.1:41641");
        let mut random = Random::new([1; 32]);
        endpoints.gather(at(0), &mut random);
        answer(&mut endpoints, servers()[0], "192.0.2.1:7", at(20));
        assert!(endpoints.set_interfaces(&[address("10.9.0.1:41641")]));
        assert_eq!(endpoints.gather(at(30), &mut random).len(), 2);
        assert_eq!(endpoints.offered(), [address("10.9.0.1:41641")]);
    }
}
