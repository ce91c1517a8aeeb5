//! NATs: a namespace between an uplink and a LAN.

mod recipe;

use std::net::IpAddr;
use std::sync::atomic::{AtomicU8, AtomicU16, Ordering};

use towpath_sim::Class;

use self::recipe::{Ports, rules};
use crate::addresses::{Addresses, MOST};
use crate::conntrack;
use crate::error::LabError;
use crate::namespace::Namespace;
use crate::site::Site;
use crate::tools::{has, ip, nft, set, set_ipv6};
use crate::wire::{Uplink, Wire};

/// The hardware address of a LAN's bridge. A bridge without one of its own has that of some port, and another one when that
/// port goes; hosts would send to the old one for a while.
const BRIDGE: &str = "02:00:00:00:00:01";

/// What becomes of the external ports when a NAT loses its mappings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rebinding {
    /// The NAT chooses as before, and so gives a host the same port again where it preserves ports.
    SamePorts,
    /// The NAT chooses among other ports.
    NewPorts,
}

/// A NAT, or a router without one, with an uplink at a site. Its LAN is a bridge.
#[derive(Debug)]
pub struct Nat {
    class: Class,
    site: Site,
    namespace: Namespace,
    addresses: Addresses,
    uplink: Uplink,
    wire: Wire,
    /// How many hosts were ever plugged in.
    hosts: AtomicU8,
    rebindings: AtomicU16,
}

impl Nat {
    /// Builds a NAT that no host is behind.
    pub(crate) fn build(wire: &Wire, class: Class, site: Site, number: u8) -> Result<Self, LabError> {
        let addresses = Addresses::of(class, number);
        let namespace = Namespace::new()?;
        let uplink = wire.attach(&namespace, "wan", site)?;
        forward(&namespace, class)?;
        let (outside, gateway) = (addresses.outside(), addresses.gateway());
        let (everywhere, added) = addresses.options();
        ip(
            &namespace,
            &format!(
                "address add {outside} dev wan {added}
                 route add {everywhere} dev wan
                 link add name lan address {BRIDGE} type bridge mcast_snooping 0
                 link set dev lan up
                 address add {gateway}/{} dev lan {added}\n",
                addresses.prefix_len(),
            ),
        )?;
        wire.route(outside, uplink);
        let (hosts, rebindings) = (AtomicU8::new(0), AtomicU16::new(0));
        let nat = Self { class, site, namespace, addresses, uplink, wire: wire.clone(), hosts, rebindings };
        nat.reset()?;
        Ok(nat)
    }

    /// The class.
    #[must_use]
    pub const fn class(&self) -> Class {
        self.class
    }

    /// The site of the uplink.
    #[must_use]
    pub const fn site(&self) -> Site {
        self.site
    }

    /// The address outside. Hosts behind a router without NAT, and those with IPv6, have public addresses of their own.
    #[must_use]
    pub const fn address(&self) -> IpAddr {
        self.addresses.outside()
    }

    /// The address in the LAN.
    #[must_use]
    pub const fn gateway(&self) -> IpAddr {
        self.addresses.gateway()
    }

    /// The NAT's own namespace, with the interfaces `wan` and `lan`.
    #[must_use]
    pub const fn namespace(&self) -> &Namespace {
        &self.namespace
    }

    /// Takes all mappings, and the flows that were let in, of every protocol.
    ///
    /// # Errors
    ///
    /// The kernel refuses it.
    pub fn rebind(&self, rebinding: Rebinding) -> Result<(), LabError> {
        if rebinding == Rebinding::NewPorts {
            self.rebindings.fetch_add(1, Ordering::Relaxed);
        }
        self.reset()
    }

    /// Begins anew, with the rules of the class and nothing seen.
    pub(crate) fn reset(&self) -> Result<(), LabError> {
        let ports = Ports { rebindings: self.rebindings.load(Ordering::Relaxed) };
        nft(&self.namespace, &rules(self.class, self.addresses.outside(), ports))?;
        conntrack::flush(&self.namespace)
    }

    pub(crate) const fn addresses(&self) -> Addresses {
        self.addresses
    }

    /// A number for a new host in the LAN, and its address, which is routed to the LAN if it is public.
    pub(crate) fn admit(&self) -> Result<(u8, IpAddr), LabError> {
        let number = self.hosts.fetch_add(1, Ordering::Relaxed);
        let address = self.addresses.host(number).ok_or(LabError::Full { most: MOST })?;
        if self.addresses.is_public() {
            self.wire.route(address, self.uplink);
        }
        Ok((number, address))
    }
}

/// Lets the kernel of a namespace forward packets of a class, and nothing else.
fn forward(namespace: &Namespace, class: Class) -> Result<(), LabError> {
    // Where the module is loaded, what is bridged would pass the rules for what is routed.
    let bridged = "net/bridge/bridge-nf-call-iptables";
    if has(namespace, bridged) {
        set(namespace, bridged, "0")?;
    }
    if class == Class::V6 {
        return set(namespace, "net/ipv6/conf/all/forwarding", "1");
    }
    set_ipv6(namespace, false)?;
    set(namespace, "net/ipv4/ip_forward", "1")
}
