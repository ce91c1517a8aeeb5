//! The proxies in front of the plain listener, and the clients that they connect for.

use std::net::{IpAddr, SocketAddr};

use hyper::HeaderMap;
use hyper::header::HeaderName;
use towpath_wire::host::Prefixes;

const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// The addresses of the proxies. If there are none, every process on this machine is trusted as a proxy, and is not believed
/// about its client.
#[derive(Clone, Debug, Default)]
pub(crate) struct Proxies(Prefixes);

impl Proxies {
    pub(crate) fn new(prefixes: Prefixes) -> Self {
        Self(prefixes)
    }

    /// Whether a connection from `ip` is accepted.
    pub(crate) fn allow(&self, ip: IpAddr) -> bool {
        self.0.contains(ip) || self.0.is_empty() && ip.to_canonical().is_loopback()
    }

    /// Returns the address of the client that `peer` connects for: the last address in `X-Forwarded-For` that is not a
    /// proxy's. The client may have made up the addresses before it. Only configured proxies are believed.
    pub(crate) fn client(&self, peer: SocketAddr, headers: &HeaderMap) -> SocketAddr {
        if !self.0.contains(peer.ip()) {
            return peer;
        }
        let mut client = peer;
        for value in headers.get_all(FORWARDED_FOR).iter().rev() {
            for hop in value.to_str().unwrap_or_default().rsplit(',') {
                let Some(address) = parse(hop.trim()) else { return client };
                client = address;
                if !self.0.contains(address.ip()) {
                    return client;
                }
            }
        }
        client
    }
}

/// Parses an address as proxies write it: with or without a port, IPv6 with or without brackets. Port 0 stands for
/// none.
fn parse(text: &str) -> Option<SocketAddr> {
    let bare = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
    bare.parse().map(|ip| SocketAddr::new(ip, 0)).or_else(|_| text.parse()).ok()
}

#[cfg(test)]
mod tests {
    use hyper::header::HeaderValue;

    use super::*;

    fn proxies(prefixes: &[&str]) -> Proxies {
        let prefixes: Vec<_> = prefixes.iter().map(|prefix| prefix.parse().expect("a prefix")).collect();
        Proxies::new(prefixes.into())
    }

    fn client(prefixes: &[&str], peer: &str, lines: &[&'static str]) -> String {
        let proxies = proxies(prefixes);
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(FORWARDED_FOR, HeaderValue::from_static(line));
        }
        proxies.client(peer.parse().expect("an address"), &headers).to_string()
    }

    #[test]
    fn the_client_is_the_last_address_that_is_no_proxys() {
        let proxies = ["10.0.0.0/8", "2001:db8::/64"];
        for (lines, expected) in [
            (&["192.0.2.1"][..], "192.0.2.1:0"),
            (&["198.51.100.9, 192.0.2.1"], "192.0.2.1:0"),
            (&["192.0.2.1,10.0.0.7"], "192.0.2.1:0"),
            (&["198.51.100.9", "192.0.2.1", "10.0.0.7 , 10.0.0.8"], "192.0.2.1:0"),
            (&["192.0.2.1:4711"], "192.0.2.1:4711"),
            (&["2001:db8:1::9"], "[2001:db8:1::9]:0"),
            (&["[2001:db8:1::9]"], "[2001:db8:1::9]:0"),
            (&["[2001:db8:1::9]:7, 2001:db8::1"], "[2001:db8:1::9]:7"),
            (&["10.0.0.9"], "10.0.0.9:0"),
            (&["192.0.2.1, unknown"], "10.0.0.1:5"),
            (&["192.0.2.1, unknown, 10.0.0.9"], "10.0.0.9:0"),
            (&[""], "10.0.0.1:5"),
            (&[], "10.0.0.1:5"),
        ] {
            assert_eq!(client(&proxies, "10.0.0.1:5", lines), expected, "{lines:?}");
        }
    }

    #[test]
    fn headers_of_other_clients_are_ignored() {
        assert_eq!(client(&["10.0.0.0/8"], "192.0.2.7:5", &["198.51.100.9"]), "192.0.2.7:5");
        assert_eq!(client(&[], "127.0.0.1:5", &["198.51.100.9"]), "127.0.0.1:5");
        let proxies = proxies(&["10.0.0.0/8"]);
        assert!(proxies.allow("10.255.0.1".parse().expect("an address")));
        assert!(proxies.allow("::ffff:10.0.0.1".parse().expect("an address")));
        assert!(!proxies.allow("127.0.0.1".parse().expect("an address")));
        assert!(Proxies::default().allow("127.0.0.1".parse().expect("an address")));
        assert!(Proxies::default().allow("::ffff:127.0.0.1".parse().expect("an address")));
        assert!(!Proxies::default().allow("192.0.2.7".parse().expect("an address")));
    }
}
