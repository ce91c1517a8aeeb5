//! A pair behind NATs that a test builds.

use std::time::Duration;

use towpath_disco::datagram::Region;
use towpath_sim::{FlowId, HostId, Link, Nat, Place, Site, World};
use towpath_wire::key::NodePrivate;
use towpath_wire::time::Instant;

use super::driver::{Host, START, config, flow, millis};

const REGION: Region = Region(1);

/// Two hosts behind NATs that a test builds: R = 80, D = 40, S = 50 ms.
pub(crate) struct Lab {
    pub(crate) world: World<Host>,
    pub(crate) hosts: [HostId; 2],
    pub(crate) sites: [Site; 2],
}

impl Lab {
    /// `place` puts a host somewhere behind the site that it gets.
    pub(crate) fn new(seed: u64, mut place: impl FnMut(&mut World<Host>, usize, Site) -> Place) -> Self {
        let mut world = World::new(seed);
        let [here, there, relay, other] = [(); 4].map(|()| world.add_site());
        let sites = [here, there];
        world.set_links(here, there, Link::new(millis(20)));
        for site in sites {
            world.set_links(site, relay, Link::new(millis(20)));
            world.set_links(site, other, Link::new(millis(25)));
        }
        world.add_relay(REGION, relay);
        let stun = [relay, other].map(|site| world.add_stun(site));
        let mut random = world.random(9);
        let keys = [(); 2].map(|()| NodePrivate::from_random(random.bytes()));
        let hosts = [0, 1].map(|side| {
            let place = place(&mut world, side, sites[side]);
            let config = config(&keys[side], &mut random, &stun, REGION);
            let host = Host::of(config, keys[1 - side].public());
            world.add_host(keys[side].public(), &[place], &[REGION], host)
        });
        Self { world, hosts, sites }
    }

    /// Both behind NATs of their own of this kind.
    pub(crate) fn behind(seed: u64, nat: Nat) -> Self {
        Self::new(seed, |world, _, site| Place::Behind(world.add_nat(Place::Internet(site), nat)))
    }

    pub(crate) fn send(&mut self, lasts: Duration) -> FlowId {
        flow(&mut self.world, self.hosts[0], self.hosts[1], lasts)
    }

    pub(crate) fn until_direct(&mut self) -> Option<Duration> {
        let (hosts, start) = (self.hosts, Instant::from(START));
        let are_direct = |world: &World<Host>| hosts.iter().all(|host| world.machine(*host).is_direct());
        let direct = self.world.run_until_holds(start + Duration::from_secs(3), are_direct);
        direct.map(|at| at.since(start))
    }
}
