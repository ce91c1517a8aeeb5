//! The address families that the kernel has, on which defaults depend.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::OnceLock;

use socket2::{Domain, Socket, Type};
use towpath_service::config::{ConfigReader, SettingKey};

/// The default address of a listener: the wildcard of IPv6, which takes IPv4 as well, or that of IPv4 where the kernel has no
/// IPv6. The user is told of the latter if the default is used.
pub(super) fn any(reader: &mut ConfigReader<'_>, key: SettingKey, port: u16) -> SocketAddr {
    let has_ipv6 = has_ipv6();
    if !has_ipv6 && reader.given(key).is_none() {
        reader
            .warn(format!("{}: this kernel has no IPv6, so the default is the wildcard of IPv4", key.path()));
    }
    let ip: IpAddr = if has_ipv6 { Ipv6Addr::UNSPECIFIED.into() } else { Ipv4Addr::UNSPECIFIED.into() };
    SocketAddr::new(ip, port)
}

/// Whether sockets of IPv6 can be made. The answer is no with `ipv6.disable=1`: EAFNOSUPPORT.
fn has_ipv6() -> bool {
    static HAS: OnceLock<bool> = OnceLock::new();
    *HAS.get_or_init(|| Socket::new(Domain::IPV6, Type::DGRAM, None).is_ok())
}
