//! Two hosts behind NATs, a relay and two STUN servers: what most tests are about.

use towpath_sim::{Loss, Pair};

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
        let loss = if pair.loss > 0.0 { Loss::Random(pair.loss) } else { Loss::Nothing };
        let link = |one, other, round_trip| {
            lab.set_round_trip(one, other, round_trip);
            lab.change_links(one, other, |link| (link.loss, link.applies_to) = (loss, pair.lost));
        };
        link(sites[0], sites[1], pair.timing.direct);
        for site in sites {
            link(site, at_relay, pair.timing.relay / 2);
            link(site, at_stun, pair.timing.stun);
            link(site, at_other_stun, pair.timing.stun);
        }
        Ok(Self { lab, hosts, nats, sites, relay, stuns })
    }
}
