//! What is attached to what, and the way of a datagram through the NATs.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use towpath_wire::time::Instant;

use crate::id::{HostId, NatId, Place, Site};
use crate::link::{Link, LinkState};
use crate::nat::{Nat, Table};
use crate::random::Random;
use crate::trace::Dropped;

/// What has an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Owner {
    /// A host, at a site.
    Host(HostId, Site),
    Nat(NatId),
    /// The gateway of a NAT, inside of it.
    Gateway(NatId),
    /// A STUN server, at a site.
    Stun(Site),
}

/// The public internet, or the network inside of a NAT.
#[derive(Debug, Default)]
struct Network {
    owners: BTreeMap<IpAddr, Owner>,
    /// The addresses that were given out.
    given: u32,
}

/// A NAT where it stands.
#[derive(Debug)]
pub(crate) struct NatNode {
    pub(crate) place: Place,
    pub(crate) table: Table,
}

/// Where a datagram is when it has left the sender's NATs.
#[derive(Debug)]
pub(crate) struct Ascent {
    /// Its source, as the receiver's outermost NAT sees it.
    pub(crate) src: SocketAddr,
    /// The hops that are left to it.
    pub(crate) ttl: u8,
    /// The network in which its destination is.
    pub(crate) network: usize,
    /// The site of its destination.
    pub(crate) site: Site,
    /// Whether it crosses the internet.
    pub(crate) crosses: bool,
}

/// The links between sites. One that was not set is as usual.
#[derive(Debug)]
pub(crate) struct Links {
    seed: u64,
    states: BTreeMap<(Site, Site), LinkState>,
}

impl Links {
    /// The link between two sites as it is unless it is set.
    fn usual(from: Site, to: Site) -> Link {
        Link::new(if from == to { Duration::from_micros(500) } else { Duration::from_millis(20) })
    }

    pub(crate) fn state(&mut self, from: Site, to: Site) -> &mut LinkState {
        let seed = self.seed;
        self.states.entry((from, to)).or_insert_with(|| {
            let tag = 1 << 40 | u64::from(from.0) << 20 | u64::from(to.0);
            LinkState::new(Self::usual(from, to), Random::stream(seed, tag))
        })
    }

    pub(crate) fn get(&self, from: Site, to: Site) -> Link {
        self.states.get(&(from, to)).map_or_else(|| Self::usual(from, to), |state| state.link)
    }

    /// The time that a packet takes to another site and back.
    pub(crate) fn round_trip(&self, one: Site, other: Site) -> Duration {
        self.get(one, other).delay + self.get(other, one).delay
    }
}

/// All but the hosts themselves.
#[derive(Debug)]
pub(crate) struct Topology {
    seed: u64,
    /// The public internet, then the inside of each NAT.
    networks: Vec<Network>,
    pub(crate) nats: Vec<NatNode>,
    pub(crate) links: Links,
    sites: usize,
}

/// The lower half of a number.
fn low(number: u32) -> u16 {
    u16::try_from(number & 0xffff).unwrap_or(0)
}

const fn inside(nat: NatId) -> usize {
    nat.index() + 1
}

impl Topology {
    pub(crate) fn new(seed: u64) -> Self {
        let links = Links { seed, states: BTreeMap::new() };
        Self { seed, networks: vec![Network::default()], nats: Vec::new(), links, sites: 0 }
    }

    pub(crate) fn add_site(&mut self) -> Site {
        self.sites += 1;
        Site::of(self.sites - 1)
    }

    pub(crate) fn site(&self, mut place: Place) -> Site {
        loop {
            match place {
                Place::Internet(site) | Place::Internet6(site) => return site,
                Place::Behind(nat) => place = self.nats[nat.index()].place,
            }
        }
    }

    /// Whether what is at a place has its way out through a NAT.
    pub(crate) fn is_behind(&self, mut place: Place, nat: NatId) -> bool {
        while let Place::Behind(next) = place {
            if next == nat {
                return true;
            }
            place = self.nats[next.index()].place;
        }
        false
    }

    fn is_v6(&self, mut place: Place) -> bool {
        loop {
            match place {
                Place::Internet(_) => return false,
                Place::Internet6(_) => return true,
                Place::Behind(nat) => place = self.nats[nat.index()].place,
            }
        }
    }

    /// The NATs of a place, the innermost first.
    pub(crate) fn chain(&self, mut place: Place) -> Vec<NatId> {
        let mut chain = Vec::new();
        while let Place::Behind(nat) = place {
            chain.push(nat);
            place = self.nats[nat.index()].place;
        }
        chain
    }

    const fn network(place: Place) -> usize {
        match place {
            Place::Internet(_) | Place::Internet6(_) => 0,
            Place::Behind(nat) => inside(nat),
        }
    }

    pub(crate) fn add_nat(&mut self, place: Place, nat: Nat) -> NatId {
        let id = NatId::of(self.nats.len());
        let count = if nat.translates { nat.addresses } else { 0 };
        let addresses = (0..count).map(|_| self.attach(place, Owner::Nat(id))).collect();
        let random = Random::stream(self.seed, 1 << 41 | u64::from(id.0));
        self.nats.push(NatNode { place, table: Table::new(nat, addresses, random) });
        self.networks.push(Network::default());
        if nat.gateway.is_some() && !self.is_v6(place) {
            let address = self.inside_address(id, 1);
            self.networks[inside(id)].owners.insert(address, Owner::Gateway(id));
        }
        id
    }

