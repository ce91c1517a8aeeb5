//! The settings of the admin listener, which the relay and a host that answers STUN only have.

use std::net::{Ipv4Addr, SocketAddr};

use towpath_service::config::ConfigReader;

use super::keys;
use super::rules::{is_hostname, is_loopback};

/// The port of metrics and health.
const ADMIN_PORT: u16 = 9090;

const LOOPBACK_ALLOWED: &str =
    "a loopback address such as \"127.0.0.1:9090\" or \"[::1]:9090\", or \"\" to turn it off";

pub(super) fn read(reader: &mut ConfigReader<'_>) -> Option<SocketAddr> {
    reader
        .key(keys::ADMIN_LISTEN)
        .matching(LOOPBACK_ALLOWED, |address: &Option<SocketAddr>| address.is_none_or(is_loopback))
        .or(Some(SocketAddr::new(Ipv4Addr::LOCALHOST.into(), ADMIN_PORT)))
}

pub(super) fn hosts(reader: &mut ConfigReader<'_>) -> Vec<String> {
    const ALLOWED: &str = "a list of DNS names such as [\"metrics.example.com\"]";
    reader
        .key(keys::ADMIN_HOSTS)
        .matching(ALLOWED, |names: &Vec<String>| names.iter().all(|name| is_hostname(name)))
        .or(Vec::new())
}
