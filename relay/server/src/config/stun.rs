//! The settings of STUN, and the whole configuration of a host that runs only STUN.

use std::net::{Ipv4Addr, SocketAddr};
use std::num::NonZeroU32;

use towpath_service::config::{Choice, ConfigReader, Problems, Resolved, Sources};
use towpath_stun::{ClientFilter, Policy, StunSettings};
use towpath_wire::ports;

use super::admin::AdminSettings;
use super::log::Log;
use super::rules::{DEV_ALLOWED, is_loopback};
use super::variables::CONFIG_VARIABLE;
use super::{families, keys};

/// The largest limit on answers a second for a source. A server sends fewer to all sources together.
const RATE_MAX: u32 = 1_000_000;

/// The configuration of `--stun-only`: STUN without a relay, for a host that has addresses to spare and no key.
#[derive(Clone, Debug)]
pub struct StunOnly {
    /// The addresses to listen on, at least one, and the clients to answer.
    pub stun: StunSettings,
    /// The ways in for an operator.
    pub admin: AdminSettings,
    /// What is logged and how.
    pub log: Log,
}

impl StunOnly {
    /// Reads the whole configuration. A setting of the relay is an unknown key.
    ///
    /// # Errors
    ///
    /// Every problem of the configuration, all at once.
    pub fn read(sources: &Sources) -> Result<(Self, Resolved), Problems> {
        let mut reader = ConfigReader::new(sources);
        reader.accept_variable(CONFIG_VARIABLE);
        let config = Self {
            stun: read(&mut reader, false),
            admin: AdminSettings::read(&mut reader, false),
            log: Log::read(&mut reader),
        };
        if config.stun.listen.is_empty() {
            reader.conflict(keys::STUN_LISTEN, "is empty, and with --stun-only there is nothing else to do");
        }
        Ok((config, reader.finish()?))
    }
}

/// Reads the settings of STUN. `dev` confines them to loopback.
pub(super) fn read(reader: &mut ConfigReader<'_>, dev: bool) -> StunSettings {
    let listen = listen(reader, dev);
    let alternates = alternates(reader, dev, &listen);
    let (rate, discovery_rate) = (Policy::DEFAULT_RATE, Policy::DEFAULT_DISCOVERY_RATE);
    let Answered(clients) = reader.key(keys::STUN_CLIENTS).or(Answered(ClientFilter::All));
    let rate = NonZeroU32::new(reader.key(keys::STUN_RATE).within(0..=RATE_MAX).or(rate.get()));
    let discovery = reader.key(keys::STUN_DISCOVERY_RATE).within(1..=RATE_MAX).or(discovery_rate.get());
    let discovery_rate = NonZeroU32::new(discovery).unwrap_or(discovery_rate);
    StunSettings { listen, alternates, policy: Policy { clients, rate, discovery_rate } }
}

fn listen(reader: &mut ConfigReader<'_>, dev: bool) -> Vec<SocketAddr> {
    if dev {
        let are_loopback = |list: &Vec<SocketAddr>| list.iter().copied().all(is_loopback);
        let default = vec![SocketAddr::new(Ipv4Addr::LOCALHOST.into(), ports::STUN)];
        reader.key(keys::STUN_LISTEN).matching(DEV_ALLOWED, are_loopback).or(default)
    } else {
        let default = vec![families::any(reader, keys::STUN_LISTEN, ports::STUN)];
        reader.key(keys::STUN_LISTEN).or(default)
    }
}

/// Reads the second addresses. A client must know which addresses answer it, so neither address may be a wildcard.
fn alternates(reader: &mut ConfigReader<'_>, dev: bool, listen: &[SocketAddr]) -> Vec<SocketAddr> {
    const ALLOWED: &str =
        "a list of IP addresses with ports such as [\"203.0.113.8:3479\"], one for a family at most";
    let lookup = reader.key(keys::STUN_ALTERNATE);
    let allowed = if dev { DEV_ALLOWED } else { ALLOWED };
    let list = lookup
        .matching(allowed, move |list: &Vec<SocketAddr>| {
            let one_each =
                |is_family: fn(&SocketAddr) -> bool| list.iter().filter(|a| is_family(a)).count() <= 1;
            one_each(SocketAddr::is_ipv4)
                && one_each(SocketAddr::is_ipv6)
                && (!dev || list.iter().copied().all(is_loopback))
        })
        .or(Vec::new());
    for second in &list {
        let mut family = listen.iter().filter(|first| first.is_ipv4() == second.is_ipv4());
        let (first, others) = (family.next(), family.next());
        let suits = |first: &SocketAddr| {
            let given = [first, second].iter().all(|a| !a.ip().is_unspecified() && a.port() != 0);
            given && first.ip() != second.ip() && first.port() != second.port()
        };
        if others.is_some() || !first.is_some_and(suits) {
            let why = format!(
                "{second} needs one address of its family in stun.listen that differs in both address and port; wildcards \
                 and port 0 do not do"
            );
            reader.conflict(keys::STUN_ALTERNATE, why);
        }
    }
    list
}

/// [`ClientFilter`] as a setting.
#[derive(Clone, Copy, PartialEq)]
struct Answered(ClientFilter);

impl Choice for Answered {
    const ALL: &'static [(&'static str, Self)] =
        &[("all", Self(ClientFilter::All)), ("tailscale", Self(ClientFilter::Tailscale))];
}
