//! Two hosts with a NAT each, a relay and two STUN servers: the world that most tests are about.

use std::fmt;
use std::net::SocketAddr;
use std::str::FromStr;
use std::time::Duration;

use towpath_disco::datagram::Region;
use towpath_wire::key::{NodePrivate, NodePublic};

use crate::id::{HostId, NatId, Place, Site};
use crate::link::{Link, Loss, Traffic};
use crate::machine::{Idle, Machine};
use crate::nat::{Class, Early};
use crate::oracle::Verdict;
use crate::random::Random;
use crate::world::World;

/// The round trips of a pair.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timing {
    /// From host to host and back, over the relay: R.
    pub relay: Duration,
    /// From host to host and back, directly: D.
    pub direct: Duration,
    /// From a host to a STUN server and back: S.
    pub stun: Duration,
}

impl Timing {
    /// Two hosts in one country.
    pub const NEAR: Self = Self::millis(80, 40, 50);
    /// Two hosts on two continents.
    pub const FAR: Self = Self::millis(200, 120, 120);

    /// Round trips of so many milliseconds: R, D and S.
    #[must_use]
    pub const fn millis(relay: u64, direct: u64, stun: u64) -> Self {
        let millis = Duration::from_millis;
        Self { relay: millis(relay), direct: millis(direct), stun: millis(stun) }
    }
}

/// Two hosts, each behind a NAT of a class, with one relay that is home to both.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Pair {
    /// The classes of the two NATs.
    pub classes: [Class; 2],
    /// The round trips.
    pub timing: Timing,
    /// The share of packets that each link to or from a host loses, in each direction.
    pub loss: f64,
    /// Which packets these are.
    pub lost: Traffic,
    /// The seed.
    pub seed: u64,
}

/// The world of a pair.
#[derive(Debug)]
pub struct Stage<M> {
    /// The world.
    pub world: World<M>,
    /// The two hosts.
    pub hosts: [HostId; 2],
    /// Their sites.
    pub sites: [Site; 2],
    /// Their NATs.
    pub nats: [Option<NatId>; 2],
    /// The region of the relay.
    pub region: Region,
    /// The site of the relay.
    pub relay: Site,
    /// The sites of the STUN servers.
    pub stuns: [Site; 2],
}

/// What a machine of a pair is made with.
#[derive(Debug)]
pub struct Seat {
    /// 0 or 1.
    pub side: usize,
    /// The host's key.
    pub private: NodePrivate,
    /// The key of the other host.
    pub peer: NodePublic,
    /// The STUN servers, of the address family that the host has.
    pub stun: [SocketAddr; 2],
    /// The region of the relay, to which both hosts are connected.
    pub region: Region,
    /// Random numbers for the machine.
    pub random: Random,
}

impl Pair {
    /// A pair without loss.
    #[must_use]
    pub const fn new(one: Class, other: Class, timing: Timing, seed: u64) -> Self {
        Self { classes: [one, other], timing, loss: 0.0, lost: Traffic::Udp, seed }
    }

    /// Adds a loss to the links of the pair.
    #[must_use]
    pub const fn losing(self, loss: f64, lost: Traffic) -> Self {
        Self { loss, lost, ..self }
    }

