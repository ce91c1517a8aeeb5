//! Building a world.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use towpath_disco::datagram::Region;
use towpath_wire::key::NodePublic;
use towpath_wire::time::Instant;

use super::{Event, Health, Relay, World};
use crate::action::{Action, Line};
use crate::flow::{Account, Flow};
use crate::host::{Attachment, Host, Sent};
use crate::id::{FlowId, HostId, NatId, Place, Site};
use crate::link::Link;
use crate::machine::Machine;
use crate::nat::{GATEWAY_PORT, Nat};
use crate::queue::Queue;
use crate::random::Random;
use crate::topology::{Owner, Topology};
use crate::trace::Trace;

/// The port of a host's UDP socket.
const PORT: u16 = 41641;

/// The port that STUN servers are asked at. They answer at every other one too.
const STUN_PORT: u16 = 3478;

impl<M: Machine> World<M> {
    /// An empty world.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self {
            seed,
            now: Instant::ZERO,
            queue: Queue::default(),
            trace: Trace::default(),
            topology: Topology::new(seed),
            hosts: Vec::new(),
            keys: BTreeMap::new(),
            relays: Vec::new(),
            flows: Vec::new(),
            strays: 0,
            script: Vec::new(),
            spare: Vec::new(),
            fired: (Instant::ZERO, 0),
        }
    }

    /// A generator of random numbers for a purpose of the test's own. Another tag gives other numbers.
    #[must_use]
    pub fn random(&self, tag: u64) -> Random {
        Random::stream(self.seed, 1 << 42 | tag)
    }

    /// A new site. Until a link is set, 20 ms lead to each other site, and half a millisecond to itself.
    pub fn add_site(&mut self) -> Site {
        self.topology.add_site()
    }

    /// Sets the link in one direction.
    pub fn set_link(&mut self, from: Site, to: Site, link: Link) {
        self.script.push(Line::Link(from, to, link));
        self.topology.links.state(from, to).link = link;
    }

    /// Sets the links in both directions.
    pub fn set_links(&mut self, one: Site, other: Site, link: Link) {
        self.set_link(one, other, link);
        self.set_link(other, one, link);
    }

    /// A new relay.
    pub fn add_relay(&mut self, region: Region, site: Site) {
        self.script.push(Line::Relay(region, site));
        self.relays.push(Relay { region, site, health: Health::Alive, held: Vec::new() });
    }

    /// A new STUN server with an IPv4 address. Returns its address with the usual port; it answers at every port.
    pub fn add_stun(&mut self, site: Site) -> SocketAddr {
        self.script.push(Line::Stun(site));
        let address = self.topology.attach(Place::Internet(site), Owner::Stun(site));
        SocketAddr::new(address, STUN_PORT)
    }

    /// A new STUN server with an IPv6 address.
    pub fn add_stun6(&mut self, site: Site) -> SocketAddr {
        self.script.push(Line::Stun(site));
        let address = self.topology.attach(Place::Internet6(site), Owner::Stun(site));
        SocketAddr::new(address, STUN_PORT)
    }

    /// A new NAT or firewall at a place, which may be behind another one.
    pub fn add_nat(&mut self, place: Place, nat: Nat) -> NatId {
        let id = self.topology.add_nat(place, nat);
        self.script.push(Line::Nat(id, place, nat));
        id
    }

    /// A new host with an address at each of these places, of which the first leads to the relays. It starts now, and
    /// its links to the relays of `homes` are up at once.
    ///
    /// # Panics
    /// If there is a host with this key.
    pub fn add_host(&mut self, key: NodePublic, places: &[Place], homes: &[Region], machine: M) -> HostId {
        let id = HostId::of(self.hosts.len());
        self.script.push(Line::Host(id, places.to_vec(), homes.to_vec()));
        assert!(self.keys.insert(key, id).is_none(), "two hosts with one key");
        self.hosts.push(Host {
            machine,
            key,
            port: PORT,
            attachments: Vec::new(),
            homes: homes.to_vec(),
            relays: Vec::new(),
            ahead: Duration::ZERO,
            asleep: None,
            armed: None,
            sent: Sent::default(),
        });
        self.attach(id, places);
        self.queue.push(self.now, Event::Start(id));
        id
    }

    /// Gives a host an address at each of these places.
    pub(super) fn attach(&mut self, host: HostId, places: &[Place]) {
        for &place in places {
            let site = self.topology.site(place);
            let address = self.topology.attach(place, Owner::Host(host, site));
            self.hosts[host.index()].attachments.push(Attachment { place, site, address });
        }
    }

    /// Lets a NAT forward an external port to a host behind it for good, whatever the source, as after PCP or by hand.
    /// Returns the external endpoint, or `None` if the NAT has no address or the host is not directly behind it.
    pub fn forward(&mut self, nat: NatId, port: u16, host: HostId) -> Option<SocketAddr> {
        let at = self.hosts[host.index()].attachments.iter().find(|at| at.place == Place::Behind(nat))?;
        let inner = SocketAddr::new(at.address, self.hosts[host.index()].port);
        let table = &mut self.topology.nats[nat.index()].table;
        let outer = SocketAddr::new(*table.addresses.first()?, port);
        table.forward(outer, inner, None);
        self.script.push(Line::Forward(nat, port, host));
        Some(outer)
    }

    /// The external addresses of a NAT.
    #[must_use]
    pub fn nat_addresses(&self, nat: NatId) -> &[IpAddr] {
        &self.topology.nats[nat.index()].table.addresses
    }

    /// Where the gateway of a NAT is asked for forwarded ports, if the NAT has one.
    #[must_use]
    pub fn gateway(&self, nat: NatId) -> Option<SocketAddr> {
        self.topology.nats[nat.index()].table.nat.gateway?;
        Some(SocketAddr::new(self.topology.inside_address(nat, 1), GATEWAY_PORT))
    }

    /// A new flow.
    pub fn add_flow(&mut self, flow: Flow) -> FlowId {
        let id = FlowId::of(self.flows.len());
        self.script.push(Line::Flow(flow));
        if flow.count > 0 {
            self.queue.push(flow.start.max(self.now), Event::Flow(id));
        }
        self.flows.push((flow, Account::default()));
        id
    }

    /// Schedules an action for a time.
    pub fn at(&mut self, time: Instant, action: Action) {
        let time = time.max(self.now);
        self.queue.push(time, Event::Act(self.script.len()));
        self.script.push(Line::Action(time, action));
    }

    /// Carries an action out now.
    pub fn act_now(&mut self, action: Action) {
        let line = self.script.len();
        self.script.push(Line::Action(self.now, action));
        self.act(line);
    }
}
