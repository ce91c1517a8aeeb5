//! What goes into the machine and out of it: packets with the way that they come or go, what is known of relays, and routes.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use towpath_wire::key::NodePublic;

use crate::config::GatewayConfig;
use crate::portmap::UpnpRequest;

/// A region of relays, by its number in the DERP map.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Region(pub u16);

/// The way by which a packet came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Received {
    /// On the UDP socket.
    Udp {
        /// The address of the sender, as this host sees it.
        remote: SocketAddr,
    },
    /// Over a relay, which has said whose packet it is.
    Relay {
        /// The region of the relay.
        region: Region,
        /// The node key of the sender.
        peer: NodePublic,
    },
}

/// The way by which a packet goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transmit {
    /// From the UDP socket.
    Udp {
        /// The address to send from; `None` for the one that the system chooses.
        src: Option<IpAddr>,
        /// The address to send to.
        dst: SocketAddr,
        /// The hops after which the packet is to die; `None` for as many as usual.
        ttl: Option<u8>,
    },
    /// Over a relay.
    Relay {
        /// The region of the relay.
        region: Region,
        /// The node key of the receiver.
        peer: NodePublic,
    },
    /// A ping to a relay itself (`framePing`), whose answer is [`RelayEvent::RoundTrip`]. The packet is empty.
    Ping {
        /// The region of the relay.
        region: Region,
    },
    /// The link to a relay is to be dialled anew at once, because it does not answer or this host is in another network. One that is
    /// up serves until [`RelayEvent::Up`] says that another one has taken its place; if anything comes over it before that, it works,
    /// and the dial is given up. A dial or a pause before one that has begun earlier begins again. The packet is empty.
    Redial {
        /// The region of the relay.
        region: Region,
    },
    /// A request to the gateway by UPnP-IGD. What comes of one for a port is given to [`Node::handle_upnp`](crate::Node::handle_upnp). A
    /// driver without UPnP takes it for a request that is not answered. The packet is empty.
    Upnp {
        /// The gateway, and the local address to which it is to forward. No other host is asked.
        gateway: GatewayConfig,
        /// What it is asked for.
        request: UpnpRequest,
    },
}

/// What has become known of a relay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RelayEvent {
    /// The link to the relay of a region is up, or another one has taken its place.
    Up(Region),
    /// The link is gone, or could not be made.
    Down(Region),
    /// Something has come from the relay that says no more than that the link works, as a keep-alive.
    Heard(Region),
    /// A round trip to the relay and back has been measured, by a ping or at the login.
    RoundTrip {
        /// The region.
        region: Region,
        /// The time that it took.
        took: Duration,
    },
    /// The relay of a region has seen a peer at an address a moment ago. Such an address bears more probes than one that only the
    /// peer claims, so the driver passes on the word of the relay itself and of no peer.
    Attested {
        /// The region.
        region: Region,
        /// The peer.
        peer: NodePublic,
        /// The address from which the peer's datagrams come to the relay.
        address: SocketAddr,
    },
    /// The relay of a region says that a peer is not connected to it.
    PeerGone {
        /// The region.
        region: Region,
        /// The peer.
        peer: NodePublic,
    },
}

/// The ways by which a packet of the application is to be sent. Both at once while it is not certain that the direct one works.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Route {
    /// The address of the peer on UDP.
    pub direct: Option<SocketAddr>,
    /// The region of the relay.
    pub relay: Option<Region>,
    /// The region of another relay, while it is not certain that the first one works.
    pub standby: Option<Region>,
}
