//! The addresses at which a peer may be: those that it offers, that are configured, and from which it was heard.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use towpath_wire::time::Instant;

/// Candidates that are kept of a peer.
pub(crate) const MOST_KEPT: usize = 16;
/// Candidates in an offer.
pub(crate) const MOST_OFFERED: usize = 8;

/// How an address became a candidate. A later one takes the place of an earlier one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Origin {
    /// The peer offered it.
    Offered,
    /// The configuration or a control plane names it.
    Configured,
    /// A relay has seen the peer there.
    Attested,
    /// A packet of the peer came from it.
    Heard,
}

/// An address at which a peer may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Candidate {
    pub(crate) address: SocketAddr,
    pub(crate) origin: Origin,
    /// Whether the last offer of the peer names it, however else it is known.
    pub(crate) is_offered: bool,
    /// Packets that were sent to it and not answered.
    pub(crate) spent: u32,
    since: Instant,
}

/// The candidates of a peer, in the order in which they came.
#[derive(Clone, Debug, Default)]
pub(crate) struct Candidates(Vec<Candidate>);

impl Candidates {
    /// Takes an address in. Above the bound the oldest of the lowest origin makes room. Returns whether it is new.
    pub(crate) fn add(&mut self, address: SocketAddr, origin: Origin, now: Instant) -> bool {
        if let Some(known) = self.0.iter_mut().find(|known| known.address == address) {
            known.origin = known.origin.max(origin);
            known.is_offered |= origin == Origin::Offered;
            known.since = now;
            return false;
        }
        if self.0.len() >= MOST_KEPT {
            let least = self.0.iter().enumerate().min_by_key(|(_, kept)| (kept.origin, kept.since));
            let Some((at, least)) = least.filter(|(_, least)| least.origin <= origin) else { return false };
            debug_assert!(least.origin <= origin);
            self.0.remove(at);
        }
        self.0.push(Candidate {
            address,
            origin,
            is_offered: origin == Origin::Offered,
            spent: 0,
            since: now,
        });
        true
    }

    /// Replaces what the peer offered before. Addresses that it can be heard from or that are configured stay.
    /// Returns whether an address is new.
    pub(crate) fn offer(&mut self, offered: &[SocketAddr], now: Instant) -> bool {
        self.0.iter_mut().for_each(|known| known.is_offered &= offered.contains(&known.address));
        self.0.retain(|known| known.origin != Origin::Offered || known.is_offered);
        let news = offered.iter().filter(|address| self.add(**address, Origin::Offered, now));
        news.count() > 0
    }

    /// Replaces what the configuration or a control plane named before. Addresses that the peer has offered stay, and those
    /// from which it was heard. Returns whether an address is new.
    pub(crate) fn configure(&mut self, named: &[SocketAddr], now: Instant) -> bool {
        let is_over =
            |known: &Candidate| known.origin == Origin::Configured && !named.contains(&known.address);
        self.0.retain(|known| !is_over(known) || known.is_offered);
        self.0.iter_mut().filter(|known| is_over(known)).for_each(|known| known.origin = Origin::Offered);
        let news =
            named.iter().take(MOST_KEPT).filter(|address| self.add(**address, Origin::Configured, now));
        news.count() > 0
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Candidate> {
        self.0.iter()
    }

    /// Counts a packet to a candidate.
    pub(crate) fn spend(&mut self, address: SocketAddr) {
        if let Some(known) = self.0.iter_mut().find(|known| known.address == address) {
            known.spent += 1;
        }
    }

    /// Notes that a candidate has answered.
    pub(crate) fn answered(&mut self, address: SocketAddr) {
        if let Some(known) = self.0.iter_mut().find(|known| known.address == address) {
            known.spent = 0;
        }
    }

    /// Forgets the addresses from which the peer was heard, because this node has moved to another network.
    pub(crate) fn forget_heard(&mut self) {
        self.0.retain(|known| known.origin != Origin::Heard);
    }
}

/// Whether an address that a peer offers may be probed. `ours`: the addresses by which this node is seen from outside; a
/// private address is of use only to a peer behind the same NAT, and another host's otherwise.
pub(crate) fn may_be_probed(address: SocketAddr, offered: &[SocketAddr], ours: &[SocketAddr]) -> bool {
    let is_private = match address.ip() {
        IpAddr::V4(ip) => ip.is_private() || is_shared(ip),
        IpAddr::V6(ip) => ip.is_unique_local(),
    };
    let shares = || offered.iter().any(|theirs| ours.iter().any(|own| own.ip() == theirs.ip()));
    is_routable(address) && (!is_private || shares())
}

/// Whether an address is of one host, and reached beyond this host and its link.
pub(crate) fn is_routable(address: SocketAddr) -> bool {
    let ip = address.ip();
    let is_of_link = match ip {
        IpAddr::V4(ip) => ip.is_broadcast() || ip.is_link_local() || ip.octets()[0] == 0,
        IpAddr::V6(ip) => ip.is_unicast_link_local(),
    };
    address.port() != 0 && !is_of_link && !ip.is_unspecified() && !ip.is_loopback() && !ip.is_multicast()
}

/// Whether an address is of a local network.
pub(crate) const fn is_local(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(ip) => ip.is_private(),
        IpAddr::V6(ip) => ip.is_unique_local(),
    }
}

