//! The DERP map by which clients find this relay: one region with one node, as configured.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use towpath_wire::map::{DerpMap, DerpNode, DerpRegion, NO_ADDRESS, NO_STUN};
use towpath_wire::pin::CertificatePin;
use towpath_wire::ports;

use crate::config::Config;

/// The port on which clients look for a captive portal that answers in a relay's place.
const CAPTIVE_PORTAL_PORT: u16 = ports::HTTP;

/// The facts in the map that the configuration does not have, or that may differ from it.
#[derive(Clone, Debug)]
pub struct Advertised {
    /// The address on which TLS connections are accepted; `None` if a proxy accepts them, on port 443.
    pub listen: Option<SocketAddr>,
    /// The addresses on which STUN is answered. A map has room for one port: that of the first address.
    pub stun: Vec<SocketAddr>,
    /// The pin of a certificate that no authority vouches for.
    pub certificate_pin: Option<CertificatePin>,
    /// The public address; spares clients the DNS.
    pub ipv4: Option<Ipv4Addr>,
    /// The public address; spares clients the DNS.
    pub ipv6: Option<Ipv6Addr>,
}

impl Advertised {
    /// Returns the facts as configured, before a listener is bound.
    pub fn of(config: &Config) -> Self {
        Self {
            listen: config.listen,
            stun: config.stun.listen.clone(),
            certificate_pin: None,
            ipv4: None,
            ipv6: None,
        }
    }

    /// Returns the map of this relay alone.
    pub fn derp_map(&self, config: &Config) -> DerpMap {
        let region = &config.region;
        let (ipv4, ipv6) = self.addresses(&config.hostname);
        DerpMap::of(DerpRegion {
            region_id: region.id,
            region_code: region.code.clone(),
            region_name: region.name.clone(),
            nodes: vec![DerpNode {
                name: format!("{}a", region.id),
                region_id: region.id,
                host_name: config.hostname.clone(),
                cert_name: self.certificate_pin.map(String::from).unwrap_or_default(),
                ipv4,
                ipv6,
                stun_port: match self.stun.first().map(SocketAddr::port) {
                    None => NO_STUN,
                    Some(ports::STUN) => 0,
                    Some(port) => port.into(),
                },
                derp_port: match self.listen.map(|listen| listen.port()) {
                    None | Some(ports::HTTPS) => 0,
                    Some(port) => port,
                },
                can_port80: config
                    .http
                    .redirect_listen
                    .is_some_and(|address| address.port() == CAPTIVE_PORTAL_PORT),
                ..DerpNode::default()
            }],
            ..DerpRegion::default()
        })
    }

    /// Returns the texts for IPv4 and IPv6: a known address, "none" for a family that cannot reach this relay, or
    /// nothing, for which clients ask the DNS.
    fn addresses(&self, hostname: &str) -> (String, String) {
        // A name that is an address decides both families, and so does a listener on loopback.
        let only = hostname.parse().ok().or_else(|| {
            let ip = self.listen?.ip().to_canonical();
            ip.is_loopback().then_some(ip)
        });
        let (mut ipv4, mut ipv6) = match only {
            Some(IpAddr::V4(ip)) => (ip.to_string(), NO_ADDRESS.to_owned()),
            Some(IpAddr::V6(ip)) => (NO_ADDRESS.to_owned(), ip.to_string()),
            // A listener on IPv6 takes IPv4 as well; one on IPv4 does not take IPv6.
            None if self.listen.is_some_and(|listen| listen.is_ipv4()) => {
                (String::new(), NO_ADDRESS.to_owned())
            }
            None => (String::new(), String::new()),
        };
        if let Some(address) = self.ipv4 {
            ipv4 = address.to_string();
        }
        if let Some(address) = self.ipv6 {
            ipv6 = address.to_string();
        }
        (ipv4, ipv6)
    }
}

#[cfg(test)]
mod tests {
    use towpath_service::config::Sources;

    use super::*;

    fn node(text: &str, change: impl FnOnce(&mut Advertised)) -> DerpNode {
        let sources = Sources::new("TOWPATH").text("relay.toml", text);
        let (config, _) = Config::read(&sources, false).expect("a correct configuration");
        let mut advertised = Advertised::of(&config);
        change(&mut advertised);
        let mut map = advertised.derp_map(&config);
        let region =
            map.regions.remove(&config.region.id).flatten().expect("the map has the configured region");
        region.nodes.into_iter().next().expect("the region has one node")
    }

    #[test]
    fn defaults_are_left_out() {
        let expected = DerpNode {
            name: "900a".into(),
            region_id: 900,
            host_name: "relay.example.com".into(),
            ..DerpNode::default()
        };
        assert_eq!(node("hostname = 'relay.example.com'", |_| {}), expected);
    }

    #[test]
    fn ports_that_differ_are_told() {
        let node = node("hostname = 'a.example'\nlisten = '[::]:8443'\nstun.listen = ['[::]:3479']", |_| {});
        assert_eq!((node.derp_port, node.stun_port), (8443, 3479));
    }

    #[test]
    fn no_stun_is_told() {
        assert_eq!(node("hostname = 'a.example'\nstun.listen = []", |_| {}).stun_port, NO_STUN);
    }

    #[test]
    fn addresses_follow_from_name_and_listener() {
        let addresses = |text: &str| {
            let node = node(text, |_| {});
            (node.ipv4, node.ipv6)
        };
        let texts = |ipv4: &str, ipv6: &str| (ipv4.to_owned(), ipv6.to_owned());
        assert_eq!(addresses("hostname = '203.0.113.7'"), texts("203.0.113.7", "none"));
        assert_eq!(addresses("hostname = '2001:db8::7'"), texts("none", "2001:db8::7"));
        assert_eq!(addresses("hostname = 'localhost'\nlisten = '127.0.0.1:1'"), texts("127.0.0.1", "none"));
        assert_eq!(addresses("hostname = 'localhost'\nlisten = '[::1]:1'"), texts("none", "::1"));
        assert_eq!(addresses("hostname = 'a.example'\nlisten = '0.0.0.0:443'"), texts("", "none"));
    }

    #[test]
    fn what_is_told_explicitly_wins() {
        let node = node("hostname = 'a.example'\nlisten = '0.0.0.0:443'", |advertised| {
            advertised.ipv4 = Some(Ipv4Addr::new(203, 0, 113, 7));
            advertised.ipv6 = "2001:db8::7".parse().ok();
            advertised.certificate_pin = Some(CertificatePin::from_sha256([1; 32]));
        });
        assert_eq!((&*node.ipv4, &*node.ipv6), ("203.0.113.7", "2001:db8::7"));
        assert_eq!(node.cert_name, format!("sha256-raw:{}", "01".repeat(32)));
    }
}
