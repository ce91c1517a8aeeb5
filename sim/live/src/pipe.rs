//! What runs on a host of the simulated internet: a pipe to and from an endpoint.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::task::Waker;

use towpath_disco::datagram::{Received, RelayEvent, Route, Transmit};
use towpath_sim::Machine;
use towpath_wire::key::NodePublic;
use towpath_wire::time::Instant;

/// Datagrams that wait for the endpoint, beyond which they are lost, as in the buffer of a socket.
const MOST_WAITING: usize = 8192;

/// The datagrams between a host and its endpoint.
#[derive(Debug, Default)]
pub(crate) struct Pipe {
    pub(crate) arrived: VecDeque<(SocketAddr, Vec<u8>)>,
    pub(crate) reader: Option<Waker>,
    pub(crate) sent: VecDeque<(Transmit, Vec<u8>)>,
}

impl Machine for Pipe {
    fn handle_packet(&mut self, _now: Instant, received: Received, packet: &[u8]) -> Option<NodePublic> {
        if let Received::Udp { remote } = received
            && self.arrived.len() < MOST_WAITING
        {
            self.arrived.push_back((remote, packet.to_vec()));
            if let Some(reader) = self.reader.take() {
                reader.wake();
            }
        }
        None
    }

    fn handle_relay(&mut self, _now: Instant, _event: RelayEvent) {}

    fn handle_interfaces(&mut self, _now: Instant, _addresses: &[SocketAddr]) {}

    fn route(&mut self, _now: Instant, _peer: &NodePublic, _len: usize) -> Route {
        Route::default()
    }

    fn handle_timeout(&mut self, _now: Instant) {}

    fn poll_timeout(&mut self) -> Option<Instant> {
        None
    }

    fn poll_transmit(&mut self, _now: Instant, packet: &mut Vec<u8>) -> Option<Transmit> {
        let (transmit, datagram) = self.sent.pop_front()?;
        *packet = datagram;
        Some(transmit)
    }
}