/// Addresses of carrier-grade NATs (RFC 6598).
pub(crate) const fn is_shared(ip: Ipv4Addr) -> bool {
    let [first, second, ..] = ip.octets();
    first == 100 && second & 0xc0 == 64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> SocketAddr {
        text.parse().expect("an address")
    }

    #[test]
    fn candidates_are_bounded_and_what_was_heard_stays() {
        let mut kept = Candidates::default();
        let numbered = |number: u16| SocketAddr::new("192.0.2.1".parse().expect("an address"), number);
        let has = |kept: &Candidates, number| kept.iter().any(|known| known.address == numbered(number));
        assert!(kept.add(numbered(1), Origin::Heard, Instant::ZERO));
        for number in 2..100 {
            kept.add(numbered(number), Origin::Offered, Instant::from_nanos(number.into()));
        }
        assert_eq!(kept.iter().count(), MOST_KEPT);
        assert!(has(&kept, 1) && has(&kept, 99) && !has(&kept, 50));
        kept.offer(&[numbered(99), numbered(7)], Instant::ZERO);
        assert_eq!(kept.iter().count(), 3);
        kept.forget_heard();
        assert!(!has(&kept, 1));
        let mut heard = Candidates::default();
        (1..=16).for_each(|number| _ = heard.add(numbered(number), Origin::Heard, Instant::ZERO));
        assert!(
            !heard.add(numbered(17), Origin::Offered, Instant::ZERO),
            "an offer displaces nothing better"
        );
    }

    #[test]
    fn addresses_of_other_hosts_are_not_probed() {
        let ours = [address("198.51.100.7:1")];
        let elsewhere = [address("203.0.113.1:1")];
        for refused in [
            "127.0.0.1:1",
            "0.0.0.0:1",
            "224.0.0.1:1",
            "255.255.255.255:1",
            "169.254.1.1:1",
            "0.1.2.3:1",
            "192.0.2.1:0",
            "[::1]:1",
            "[::]:1",
            "[ff02::1]:1",
            "[fe80::1]:1",
        ] {
            assert!(!may_be_probed(address(refused), &ours, &ours), "{refused}");
        }
        for private in ["10.0.0.1:1", "192.168.1.2:1", "172.16.0.1:1", "100.64.0.1:1", "[fd00::1]:1"] {
            assert!(!may_be_probed(address(private), &elsewhere, &ours), "{private}");
            assert!(may_be_probed(address(private), &ours, &ours), "{private} behind the same NAT");
        }
        for public in ["192.0.2.1:1", "[2001:db8::1]:1", "100.63.0.1:1"] {
            assert!(may_be_probed(address(public), &elsewhere, &ours), "{public}");
        }
    }
}
