//! A limit for each host on connections that have not logged in, so that one host cannot use up the limit of the relay.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex};

use towpath_wire::host::Host;
use towpath_wire::sync::lock;

/// The permits that each host holds. A host without any is not in the map.
#[derive(Debug)]
pub(crate) struct Hosts {
    limit: usize,
    held: Mutex<HashMap<Host, usize>>,
}

/// A host's permit for one connection that has not logged in, given back when it is dropped.
#[derive(Debug)]
pub(crate) struct HostPermit {
    hosts: Arc<Hosts>,
    host: Host,
}

impl Hosts {
    /// Creates an empty table, in which no host holds more than `limit` permits at a time.
    pub(crate) fn new(limit: usize) -> Self {
        Self { limit, held: Mutex::default() }
    }

    /// Returns a permit for a connection from `address`, or `None` while its host holds the most permits.
    pub(crate) fn permit(self: &Arc<Self>, address: IpAddr) -> Option<HostPermit> {
        let host = Host::of(address);
        let mut hosts = lock(&self.held);
        let held = hosts.entry(host).or_default();
        if *held >= self.limit {
            return None;
        }
        *held += 1;
        Some(HostPermit { hosts: self.clone(), host })
    }
}

impl Drop for HostPermit {
    fn drop(&mut self) {
        let mut hosts = lock(&self.hosts.held);
        if let Some(held) = hosts.get_mut(&self.host) {
            *held -= 1;
            if *held == 0 {
                hosts.remove(&self.host);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_is_an_ipv4_address_or_a_64_of_ipv6() {
        let hosts = Arc::new(Hosts::new(2));
        let permit = |address: &str| hosts.permit(address.parse().expect("an address"));
        let first = permit("192.0.2.1").expect("the first");
        let _second = permit("::ffff:192.0.2.1").expect("the second");
        assert!(permit("192.0.2.1").is_none(), "a mapped address is the same host");
        let _neighbour = permit("192.0.2.2").expect("another host");
        let _v6 =
            [permit("2001:db8:0:1::1"), permit("2001:db8:0:1:ffff::9")].map(|v6| v6.expect("two of a /64"));
        assert!(permit("2001:db8:0:1:2::3").is_none(), "a /64 is one host");
        let _other = permit("2001:db8:0:2::1").expect("another /64");
        drop(first);
        let _again = permit("192.0.2.1").expect("a permit has become free");
    }

    #[test]
    fn hosts_that_hold_nothing_are_forgotten() {
        let hosts = Arc::new(Hosts::new(1));
        for last in 0..=255 {
            drop(hosts.permit(IpAddr::from([192, 0, 2, last])).expect("a permit"));
        }
        assert!(lock(&hosts.held).is_empty());
    }
}
