//! The addresses of this host's interfaces and its gateway, and when they change.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4};
use std::os::unix::net::UnixDatagram as SystemDatagram;
use std::time::Duration;
use std::{fs, io};

use if_addrs::{IfOperStatus, Interface};
use rustix::io::Errno;
use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, socket_with};
use tokio::net::UnixDatagram;
use tokio::time::{sleep, timeout};
use towpath_disco::GatewayConfig;
use tracing::{debug, warn};

/// The groups of messages of the kernel on links, addresses and routes (rtnetlink(7)): `RTMGRP_LINK`, `RTMGRP_IPV4_IFADDR`,
/// `RTMGRP_IPV4_ROUTE`, `RTMGRP_IPV6_IFADDR`, `RTMGRP_IPV6_ROUTE`.
const GROUPS: u32 = 0x1 | 0x10 | 0x40 | 0x100 | 0x400;
/// How long the kernel must have been quiet, because a change comes in many messages.
const SETTLED: Duration = Duration::from_millis(20);
/// The longest wait for that.
const LONGEST: Duration = Duration::from_millis(100);
/// How often the interfaces are looked at without a message, in case one was lost.
const LOOK: Duration = Duration::from_secs(30);

/// What is known of this host's network.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Network {
    /// The addresses of all interfaces that are up, in the order of the system.
    pub(crate) addresses: Vec<IpAddr>,
    /// The gateway of the default route for IPv4, and the address from which it is reached.
    pub(crate) gateway: Option<(Ipv4Addr, Ipv4Addr)>,
}

impl Network {
    /// Looks at the interfaces, without those whose names are in `ignored`.
    pub(crate) fn look(ignored: &[String]) -> Self {
        let interfaces = if_addrs::get_if_addrs().unwrap_or_else(|error| {
            warn!(%error, "cannot list the interfaces of this host: no local address is offered to peers");
            Vec::new()
        });
        let is_used = |interface: &&Interface| {
            interface.oper_status != IfOperStatus::Down && !ignored.contains(&interface.name)
        };
        let used: Vec<_> = interfaces.iter().filter(is_used).collect();
        let gateway = default_route().and_then(|(name, gateway)| {
            let local =
                used.iter().filter(|interface| interface.name == name).find_map(|one| match one.ip() {
                    IpAddr::V4(local) => Some(local),
                    IpAddr::V6(_) => None,
                });
            Some((gateway, local?))
        });
        Self { addresses: used.iter().map(|interface| interface.ip()).collect(), gateway }
    }

    /// The addresses of a family with a port.
    pub(crate) fn endpoints(&self, socket: SocketAddr) -> impl Iterator<Item = SocketAddr> {
        let of_family = self.addresses.iter().filter(move |ip| ip.is_ipv4() == socket.is_ipv4());
        of_family.map(move |ip| SocketAddr::new(*ip, socket.port()))
    }

    pub(crate) fn gateway(&self, port: u16) -> Option<GatewayConfig> {
        let (address, local) = self.gateway?;
        Some(GatewayConfig { address, local: SocketAddrV4::new(local, port) })
    }
}

/// The interface and the gateway of the IPv4 route of the lowest metric to everywhere.
fn default_route() -> Option<(String, Ipv4Addr)> {
    // Of this thread's network namespace, which may be another one than the process's.
    default_route_of(&fs::read_to_string("/proc/thread-self/net/route").ok()?)
}

/// The default route in the format of `/proc/net/route`, whose addresses are hexadecimal in the order of this machine.
fn default_route_of(routes: &str) -> Option<(String, Ipv4Addr)> {
    let defaults = routes.lines().skip(1).filter_map(|line| {
        let mut fields = line.split_whitespace();
        let (name, destination, gateway) = (fields.next()?, fields.next()?, fields.next()?);
        let (metric, mask) = (fields.nth(3)?.parse::<u32>().ok()?, fields.next()?);
        let gateway = Ipv4Addr::from(u32::from_str_radix(gateway, 16).ok()?.to_ne_bytes());
        let is_default = destination == "00000000" && mask == "00000000" && !gateway.is_unspecified();
        is_default.then(|| (metric, name.to_owned(), gateway))
    });
    defaults.min_by_key(|(metric, ..)| *metric).map(|(_, name, gateway)| (name, gateway))
}

/// The changes of links, addresses and routes of this host, followed. To be used on a runtime of tokio, in the network namespace of the
/// thread that begins.
#[derive(Debug)]
pub struct NetworkChanges(Option<UnixDatagram>);

impl NetworkChanges {
    /// Begins to follow them. Without messages of the kernel, they are looked at every 30 s.
    #[must_use]
    pub fn watch() -> Self {
        Self(listen().inspect_err(|error| {
            warn!(%error, "the kernel does not tell of changes of interfaces: they are looked at every {LOOK:?}");
        }).ok())
    }

    /// Waits until the interfaces are worth a look: after a change, and every 30 s.
    pub async fn next(&self) {
        let Some(messages) = &self.0 else { return sleep(LOOK).await };
        if timeout(LOOK, drain(messages)).await.is_err() {
            return;
        }
        let settle = async { while timeout(SETTLED, drain(messages)).await.is_ok() {} };
        let _ = timeout(LONGEST, settle).await;
        debug!("the kernel says that links, addresses or routes have changed");
    }
}

/// The socket is one of netlink. To the runtime, which has no type for those, all sockets of datagrams are alike.
fn listen() -> io::Result<UnixDatagram> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    // Protocol 0 is `NETLINK_ROUTE`.
    let socket = socket_with(AddressFamily::NETLINK, SocketType::RAW, flags, None)?;
    bind(&socket, &SocketAddrNetlink::new(0, GROUPS))?;
    UnixDatagram::from_std(SystemDatagram::from(socket))
}

/// Waits for a message. What it says is looked up afterwards; one that was lost (`ENOBUFS`) is a message, too.
async fn drain(messages: &UnixDatagram) {
    if let Err(error) = messages.recv(&mut [0; 8192]).await
        && error.raw_os_error() != Some(Errno::NOBUFS.raw_os_error())
    {
        debug!(%error, "cannot read what the kernel says of interfaces");
        sleep(LOOK).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_route_of_the_lowest_metric_counts() {
        let routes = "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT\n\
            wlan0\t00000000\t0101A8C0\t0003\t0\t0\t600\t00000000\t0\t0\t0\n\
            eth0\t00000000\tFE01A8C0\t0003\t0\t0\t100\t00000000\t0\t0\t0\n\
            eth0\t0001A8C0\t00000000\t0001\t0\t0\t100\t00FFFFFF\t0\t0\t0\n\
            tun0\t00000000\t00000000\t0001\t0\t0\t0\t00000000\t0\t0\t0\n\
            half\n";
        let gateway = Ipv4Addr::from(0xFE01_A8C0_u32.to_ne_bytes());
        assert_eq!(default_route_of(routes), Some(("eth0".to_owned(), gateway)));
        assert_eq!(default_route_of(""), None);
    }
}
