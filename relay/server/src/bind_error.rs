//! Why an address cannot be bound, and what to do about it.

use std::io;
use std::net::{IpAddr, SocketAddr};

use rustix::io::Errno;

/// A failure to bind an address. It names the address and says what to do.
#[derive(Debug, thiserror::Error)]
#[error("cannot bind {what} on {address}/{protocol}")]
pub struct BindError {
    /// The listener's purpose.
    what: &'static str,
    /// Its address.
    address: SocketAddr,
    /// `tcp` or `udp`.
    protocol: &'static str,
    source: Cause,
}

/// What the system says, and the remedy.
#[derive(Debug, thiserror::Error)]
#[error("{error}{}", .remedy.as_deref().map(|remedy| format!("; {remedy}")).unwrap_or_default())]
struct Cause {
    error: io::Error,
    remedy: Option<String>,
}

impl BindError {
    /// A listener for TCP.
    pub(crate) fn tcp(what: &'static str, address: SocketAddr, error: io::Error) -> Self {
        Self::new(what, address, "tcp", error)
    }

    /// A socket for STUN.
    pub(crate) fn stun(address: SocketAddr, error: io::Error) -> Self {
        Self::new("STUN", address, "udp", error)
    }

    fn new(what: &'static str, address: SocketAddr, protocol: &'static str, error: io::Error) -> Self {
        let remedy = remedy(address, protocol, &error);
        Self { what, address, protocol, source: Cause { error, remedy } }
    }
}

/// What an operator does about an error of socket(2) or bind(2).
fn remedy(address: SocketAddr, protocol: &str, error: &io::Error) -> Option<String> {
    let port = address.port();
    Some(match error.raw_os_error().map(Errno::from_raw_os_error)? {
        Errno::AFNOSUPPORT => match address.ip() {
            IpAddr::V6(ip) if ip.is_unspecified() => {
                format!("this kernel has no IPv6: write 0.0.0.0:{port} instead")
            }
            _ => "this kernel has no such addresses: write one of the other family".into(),
        },
        Errno::INVAL if needs_scope(address) => {
            format!("a link-local address needs its interface, as in [{}%eth0]:{port}", address.ip())
        }
        Errno::ADDRINUSE => {
            let socket = if protocol == "tcp" { 't' } else { 'u' };
            format!("another program listens there, and `ss -ln{socket}p` names it")
        }
        Errno::ADDRNOTAVAIL => {
            "no interface of this host has this address: `ip address` lists those that they have".into()
        }
        Errno::NODEV => "there is no such interface: `ip link` lists them".into(),
        Errno::ACCESS | Errno::PERM if port < 1024 => {
            "a port below 1024 needs root, or the capability CAP_NET_BIND_SERVICE".into()
        }
        _ => return None,
    })
}

/// Whether the address says nothing without an interface, and names none.
fn needs_scope(address: SocketAddr) -> bool {
    match address {
        SocketAddr::V4(_) => false,
        SocketAddr::V6(address) => address.ip().is_unicast_link_local() && address.scope_id() == 0,
    }
}

#[cfg(test)]
mod tests {
    use towpath_service::ErrorChain;

    use super::*;

    fn text(address: &str, errno: Errno) -> String {
        let address = address.parse().expect("an address");
        ErrorChain(&BindError::stun(address, errno.into())).to_string()
    }

    #[test]
    fn the_message_says_what_to_do() {
        for (address, errno, remedy) in [
            ("[::]:3478", Errno::AFNOSUPPORT, "this kernel has no IPv6: write 0.0.0.0:3478 instead"),
            (
                "[2001:db8::1]:1",
                Errno::AFNOSUPPORT,
                "this kernel has no such addresses: write one of the other family",
            ),
            (
                "[fe80::1]:3478",
                Errno::INVAL,
                "a link-local address needs its interface, as in [fe80::1%eth0]:3478",
            ),
            ("0.0.0.0:3478", Errno::ADDRINUSE, "another program listens there, and `ss -lnup` names it"),
            ("[fe80::1%4000000]:1", Errno::NODEV, "there is no such interface: `ip link` lists them"),
            (
                "0.0.0.0:443",
                Errno::ACCESS,
                "a port below 1024 needs root, or the capability CAP_NET_BIND_SERVICE",
            ),
        ] {
            let expected = format!("cannot bind STUN on {address}/udp: {}; {remedy}", io::Error::from(errno));
            assert_eq!(text(address, errno), expected);
        }
    }

    #[test]
    fn an_error_without_a_remedy_is_the_system_s_alone() {
        assert_eq!(
            text("0.0.0.0:3478", Errno::NOMEM),
            "cannot bind STUN on 0.0.0.0:3478/udp: Cannot allocate memory (os error 12)"
        );
        let text = text("[fe80::1%6]:3478", Errno::INVAL);
        assert!(text.ends_with("Invalid argument (os error 22)"), "{text}");
    }
}
