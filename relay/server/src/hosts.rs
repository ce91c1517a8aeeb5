//! Who holds the places of those who have not logged in, so that one host cannot hold them all.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex};

use towpath_wire::host::Host;
use towpath_wire::sync::lock;

/// How many places each host holds. Those that hold none are not in it.
#[derive(Debug)]
pub(crate) struct Hosts {
    limit: usize,
    held: Mutex<HashMap<Host, usize>>,
}

/// A place that a connection holds until this is dropped.
#[derive(Debug)]
pub(crate) struct Place {
    hosts: Arc<Hosts>,
    host: Host,
}

impl Hosts {
    /// No host shall hold more than `limit` places.
    pub(crate) fn new(limit: usize) -> Self {
        Self { limit, held: Mutex::default() }
    }

    /// A place for a connection from `address`; `None` while its host holds all it may.
    pub(crate) fn place(self: &Arc<Self>, address: IpAddr) -> Option<Place> {
        let host = Host::of(address);
        let mut hosts = lock(&self.held);
        let held = hosts.entry(host).or_default();
        if *held >= self.limit {
            return None;
        }
        *held += 1;
        Some(Place { hosts: self.clone(), host })
    }
}

impl Drop for Place {
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
        let place = |address: &str| hosts.place(address.parse().expect("an address"));
        let first = place("192.0.2.1").expect("the first");
        let _second = place("::ffff:192.0.2.1").expect("the second");
        assert!(place("192.0.2.1").is_none(), "a mapped address is the same host");
        let _neighbour = place("192.0.2.2").expect("another host");
        let _v6 =
            [place("2001:db8:0:1::1"), place("2001:db8:0:1:ffff::9")].map(|v6| v6.expect("two of a /64"));
        assert!(place("2001:db8:0:1:2::3").is_none(), "a /64 is one host");
        let _other = place("2001:db8:0:2::1").expect("another /64");
        drop(first);
        let _again = place("192.0.2.1").expect("a place has become free");
    }

    #[test]
    fn hosts_that_hold_nothing_are_forgotten() {
        let hosts = Arc::new(Hosts::new(1));
        for last in 0..=255 {
            drop(hosts.place(IpAddr::from([192, 0, 2, last])).expect("a place"));
        }
        assert!(lock(&hosts.held).is_empty());
    }
}