    /// The address with this number in the IPv4 network inside of a NAT.
    pub(crate) fn inside_address(&self, nat: NatId, number: u32) -> IpAddr {
        let own = Ipv4Addr::from_bits(10 << 24 | (nat.0 & 0x3fff) << 10);
        let base = self.nats[nat.index()].table.nat.inside.unwrap_or(own);
        Ipv4Addr::from_bits(base.to_bits() + number).into()
    }

    /// Gives an address at a place.
    pub(crate) fn attach(&mut self, place: Place, owner: Owner) -> IpAddr {
        // Behind firewalls that translate nothing, the address is one of the network outside, which has to know the way.
        let mut home = place;
        let mut firewalls = Vec::new();
        while let Place::Behind(nat) = home
            && !self.nats[nat.index()].table.nat.translates
        {
            home = self.nats[nat.index()].place;
            firewalls.push((home, nat));
        }
        let address = self.draw(home);
        self.networks[Self::network(place)].owners.insert(address, owner);
        for (outside, nat) in firewalls {
            self.networks[Self::network(outside)].owners.insert(address, Owner::Nat(nat));
        }
        address
    }

    /// Takes an address back.
    pub(crate) fn detach(&mut self, mut place: Place, address: IpAddr) {
        loop {
            self.networks[Self::network(place)].owners.remove(&address);
            match place {
                Place::Behind(nat) if !self.nats[nat.index()].table.nat.translates => {
                    place = self.nats[nat.index()].place;
                }
                _ => return,
            }
        }
    }

    /// The next address of a network.
    fn draw(&mut self, home: Place) -> IpAddr {
        let is_v6 = self.is_v6(home);
        let network = Self::network(home);
        let given = &mut self.networks[network].given;
        *given += 1;
        let number = *given;
        match home {
            Place::Internet6(_) => {
                Ipv6Addr::new(0x2600, 0, 0, 0, low(number >> 16), low(number), 0, 1).into()
            }
            // The last byte is never 0 or 255.
            Place::Internet(_) => {
                Ipv4Addr::from_bits(45 << 24 | (number / 254) << 8 | (1 + number % 254)).into()
            }
            Place::Behind(nat) if is_v6 => {
                Ipv6Addr::new(0xfd00, 0, low(nat.0), 0, 0, 0, low(number >> 16), low(number + 1)).into()
            }
            Place::Behind(nat) => self.inside_address(nat, number + 1),
        }
    }

    fn owner(&self, network: usize, address: IpAddr) -> Option<Owner> {
        self.networks[network].owners.get(&address).copied()
    }

    /// Takes a datagram that is sent at a place out through the NATs, to the network in which its destination is.
    pub(crate) fn ascend(
        &mut self,
        now: Instant,
        from: Place,
        src: SocketAddr,
        dst: SocketAddr,
        ttl: u8,
    ) -> Result<Ascent, (SocketAddr, Dropped)> {
        let (mut place, mut src, mut ttl) = (from, src, ttl);
        let mut passed = None;
        loop {
            let network = Self::network(place);
            if let Some(owner) = self.owner(network, dst.ip()) {
                let turns = passed.is_some_and(|nat| owner == Owner::Nat(nat));
                if let Some(nat) = passed.filter(|_| turns) {
                    let nat = self.nats[nat.index()].table.nat;
                    if nat.translates && !nat.hairpin {
                        return Err((src, Dropped::Hairpin));
                    }
                }
                let site = self.site_of(owner);
                return Ok(Ascent { src, ttl, network, site, crosses: network == 0 && !turns });
            }
            let Place::Behind(nat) = place else { return Err((src, Dropped::NoRoute)) };
            if ttl <= 1 {
                return Err((src, Dropped::Ttl));
            }
            ttl -= 1;
            let node = &mut self.nats[nat.index()];
            src = node.table.outbound(now, src, dst).map_err(|why| (src, why))?;
            place = node.place;
            passed = Some(nat);
        }
    }

    /// Takes a datagram that has arrived in a network in through the NATs. Returns what has the destination, and the
    /// destination as it is there; or the destination so far, and why it went no further.
    pub(crate) fn descend(
        &mut self,
        now: Instant,
        network: usize,
        src: SocketAddr,
        dst: SocketAddr,
        ttl: u8,
    ) -> Result<(Owner, SocketAddr), (SocketAddr, Dropped)> {
        let (mut network, mut dst, mut ttl) = (network, dst, ttl);
        loop {
            match self.owner(network, dst.ip()) {
                None => return Err((dst, Dropped::NoRoute)),
                Some(Owner::Nat(nat)) => {
                    let table = &mut self.nats[nat.index()].table;
                    dst = table.inbound(now, src, dst).map_err(|why| (dst, why))?;
                    if ttl <= 1 {
                        return Err((dst, Dropped::Ttl));
                    }
                    ttl -= 1;
                    network = inside(nat);
                }
                Some(owner) => return Ok((owner, dst)),
            }
        }
    }

    fn site_of(&self, owner: Owner) -> Site {
        match owner {
            Owner::Nat(nat) | Owner::Gateway(nat) => self.site(self.nats[nat.index()].place),
            Owner::Host(_, site) | Owner::Stun(site) => site,
        }
    }
}