    /// Builds the world. `make` is called for each of the two hosts.
    pub fn build<M: Machine>(&self, mut make: impl FnMut(Seat) -> M) -> Stage<M> {
        let mut world = World::new(self.seed);
        let [relay, stun0, stun1, here, there] = std::array::from_fn(|_| world.add_site());
        let (sites, stuns, region) = ([here, there], [stun0, stun1], Region(1));
        self.set_links(&mut world, sites, stuns, relay);
        world.add_relay(region, relay);
        let v4 = stuns.map(|site| world.add_stun(site));
        let v6 = stuns.map(|site| world.add_stun6(site));
        let privates = [0, 1].map(|side| NodePrivate::from_random(world.random(side).bytes()));
        let publics = privates.each_ref().map(NodePrivate::public);
        let mut nats = [None; 2];
        let mut hosts = [HostId(0); 2];
        for (side, private) in privates.into_iter().enumerate() {
            let class = self.classes[side];
            let root = class.root(sites[side]);
            nats[side] = class.nat().map(|nat| world.add_nat(root, nat));
            let place = nats[side].map_or(root, Place::Behind);
            let machine = make(Seat {
                side,
                private,
                peer: publics[1 - side],
                stun: if class == Class::V6 { v6 } else { v4 },
                region,
                random: world.random(2 + side as u64),
            });
            hosts[side] = world.add_host(publics[side], &[place], &[region], machine);
        }
        Stage { world, hosts, sites, nats, region, relay, stuns }
    }

    /// What the oracle says of the pair, of which the first host sends the first packet.
    #[must_use]
    pub fn verdict(&self) -> Verdict {
        let stage = self.build(|_| Idle);
        stage.world.verdict(stage.hosts[0], stage.hosts[1])
    }

    fn set_links<M: Machine>(&self, world: &mut World<M>, hosts: [Site; 2], stuns: [Site; 2], relay: Site) {
        let loss = if self.loss > 0.0 { Loss::Random(self.loss) } else { Loss::Nothing };
        let link = |delay| Link::new(delay).losing(loss, self.lost);
        world.set_links(hosts[0], hosts[1], link(self.timing.direct / 2));
        for host in hosts {
            world.set_links(host, relay, link(self.timing.relay / 4));
            for stun in stuns {
                world.set_links(host, stun, link(self.timing.stun / 2));
            }
        }
    }

    /// Whether one of the two NATs takes early packets for its own.
    #[must_use]
    pub fn is_poisonable(&self) -> bool {
        self.classes.iter().any(|class| class.nat().is_some_and(|nat| nat.early == Early::Accept))
    }
}

/// The pair in one line, from which it can be read again.
impl fmt::Display for Pair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [one, other] = self.classes;
        let Timing { relay, direct, stun } = self.timing;
        let [relay, direct, stun] = [relay, direct, stun].map(|time| time.as_millis());
        let lost = if self.lost == Traffic::Udp { "udp" } else { "all" };
        let Self { loss, seed, .. } = self;
        write!(f, "{one} {other} {relay} {direct} {stun} {loss} {lost} {seed}")
    }
}

/// A text that is not a pair as it is printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotAPair;

impl FromStr for Pair {
    type Err = NotAPair;

    fn from_str(text: &str) -> Result<Self, NotAPair> {
        fn read<T: FromStr>(word: &str) -> Result<T, NotAPair> {
            word.parse().map_err(|_| NotAPair)
        }
        let words: Vec<&str> = text.split_whitespace().collect();
        let [one, other, relay, direct, stun, loss, lost, seed] = words[..] else { return Err(NotAPair) };
        Ok(Self {
            classes: [read(one)?, read(other)?],
            timing: Timing::millis(read(relay)?, read(direct)?, read(stun)?),
            loss: read(loss)?,
            lost: match lost {
                "udp" => Traffic::Udp,
                "all" => Traffic::Everything,
                _ => return Err(NotAPair),
            },
            seed: read(seed)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_are_read_as_printed() {
        let pair =
            Pair::new(Class::Poisonable, Class::V6, Timing::FAR, u64::MAX).losing(0.05, Traffic::Everything);
        assert_eq!(pair.to_string(), "P* 6 200 120 120 0.05 all 18446744073709551615");
        assert_eq!(pair.to_string().parse(), Ok(pair));
        for broken in ["", "P P 1 2 3 0 udp", "P Q 1 2 3 0 udp 7", "P P 1 2 3 0 tcp 7", "P P 1 2 3 0 udp 7 8"]
        {
            assert_eq!(broken.parse::<Pair>(), Err(NotAPair), "{broken}");
        }
    }
}
