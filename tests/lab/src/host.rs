//! Hosts in the LANs of NATs.

use std::net::{IpAddr, UdpSocket};
use std::time::{Duration, Instant};

use towpath_sim::Class;

use crate::error::LabError;
use crate::namespace::Namespace;
use crate::nat::Nat;
use crate::tools::{ip, set_ipv6};

/// How long the two ends of a new link may take until packets pass. The kernel may notice that a link is up a second later.
const LINK_UP: Duration = Duration::from_secs(5);
/// How often a packet is sent until then.
const KNOCK: Duration = Duration::from_millis(5);

/// A host. It has one interface, of one address family, or none.
#[derive(Debug)]
pub struct Host {
    namespace: Namespace,
    link: Option<Link>,
    /// How often it was plugged in.
    plugged: u32,
}

/// A cable from a host to a LAN.
#[derive(Debug)]
struct Link {
    interface: String,
    address: IpAddr,
}

impl Host {
    /// Builds a host in the LAN of a NAT.
    pub(crate) fn build(nat: &Nat) -> Result<Self, LabError> {
        let namespace = Namespace::new()?;
        let mut host = Self { namespace, link: None, plugged: 0 };
        host.plug(nat)?;
        Ok(host)
    }

    /// The namespace of the host.
    #[must_use]
    pub const fn namespace(&self) -> &Namespace {
        &self.namespace
    }

    /// The address in the LAN.
    ///
    /// # Panics
    ///
    /// The host is unplugged.
    #[must_use]
    pub fn address(&self) -> IpAddr {
        self.link.as_ref().expect("the host is plugged in").address
    }

    /// Moves the host into the LAN of another NAT, as a phone that leaves a Wi-Fi: the new interface is up before the old one
    /// is taken away.
    ///
    /// # Errors
    ///
    /// The system refuses it.
    pub fn switch(&mut self, nat: &Nat) -> Result<(), LabError> {
        let old = self.link.take();
        self.plug(nat)?;
        old.map_or(Ok(()), |old| self.cut(&old))
    }

    /// Takes the host's interface away, with its address and routes.
    ///
    /// # Errors
    ///
    /// The system refuses it.
    pub fn unplug(&mut self) -> Result<(), LabError> {
        self.link.take().map_or(Ok(()), |link| self.cut(&link))
    }

    /// Gives a host that is unplugged an interface in the LAN of a NAT. Packets pass when this returns.
    ///
    /// # Errors
    ///
    /// The system refuses it.
    pub fn plug(&mut self, nat: &Nat) -> Result<(), LabError> {
        self.unplug()?;
        let (number, address) = nat.admit()?;
        set_ipv6(&self.namespace, nat.class() == Class::V6)?;
        let interface = format!("eth{}", self.plugged);
        self.plugged += 1;
        let (port, router) = (format!("h{number}"), nat.namespace());
        ip(
            router,
            &format!(
                "link add name {port} type veth peer name {interface} netns {}
                 link set dev {port} master lan
                 link set dev {port} up\n",
                self.namespace.path(),
            ),
        )?;
        let (everywhere, added) = nat.addresses().options();
        let (gateway, prefix_len) = (nat.addresses().gateway(), nat.addresses().prefix_len());
        ip(
            &self.namespace,
            &format!(
                "link set dev {interface} up
                 address add {address}/{prefix_len} dev {interface} {added}\n",
            ),
        )?;
        let default = format!("route replace {everywhere} via {gateway} dev {interface}\n");
        self.link = Some(Link { interface, address });
        // What goes by an old uplink goes there until the new one carries packets.
        self.await_link(router, gateway)?;
        ip(&self.namespace, &default)
    }

    fn cut(&self, link: &Link) -> Result<(), LabError> {
        ip(&self.namespace, &format!("link delete dev {}\n", link.interface))
    }

    /// Waits until packets pass from the host to its gateway. No mapping comes of it.
    fn await_link(&self, router: &Namespace, gateway: IpAddr) -> Result<(), LabError> {
        let refused = || LabError::of("open a socket on a link");
        let listener = router.run(|| UdpSocket::bind((gateway, 0))).map_err(refused())?;
        let sender = self.namespace.run(|| UdpSocket::bind((self.address(), 0))).map_err(refused())?;
        listener.set_read_timeout(Some(KNOCK)).map_err(refused())?;
        let to = listener.local_addr().map_err(refused())?;
        let begun = Instant::now();
        while begun.elapsed() < LINK_UP {
            // Until the link is up, sending may fail.
            _ = sender.send_to(&[], to);
            if listener.recv_from(&mut []).is_ok() {
                return Ok(());
            }
        }
        Err(LabError::Silent { from: self.address().to_string(), to: gateway.to_string() })
    }
}
