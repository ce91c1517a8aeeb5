//! Servers on the internet, without a NAT.

use std::net::IpAddr;

use crate::addresses;
use crate::error::LabError;
use crate::namespace::Namespace;
use crate::site::Site;
use crate::tools::{has_ipv6, ip};
use crate::wire::Wire;

/// A server with two addresses of each family.
#[derive(Debug)]
pub struct Server {
    namespace: Namespace,
    site: Site,
    addresses: [(IpAddr, IpAddr); 2],
}

impl Server {
    pub(crate) fn build(wire: &Wire, site: Site, number: u8) -> Result<Self, LabError> {
        let namespace = Namespace::new()?;
        let uplink = wire.attach(&namespace, "eth0", site)?;
        let addresses = addresses::server(number);
        let mut lines = String::from("route add 0.0.0.0/0 dev eth0\n");
        let is_dual = has_ipv6(&namespace);
        if is_dual {
            lines.push_str("route add ::/0 dev eth0\n");
        }
        for (v4, v6) in addresses {
            lines.push_str(&format!("address add {v4} dev eth0\n"));
            wire.route(v4, uplink);
            if is_dual {
                lines.push_str(&format!("address add {v6} dev eth0 nodad\n"));
                wire.route(v6, uplink);
            }
        }
        ip(&namespace, &lines)?;
        Ok(Self { namespace, site, addresses })
    }

    /// The namespace of the server.
    #[must_use]
    pub const fn namespace(&self) -> &Namespace {
        &self.namespace
    }

    /// The site of the server.
    #[must_use]
    pub const fn site(&self) -> Site {
        self.site
    }

    /// The first address of IPv4.
    #[must_use]
    pub const fn v4(&self) -> IpAddr {
        self.addresses[0].0
    }

    /// The first address of IPv6.
    #[must_use]
    pub const fn v6(&self) -> IpAddr {
        self.addresses[0].1
    }

    /// The two addresses of the family of `like`, to tell what depends on addresses from what depends on ports.
    #[must_use]
    pub const fn pair(&self, like: IpAddr) -> [IpAddr; 2] {
        let [(one, one6), (two, two6)] = self.addresses;
        if like.is_ipv6() { [one6, two6] } else { [one, two] }
    }
}
