//! What was found, for people and programs.

use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

use serde::{Serialize, Serializer};
use towpath_disco::PortMapping;

/// What the network of this host lets through, and what its NATs do.
#[derive(Clone, Debug, Serialize)]
pub struct NetReport {
    /// Whether a STUN server has answered.
    #[serde(rename = "udp")]
    pub is_udp_open: bool,
    /// The address by which the nearest server sees this host over IPv4.
    pub ipv4: Option<SocketAddr>,
    /// The address by which the nearest server sees this host over IPv6.
    pub ipv6: Option<SocketAddr>,
    /// On what the mapping of a socket depends (RFC 4787 section 4.1). `None` unless two servers have answered.
    pub mapping: Option<Dependence>,
    /// On what it depends which datagrams get in (RFC 4787 section 5). `None` unless a server with two addresses has answered.
    pub filtering: Option<Dependence>,
    /// How external ports are chosen.
    pub allocator: Option<Allocator>,
    /// The regions, the nearest first.
    pub regions: Vec<RegionReport>,
    /// What the gateway has said to a request for a port. Serialised as text.
    #[serde(serialize_with = "as_text")]
    pub port_mapping: PortMapping,
    /// Whether a captive portal answers in place of a relay; `None` where no relay of the map can tell.
    pub captive_portal: Option<bool>,
}

/// A region as it was found.
#[derive(Clone, Debug, Serialize)]
pub struct RegionReport {
    /// Its number.
    pub region: u16,
    /// Its short name.
    pub code: String,
    /// Its name for people.
    pub name: String,
    /// The shortest round trip to its STUN servers. Serialised as `rtt_us`, in microseconds.
    #[serde(rename = "rtt_us", serialize_with = "as_micros")]
    pub rtt: Option<Duration>,
}

/// On what of the remote endpoint a behaviour of a NAT depends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Dependence {
    /// On nothing.
    EndpointIndependent,
    /// On the address.
    AddressDependent,
    /// On the address and the port.
    AddressAndPortDependent,
    /// On the address, and it is not known whether on the port as well.
    Dependent,
}

/// How a NAT chooses external ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Allocator {
    /// The port of the socket.
    Preserving,
    /// Each time so many more than the last time.
    Sequential(i32),
    /// None that can be foretold.
    Random,
}

impl Allocator {
    /// The allocator behind pairs of a socket's port and an external port, in the order in which they were given out; `None` for fewer
    /// than two.
    pub(super) fn of(ports: &[(u16, u16)]) -> Option<Self> {
        if ports.len() < 2 {
            return None;
        }
        if ports.iter().all(|(local, external)| local == external) {
            return Some(Self::Preserving);
        }
        let steps: Vec<_> =
            ports.windows(2).map(|pair| i32::from(pair[1].1) - i32::from(pair[0].1)).collect();
        let first = steps[0];
        // Others of this network get ports in between.
        let is_sequential =
            first != 0 && steps.iter().all(|step| step.signum() == first.signum() && step.abs() <= 2048);
        let least = steps.iter().min_by_key(|step| step.abs()).copied().unwrap_or(first);
        Some(if is_sequential { Self::Sequential(least) } else { Self::Random })
    }
}

impl fmt::Display for Dependence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::EndpointIndependent => "endpoint-independent",
            Self::AddressDependent => "address-dependent",
            Self::AddressAndPortDependent => "address- and port-dependent",
            Self::Dependent => "dependent on the destination",
        })
    }
}

impl fmt::Display for Allocator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Preserving => f.write_str("keeps the port of the socket"),
            Self::Sequential(step) => write!(f, "in sequence, {step} each time"),
            Self::Random => f.write_str("at random"),
        }
    }
}

impl NetReport {
    /// What mapping and filtering mean for peers, in a line.
    #[must_use]
    pub fn verdict(&self) -> &'static str {
        match (self.is_udp_open, self.mapping, self.filtering) {
            (false, ..) => "UDP is blocked: all packets go over relays",
            (true, Some(Dependence::EndpointIndependent), Some(Dependence::EndpointIndependent)) => {
                "easy: any peer that can send UDP becomes direct"
            }
            (true, Some(Dependence::EndpointIndependent), _) => {
                "easy: direct to any peer whose NAT maps without regard to the destination"
            }
            (true, Some(_), _) => {
                "hard: direct only to peers with a public address, an open NAT or a forwarded port"
            }
            (true, None, _) => "not known: fewer than two servers have answered",
        }
    }
}

impl fmt::Display for NetReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fn or<T: fmt::Display>(value: Option<T>, other: &str) -> String {
            value.map_or_else(|| other.to_owned(), |value| value.to_string())
        }
        writeln!(f, "UDP             {}", if self.is_udp_open { "passes" } else { "is blocked" })?;
        writeln!(f, "IPv4            {}", or(self.ipv4.map(|seen| format!("seen as {seen}")), "no answer"))?;
        writeln!(f, "IPv6            {}", or(self.ipv6.map(|seen| format!("seen as {seen}")), "no answer"))?;
        writeln!(f, "NAT             {}", self.verdict())?;
        writeln!(
            f,
            "  mapping       {}",
            or(self.mapping, "not known: fewer than two servers have answered")
        )?;
        writeln!(
            f,
            "  filtering     {}",
            or(self.filtering, "not known: no server has a second address (stun.alternate)")
        )?;
        writeln!(f, "  ports         {}", or(self.allocator, "not known"))?;
        writeln!(f, "port mapping    {}", self.port_mapping)?;
        let portal = self
            .captive_portal
            .map(|is_there| if is_there { "there is one: log in to the network" } else { "none" });
        writeln!(f, "captive portal  {}", or(portal, "not known: no relay of the map answers on port 80"))?;
        writeln!(f, "\nregions")?;
        for region in &self.regions {
            let rtt = region
                .rtt
                .map_or("no answer".to_owned(), |rtt| format!("{:.1} ms", rtt.as_secs_f64() * 1000.0));
            writeln!(f, "  {:<6} {:<12} {:>9}  {}", region.region, region.code, rtt, region.name)?;
        }
        Ok(())
    }
}

fn as_text<S: Serializer>(mapping: &PortMapping, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(mapping)
}

fn as_micros<S: Serializer>(rtt: &Option<Duration>, serializer: S) -> Result<S::Ok, S::Error> {
    rtt.map(|rtt| u64::try_from(rtt.as_micros()).unwrap_or(u64::MAX)).serialize(serializer)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn allocators_are_told_apart_by_what_they_give_out() {
        assert_eq!(Allocator::of(&[(5, 5)]), None);
        assert_eq!(Allocator::of(&[(5, 5), (9, 9)]), Some(Allocator::Preserving));
        assert_eq!(Allocator::of(&[(5, 1000), (9, 1001), (7, 1003)]), Some(Allocator::Sequential(1)));
        assert_eq!(Allocator::of(&[(5, 1000), (9, 744), (7, 488)]), Some(Allocator::Sequential(-256)));
        assert_eq!(Allocator::of(&[(5, 1000), (9, 40_000), (7, 1003)]), Some(Allocator::Random));
        assert_eq!(Allocator::of(&[(5, 1000), (5, 1000)]), Some(Allocator::Random));
    }
}
