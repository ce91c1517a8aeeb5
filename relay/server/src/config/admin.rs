//! The settings of administration, which the relay and a host that answers STUN only have.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};

use towpath_service::config::{ConfigReader, IpNet, Problems, Sources};

use super::keys;
use super::rules::{DEV_ALLOWED, is_hostname, is_loopback, path};
use super::variables::CONFIG_VARIABLE;

/// The port of metrics and health.
const ADMIN_PORT: u16 = 9090;

/// Bytes of the longest path that a Unix socket has on Linux (unix(7)).
const SOCKET_PATH_MAX: usize = 107;

/// The ways in for an operator.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AdminSettings {
    /// The TCP address for metrics and health; `None` for none. Loopback, unless clients are named.
    pub listen: Option<SocketAddr>,
    /// The addresses that may connect to `listen`, besides those of this machine.
    pub clients: Vec<IpNet>,
    /// The names by which clients may ask `listen`, besides IP addresses and `localhost`.
    pub hosts: Vec<String>,
    /// The path of the Unix socket on which `clients`, `kick` and `why` are answered; `None` for none.
    pub socket: Option<PathBuf>,
}

impl AdminSettings {
    /// Reads the settings. `dev` confines them to loopback.
    pub(super) fn read(reader: &mut ConfigReader<'_>, dev: bool) -> Self {
        let settings = Self {
            listen: listen(reader, dev),
            clients: clients(reader),
            hosts: hosts(reader),
            socket: socket(reader),
        };
        // A value that is refused is a problem already.
        if !reader.is_sound(keys::ADMIN_LISTEN) || !reader.is_sound(keys::ADMIN_CLIENTS) {
            return settings;
        }
        match settings.listen {
            Some(address) if settings.clients.is_empty() && !is_loopback(address) => reader.conflict(
                keys::ADMIN_LISTEN,
                format!(
                    "is not a loopback address, and admin.clients is empty, so that any host could connect: add to [admin] \
                     the addresses that may, as in clients = [{}]",
                    example(address.ip())
                ),
            ),
            Some(address) if !settings.clients.is_empty() && is_loopback(address) => reader.conflict(
                keys::ADMIN_CLIENTS,
                "names clients that cannot reach admin.listen, a loopback address: let it be an address of this host, or \
                 remove admin.clients",
            ),
            None if !settings.clients.is_empty() => {
                reader.conflict(keys::ADMIN_CLIENTS, "is for admin.listen, which is off");
            }
            _ => {}
        }
        settings
    }

    /// Reads these settings alone, for a command that asks a running relay. What is wrong with others is not looked at: the
    /// relay may have been given some in its environment.
    ///
    /// # Errors
    ///
    /// Every problem of the file as a whole and of these settings.
    pub fn locate(sources: &Sources) -> Result<Self, Problems> {
        let mut reader = ConfigReader::new(sources);
        reader.accept_variable(CONFIG_VARIABLE);
        let settings = Self::read(&mut reader, false);
        reader.finish_part()?;
        Ok(settings)
    }

    /// The addresses at which this machine asks `listen`: those of loopback where it is a wildcard. A container often has `[::]`
    /// and no `[::1]`.
    #[must_use]
    pub fn nearest(&self) -> Vec<SocketAddr> {
        let Some(address) = self.listen else { return Vec::new() };
        let near = |ips: &[IpAddr]| ips.iter().map(|&ip| SocketAddr::new(ip, address.port())).collect();
        match address.ip() {
            IpAddr::V4(ip) if ip.is_unspecified() => near(&[Ipv4Addr::LOCALHOST.into()]),
            IpAddr::V6(ip) if ip.is_unspecified() => {
                near(&[Ipv6Addr::LOCALHOST.into(), Ipv4Addr::LOCALHOST.into()])
            }
            _ => vec![address],
        }
    }
}

fn listen(reader: &mut ConfigReader<'_>, dev: bool) -> Option<SocketAddr> {
    let default = Some(SocketAddr::new(Ipv4Addr::LOCALHOST.into(), ADMIN_PORT));
    let lookup = reader.key(keys::ADMIN_LISTEN);
    if dev {
        let is_near = |address: &Option<SocketAddr>| address.is_none_or(is_loopback);
        lookup.matching(DEV_ALLOWED, is_near).or(default)
    } else {
        lookup.or(default)
    }
}

fn clients(reader: &mut ConfigReader<'_>) -> Vec<IpNet> {
    const ALLOWED: &str = "a list of IP addresses or prefixes such as [\"192.0.2.7\", \"2001:db8::/64\"], none of them all \
                           addresses";
    let are_some = |prefixes: &Vec<IpNet>| prefixes.iter().all(|prefix| prefix.prefix_len() > 0);
    reader.key(keys::ADMIN_CLIENTS).matching(ALLOWED, are_some).or(Vec::new())
}

/// Prefixes as an operator may have them, of the family that can connect to `listen`.
const fn example(listen: IpAddr) -> &'static str {
    match listen {
        IpAddr::V4(_) => "\"192.0.2.7\", \"10.0.0.0/8\"",
        IpAddr::V6(_) => "\"10.0.0.0/8\", \"2001:db8::/64\"",
    }
}

fn hosts(reader: &mut ConfigReader<'_>) -> Vec<String> {
    const ALLOWED: &str = "a list of DNS names such as [\"metrics.example.com\"]";
    reader
        .key(keys::ADMIN_HOSTS)
        .matching(ALLOWED, |names: &Vec<String>| names.iter().all(|name| is_hostname(name)))
        .or(Vec::new())
}

fn socket(reader: &mut ConfigReader<'_>) -> Option<PathBuf> {
    const ALLOWED: &str = "the path of a Unix socket, 107 bytes at most";
    let fits = |path: &Path| path.as_os_str().len() <= SOCKET_PATH_MAX;
    path(reader, keys::ADMIN_SOCKET).also(ALLOWED, move |path: &PathBuf| fits(path)).optional()
}
