//! Requests to a gateway by UPnP-IGD, which the driver makes: they need TCP and multicast, which the machine has not.

use std::net::SocketAddrV4;

/// What a gateway is asked for by UPnP-IGD.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UpnpRequest {
    /// To forward a UDP port to the local address of [`GatewayConfig`](crate::GatewayConfig). A request for the port that is forwarded
    /// already makes it last anew.
    Map {
        /// The external port, if a certain one is wanted. If the gateway forwards it to another host, any other one will do.
        external: Option<u16>,
        /// For how many seconds.
        lifetime: u32,
    },
    /// To forward an external port no longer.
    Unmap {
        /// The external port.
        external: u16,
    },
}

/// What has come of [`UpnpRequest::Map`]. The driver gives it within eight seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UpnpAnswer {
    /// The gateway forwards a port, for as long as was asked for, or until it is told otherwise.
    Granted(SocketAddrV4),
    /// The gateway has refused with this error code (WANIPConnection:2, section 2.5).
    Refused(u16),
    /// The gateway does not answer, or what it answers is of no use.
    Silent,
}

/// The error of a gateway that cannot do it at present.
pub(super) const ACTION_FAILED: u16 = 501;

/// The name of an error.
pub(super) const fn error_name(code: u16) -> &'static str {
    match code {
        401 => "invalid action",
        402 => "invalid arguments",
        501 => "action failed",
        605 => "string argument too long",
        606 => "action not authorized",
        718 => "conflict in mapping entry",
        724 => "same port values required",
        725 => "only permanent leases supported",
        728 => "no port maps available",
        729 => "conflict with other mechanisms",
        _ => "unknown",
    }
}
