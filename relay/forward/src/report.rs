//! Reports: what an operator is shown of connections.
//!
//! Every number of a report is kept where the connection is read or written anyway, so that a report is made when it is asked
//! for and costs nothing before. A listing is asked for page by page: a worker answers each request with one page, and the
//! next request comes when the page has been read. So a listing holds one page in memory, and no turn of a worker does more
//! than a page of it.

use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

use towpath_relay_proto::admission::PolicyName;
use towpath_relay_proto::outbox::DropCounts;
use towpath_relay_proto::rights::Rights;
use towpath_wire::derp::app_name::AppName;
use towpath_wire::derp::frame::{ClientFrame, ServerFrame};
use towpath_wire::key::NodePublic;

use crate::counters::Traffic;
use crate::peer::Peer;
use crate::transport::TransportKind;

/// The connections of a page at most: some ten microseconds of a worker.
pub(crate) const PAGE: usize = 256;

/// What an operator is shown of a connection.
#[derive(Clone, Debug)]
pub struct ConnectionReport {
    /// Its number, as in the log.
    pub id: u64,
    /// The key of the client, or of the relay at the other end of a link.
    pub key: NodePublic,
    /// The address of the other end.
    pub address: SocketAddr,
    /// How long a worker has had it.
    pub age: Duration,
    /// What carries its frames.
    pub transport: TransportKind,
    /// What is known of a client; `None` for a link that this relay has dialled.
    pub client: Option<ClientReport>,
    /// Packets that came from it. Bytes are those of packets, keys and headers not counted.
    pub received: Traffic,
    /// Packets that were sent to it.
    pub sent: Traffic,
    /// Packets that wait for it.
    pub waiting: Traffic,
    /// The bytes of frames that may wait for it, disco apart.
    pub waiting_bound: usize,
    /// Whether its socket takes no more bytes.
    pub is_blocked: bool,
    /// Packets for it that were dropped, and packets from it to unknown keys.
    pub dropped: DropCounts,
}

/// What an operator is shown of a client besides.
#[derive(Clone, Debug)]
pub struct ClientReport {
    /// The policy that admitted it.
    pub policy: PolicyName,
    /// What it may ask for.
    pub rights: Rights,
    /// The version of DERP that it states; what is not a number of 32 bits is the largest.
    pub version: i32,
    /// The program that it says it is part of.
    pub app_name: AppName,
    /// It calls this relay its home.
    pub is_home: bool,
    /// It says that another relay of the region would be nearer.
    pub is_not_ideal: bool,
    /// It says that it is a prober.
    pub is_prober: bool,
    /// Packets for its key go to this connection.
    pub is_active: bool,
    /// Its key has other connections.
    pub is_duplicate: bool,
}

impl ConnectionReport {
    /// The report on the connection of `peer`. `client`: what is known of a client, and the packets that came from it.
    pub(crate) fn new(
        peer: &Peer,
        client: Option<(ClientReport, Traffic)>,
        age: Duration,
        transport: TransportKind,
    ) -> Self {
        // The bytes of a frame besides its packet.
        let overhead = match client {
            Some(_) => ServerFrame::recv_packet_len(0),
            None => ClientFrame::forward_packet_len(0),
        };
        let payload = |packets: u64, bytes: u64| Traffic {
            packets,
            bytes: bytes.saturating_sub(packets.saturating_mul(overhead as u64)),
        };
        let account = peer.egress.account();
        let (client, received) = client.unzip();
        Self {
            id: peer.id,
            key: *peer.key.node(),
            address: peer.address,
            age,
            transport,
            client,
            // The other relay of a link has no packets for this one.
            received: received.unwrap_or_default(),
            sent: payload(account.sent_packets, account.sent_bytes),
            waiting: payload(account.waiting_packets as u64, account.waiting_bytes as u64),
            waiting_bound: account.bound,
            is_blocked: peer.egress.is_blocked(),
            dropped: account.dropped,
        }
    }
}

/// A place in a listing of all connections. The default is its beginning.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ListCursor {
    pub(crate) worker: usize,
    pub(crate) token: usize,
}

/// A page of a listing.
#[derive(Debug)]
pub struct ListPage {
    /// Its connections. A page may have none and not be the last.
    pub connections: Vec<ConnectionReport>,
    /// Where the next page begins; `None` after the last.
    pub next: Option<ListCursor>,
}

/// The route that packets for a key take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyRoute {
    /// To a connection of this relay.
    Local,
    /// To another relay of the region.
    Via {
        /// The key of that relay.
        relay: NodePublic,
        /// The address of that relay.
        address: SocketAddr,
    },
}

/// What takes the answer of a worker. It must not block.
pub(crate) struct ReportSink<T>(Box<dyn FnOnce(T) + Send>);

impl<T> ReportSink<T> {
    pub(crate) fn new(take: impl FnOnce(T) + Send + 'static) -> Self {
        Self(Box::new(take))
    }

    pub(crate) fn send(self, answer: T) {
        (self.0)(answer);
    }
}

impl<T> fmt::Debug for ReportSink<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ReportSink(..)")
    }
}
