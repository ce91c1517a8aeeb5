//! The laboratory: what is built, and the links between.

use std::time::Duration;

use towpath_sim::{Class, Link};

use crate::addresses::MOST;
use crate::classify::{Behaviour, measure};
use crate::error::LabError;
use crate::host::Host;
use crate::nat::Nat;
use crate::server::Server;
use crate::site::Site;
use crate::wire::{Carrier, Counts, Lateness, Wire};

/// An internet of namespaces, with one wire between all that stands at a site.
///
/// NATs, hosts and servers belong to their owner. All of them vanish when they and the laboratory are dropped, and with the
/// process however it ends.
#[derive(Debug)]
pub struct Lab {
    carrier: Carrier,
    sites: u16,
    /// NATs and servers so far.
    numbers: u8,
    /// By what NATs are measured.
    observer: Server,
}

impl Lab {
    /// A laboratory with nothing in it. What links do at random follows from the seed.
    ///
    /// # Errors
    ///
    /// The system refuses a namespace or an interface.
    pub fn new(seed: u64) -> Result<Self, LabError> {
        let carrier = Carrier::start(seed)?;
        let observer = Server::build(carrier.wire(), Site(0), 1)?;
        Ok(Self { carrier, sites: 1, numbers: 1, observer })
    }

    /// Adds a site. Until it is set otherwise, links to and from it have no delay, and two routers.
    pub const fn add_site(&mut self) -> Site {
        self.sites += 1;
        Site(self.sites - 1)
    }

    /// Adds a NAT of a class, and measures that it is of its class.
    ///
    /// # Errors
    ///
    /// The system refuses it, or it is not of its class.
    pub fn add_nat(&mut self, class: Class, site: Site) -> Result<Nat, LabError> {
        let number = self.next_number()?;
        let nat = Nat::build(self.wire(), class, site, number)?;
        self.classify(&nat)?;
        Ok(nat)
    }

    /// Adds a host to the LAN of a NAT.
    ///
    /// # Errors
    ///
    /// The system refuses it.
    pub fn add_host(&self, nat: &Nat) -> Result<Host, LabError> {
        Host::build(nat)
    }

    /// Adds a server to the internet.
    ///
    /// # Errors
    ///
    /// The system refuses it.
    pub fn add_server(&mut self, site: Site) -> Result<Server, LabError> {
        let number = self.next_number()?;
        Server::build(self.wire(), site, number)
    }

    /// The link from one site to another.
    #[must_use]
    pub fn link(&self, from: Site, to: Site) -> Link {
        self.wire().link(from, to)
    }

    /// Changes the link from one site to another: delay, jitter, loss, whether it is blocked, and for which traffic. Packets
    /// that are on their way arrive as if it had not changed.
    pub fn change_link(&self, from: Site, to: Site, change: impl FnOnce(&mut Link)) {
        self.wire().change(from, to, change);
    }

    /// Changes the links between two sites in both directions.
    pub fn change_links(&self, one: Site, other: Site, change: impl Fn(&mut Link)) {
        self.change_link(one, other, &change);
        self.change_link(other, one, change);
    }

    /// Sets the round trip between two sites, half of it in each direction.
    pub fn set_round_trip(&self, one: Site, other: Site, round_trip: Duration) {
        self.change_links(one, other, |link| link.delay = round_trip / 2);
    }

    /// What became of the packets from one site to another.
    #[must_use]
    pub fn counts(&self, from: Site, to: Site) -> Counts {
        self.wire().counts(from, to)
    }

    /// Packets that the wire dropped for want of room and time, and not because of a link: none, unless the machine is too
    /// slow for what is sent.
    ///
    /// # Errors
    ///
    /// The system does not say what an interface has dropped.
    pub fn own_drops(&self) -> Result<u64, LabError> {
        self.wire().own_drops()
    }

    /// How late the wire was since the laboratory was made: on a machine that is too busy, delays are longer than asked for.
    #[must_use]
    pub fn lateness(&self) -> Lateness {
        self.wire().lateness()
    }

    /// Measures how a NAT behaves, with two hosts in its LAN that are gone when this returns. All that the NAT has mapped is
    /// forgotten.
    ///
    /// # Errors
    ///
    /// The system refuses it, or nothing gets out.
    pub fn behaviour(&self, nat: &Nat) -> Result<Behaviour, LabError> {
        let hosts = [self.add_host(nat)?, self.add_host(nat)?];
        let found = measure(hosts.each_ref(), &self.observer)?;
        nat.reset()?;
        Ok(found)
    }

    const fn wire(&self) -> &Wire {
        self.carrier.wire()
    }

    fn next_number(&mut self) -> Result<u8, LabError> {
        if self.numbers == MOST {
            return Err(LabError::Full { most: MOST });
        }
        self.numbers += 1;
        Ok(self.numbers)
    }

    /// Fails unless a NAT behaves as its class.
    fn classify(&self, nat: &Nat) -> Result<(), LabError> {
        let (class, found) = (nat.class(), self.behaviour(nat)?);
        let expected = Behaviour::of(class);
        if found == expected { Ok(()) } else { Err(LabError::Misclassified { class, expected, found }) }
    }
}
