//! Two hosts behind NATs, a relay and two STUN servers: what most tests are about.

use towpath_sim::{Link, Loss, Pair, Traffic};

use crate::error::LabError;
use crate::host::Host;
use crate::lab::Lab;
use crate::nat::Nat;
use crate::server::Server;
use crate::site::Site;

/// The laboratory of a [`Pair`], as the simulator builds its world.
#[derive(Debug)]
pub struct Stage {
    /// The laboratory.
    pub lab: Lab,
    /// The two hosts.
    pub hosts: [Host; 2],
    /// Their NATs.
    pub nats: [Nat; 2],
    /// The sites of the NATs.
    pub sites: [Site; 2],
    /// Where the relay of both is to run.
    pub relay: Server,
    /// Where STUN servers are to run.
    pub stuns: [Server; 2],
}

impl Stage {
    /// Builds the laboratory of a pair: its classes, its round trips, its loss on every link to and from the hosts, its seed.
    ///
    /// # Errors
    ///
    /// The system refuses it, or a NAT is not of its class.
    pub fn build(pair: &Pair) -> Result<Self, LabError> {
        let mut lab = Lab::new(pair.seed)?;
        let [at_relay, at_stun, at_other_stun] = [(); 3].map(|()| lab.add_site());
        let sites = [(); 2].map(|()| lab.add_site());
        let nats = [lab.add_nat(pair.classes[0], sites[0])?, lab.add_nat(pair.classes[1], sites[1])?];
        let hosts = [lab.add_host(&nats[0])?, lab.add_host(&nats[1])?];
        let relay = lab.add_server(at_relay)?;
        let stuns = [lab.add_server(at_stun)?, lab.add_server(at_other_stun)?];
        lab.set_round_trip(sites[0], sites[1], pair.timing.direct);
        for site in sites {
            lab.set_round_trip(site, at_relay, pair.timing.relay / 2);
            lab.set_round_trip(site, at_stun, pair.timing.stun);
            lab.set_round_trip(site, at_other_stun, pair.timing.stun);
        }
        let stage = Self { lab, hosts, nats, sites, relay, stuns };
        stage.lose(pair.loss, pair.lost);
        Ok(stage)
    }

    /// Lets every link to and from the hosts lose a share of what it carries, from now on.
    pub fn lose(&self, share: f64, lost: Traffic) {
        let loss = if share > 0.0 { Loss::Random(share) } else { Loss::Nothing };
        let change = |link: &mut Link| (link.loss, link.applies_to) = (loss, lost);
        self.lab.change_links(self.sites[0], self.sites[1], change);
        for server in self.servers() {
            for site in self.sites {
                self.lab.change_links(site, server.site(), change);
            }
        }
    }

    /// Blocks all UDP between a side and what is not behind its NAT, in both directions.
    pub fn block_udp(&self, side: usize) {
        let block = |link: &mut Link| (link.blocked, link.applies_to) = (true, Traffic::Udp);
        self.lab.change_links(self.sites[0], self.sites[1], block);
        for server in self.servers() {
            self.lab.change_links(self.sites[side], server.site(), block);
        }
    }

    const fn servers(&self) -> [&Server; 3] {
        [&self.relay, &self.stuns[0], &self.stuns[1]]
    }
}
