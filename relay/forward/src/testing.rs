//! What the tests of this crate are made of: keys, connections that no worker owns, and what workers share.

use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use towpath_relay_proto::admission::PolicyName;
use towpath_relay_proto::outbox::Limits;
use towpath_relay_proto::rights::Rights;
use towpath_relay_proto::session::ClientSession;
use towpath_wire::key::NodePublic;

use crate::arrival::{ClientTraits, LinkArrival, NewLink};
use crate::config::{CurrentLimits, DataPlaneConfig, PlaneLimits, PollPolicy};
use crate::key::RouteKey;
use crate::peer::Peer;
use crate::shared::PlaneShared;
use crate::transport::Transport;

/// This relay's own key.
pub(crate) const OWN: u8 = 0xee;

/// The connections that a key may have.
pub(crate) const MAX_PER_KEY: usize = 3;

const MINUTE: Duration = Duration::from_secs(60);

pub(crate) fn key(number: u8) -> RouteKey {
    NodePublic::from_bytes([number; 32]).into()
}

/// What the workers of a relay share of which none runs.
pub(crate) fn shared(max_link_keys: usize) -> PlaneShared {
    let config = DataPlaneConfig {
        limits: limits(max_link_keys),
        keepalive: MINUTE,
        poll: PollPolicy { busy_poll: Duration::ZERO, gather: Duration::ZERO },
        own_key: *key(OWN).node(),
        watchable: true,
        max_frame_memory: 64 << 20,
    };
    PlaneShared::new(config, Box::default())
}

const fn limits(max_link_keys: usize) -> PlaneLimits {
    PlaneLimits { write_timeout: MINUTE, max_connections_per_key: MAX_PER_KEY, max_link_keys }
}

/// The limits of a relay without links.
pub(crate) fn current_limits() -> Arc<CurrentLimits> {
    Arc::new(CurrentLimits::new(limits(0)))
}

/// What is known of an ordinary client, but for its rights.
pub(crate) const fn traits(rights: Rights) -> ClientTraits {
    ClientTraits { rights, policy: PolicyName::Open, version: 2, not_ideal: false }
}

/// The connection `id` of `key`, whose other end never reads.
pub(crate) fn peer(id: u64, key: RouteKey) -> Arc<Peer> {
    new_link(id, key).peer
}

/// The link `id` to the relay with `key`, which says nothing.
pub(crate) fn new_link(id: u64, key: RouteKey) -> NewLink {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address");
    let bytes = 128 * 1024;
    NewLink::new(LinkArrival {
        id,
        relay: *key.node(),
        address,
        transport: Transport::plain(TcpStream::connect(address).expect("a connection")),
        session: ClientSession::default(),
        frames: Vec::new(),
        limits: Arc::new(Limits { bytes, packets: 32, disco_bytes: bytes, age: MINUTE, hold_above: bytes }),
        on_event: Box::new(|_| {}),
    })
}
