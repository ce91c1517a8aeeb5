//! What runs on a host.

use std::net::SocketAddr;

use towpath_disco::GatewayConfig;
use towpath_disco::datagram::{Received, Region, RelayEvent, Route, Transmit};
use towpath_wire::key::NodePublic;
use towpath_wire::time::Instant;

/// The node under test, as its driver would call it. After each call [`Self::poll_transmit`] is called until it returns
/// `None`, and then [`Self::poll_timeout`].
pub trait Machine {
    /// A packet has come. Returns the peer whose application data it is, if it is data that is to be delivered: not
    /// signalling, and not a packet that was delivered before.
    fn handle_packet(&mut self, now: Instant, received: Received, packet: &[u8]) -> Option<NodePublic>;

    /// Something has become known of a relay.
    fn handle_relay(&mut self, now: Instant, event: RelayEvent);

    /// These are the addresses of the host's interfaces now, with the port of the UDP socket.
    fn handle_interfaces(&mut self, now: Instant, addresses: &[SocketAddr]);

    /// This is the gateway of the host's network now, if that has one. Called after [`Self::handle_interfaces`].
    fn handle_gateway(&mut self, _now: Instant, _gateway: Option<GatewayConfig>) {}

    /// The ways by which a packet of the application is to be sent, which has `len` bytes.
    fn route(&mut self, now: Instant, peer: &NodePublic, len: usize) -> Route;

    /// The regions to which the host is to keep links; `None` for those that the world was told of.
    fn homes(&self) -> Option<Vec<Region>> {
        None
    }

    /// The time that [`Self::poll_timeout`] gave has come.
    fn handle_timeout(&mut self, now: Instant);

    /// When [`Self::handle_timeout`] is to be called, if at all.
    fn poll_timeout(&mut self) -> Option<Instant>;

    /// Writes the next packet that is to be sent into `packet`, which is empty, and says by which way it goes.
    fn poll_transmit(&mut self, now: Instant, packet: &mut Vec<u8>) -> Option<Transmit>;
}

/// A machine that does nothing, where a world is only looked at.
#[derive(Debug)]
pub(crate) struct Idle;

impl Machine for Idle {
    fn handle_packet(&mut self, _: Instant, _: Received, _: &[u8]) -> Option<NodePublic> {
        None
    }

    fn handle_relay(&mut self, _: Instant, _: RelayEvent) {}

    fn handle_interfaces(&mut self, _: Instant, _: &[SocketAddr]) {}

    fn route(&mut self, _: Instant, _: &NodePublic, _: usize) -> Route {
        Route::default()
    }

    fn handle_timeout(&mut self, _: Instant) {}

    fn poll_timeout(&mut self) -> Option<Instant> {
        None
    }

    fn poll_transmit(&mut self, _: Instant, _: &mut Vec<u8>) -> Option<Transmit> {
        None
    }
}

impl<M: Machine + ?Sized> Machine for Box<M> {
    fn handle_packet(&mut self, now: Instant, received: Received, packet: &[u8]) -> Option<NodePublic> {
        (**self).handle_packet(now, received, packet)
    }

    fn handle_relay(&mut self, now: Instant, event: RelayEvent) {
        (**self).handle_relay(now, event);
    }

    fn handle_interfaces(&mut self, now: Instant, addresses: &[SocketAddr]) {
        (**self).handle_interfaces(now, addresses);
    }

    fn handle_gateway(&mut self, now: Instant, gateway: Option<GatewayConfig>) {
        (**self).handle_gateway(now, gateway);
    }

    fn route(&mut self, now: Instant, peer: &NodePublic, len: usize) -> Route {
        (**self).route(now, peer, len)
    }

    fn homes(&self) -> Option<Vec<Region>> {
        (**self).homes()
    }

    fn handle_timeout(&mut self, now: Instant) {
        (**self).handle_timeout(now);
    }

    fn poll_timeout(&mut self) -> Option<Instant> {
        (**self).poll_timeout()
    }

    fn poll_transmit(&mut self, now: Instant, packet: &mut Vec<u8>) -> Option<Transmit> {
        (**self).poll_transmit(now, packet)
    }
}
