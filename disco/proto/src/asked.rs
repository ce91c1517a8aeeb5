//! Requests to STUN servers that wait for their answers.

use std::net::SocketAddr;

use towpath_stun_proto::{REQUEST_LEN, Response, TransactionId, write_request};
use towpath_wire::time::Instant;

use crate::random::Random;

/// A request to a STUN server.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Asked {
    pub(crate) transaction: TransactionId,
    pub(crate) server: SocketAddr,
    pub(crate) sent: Instant,
}

impl Asked {
    pub(crate) fn new(server: SocketAddr, now: Instant, random: &mut Random) -> Self {
        Self { transaction: TransactionId(random.bytes()), server, sent: now }
    }

    /// The server, and the datagram for it.
    pub(crate) fn request(&self) -> (SocketAddr, Vec<u8>) {
        let mut request = [0; REQUEST_LEN];
        write_request(&mut request, self.transaction);
        (self.server, request.to_vec())
    }

    /// Whether a response from `remote` is the answer. One from another address says nothing.
    pub(crate) fn is_answered_by(&self, response: &Response, remote: SocketAddr) -> bool {
        self.transaction == response.transaction && self.server == remote
    }
}
