//! The answers of administration as JSON: what the socket gives and what `--json` prints. docs/admin.md describes them.
//!
//! Members are added and not renamed or removed, so that what reads them goes on working.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use towpath_relay_forward::{ConnectionReport, KeyRoute};
use towpath_relay_proto::account::connections::Holding;
use towpath_relay_proto::admission::refused::LastRefusal;
use towpath_relay_proto::outbox::DropReason;
use towpath_service::config::IpNet;

use crate::control::RefusalReason;

/// The connections of a relay.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Clients {
    /// The connections, in no order.
    pub connections: Vec<ListedConnection>,
}

/// A connection.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ListedConnection {
    /// Its number, as in the log.
    pub connection: u64,
    /// What is at its other end.
    pub kind: OtherEnd,
    /// The node key of the other end, `nodekey:` and 64 digits.
    pub key: String,
    /// The address of the other end.
    pub address: SocketAddr,
    /// How long it has been logged in.
    pub age_seconds: u64,
    /// What carries its frames: `tls`, `plain` or `websocket`.
    pub transport: String,
    /// The policy that admitted it; none for a link.
    pub policy: Option<String>,
    /// The version of DERP that it states; none for a link.
    pub version: Option<i32>,
    /// The program that it says it is part of; empty if it does not say.
    pub app_name: String,
    /// It calls this relay its home.
    pub home: bool,
    /// It says that another relay of the region would be nearer.
    pub not_ideal: bool,
    /// It is a relay, or has the rights of one.
    pub mesh: bool,
    /// It may watch which keys come and go.
    pub watch: bool,
    /// It says that it is a prober.
    pub prober: bool,
    /// Packets for its key go to this connection.
    pub active: bool,
    /// Its key has other connections.
    pub duplicate: bool,
    /// Packets that came from it.
    pub received: Carried,
    /// Packets that were sent to it.
    pub sent: Carried,
    /// Packets that wait for it.
    pub waiting: Waiting,
    /// Its socket takes no more bytes.
    pub blocked: bool,
    /// Packets for it that were dropped, and packets from it to unknown keys, by reason. Each reason is there.
    pub dropped: BTreeMap<String, u64>,
}

/// What is at the other end of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OtherEnd {
    /// A client, or a relay that has dialled this one.
    Client,
    /// A relay that this one has dialled.
    Link,
}

/// Packets and their bytes, keys and headers not counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Carried {
    /// Packets.
    pub packets: u64,
    /// Their bytes.
    pub bytes: u64,
}

/// Packets that wait.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Waiting {
    /// Packets.
    pub packets: u64,
    /// Their bytes.
    pub bytes: u64,
    /// The bytes of frames that may wait, disco apart (`outbox.bytes`).
    pub bound_bytes: u64,
}

/// What a relay knows of a key.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Why {
    /// The key.
    pub key: String,
    /// The route that packets for the key take; none where no relay that this one knows has the key.
    pub route: Option<KeyPlace>,
    /// Its connections to this relay.
    pub connections: Vec<ListedConnection>,
    /// The most connections of a key (`login.max_connections_per_key`).
    pub max_connections_per_key: usize,
    /// The accounts of the prefixes from which it connects, or from which it was refused.
    pub sources: Vec<SourceAccount>,
    /// The last time that it was refused; none where none is remembered. The relay remembers 16,384 keys.
    pub refusal: Option<Refused>,
}

/// The last refusal of a key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refused {
    /// Why, as `towpath_refused_total` has it.
    pub reason: String,
    /// What that means.
    pub meaning: String,
    /// The address that it came from.
    pub source: IpAddr,
    /// How long ago it was.
    pub age_seconds: u64,
    /// How often it has been refused since it was first remembered.
    pub times: u64,
}

/// The route that packets for a key take.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "where", rename_all = "snake_case")]
pub enum KeyPlace {
    /// To a connection of this relay.
    Here,
    /// To another relay of the region.
    Relay {
        /// The key of that relay.
        relay: String,
        /// The address of that relay.
        address: SocketAddr,
    },
}

/// The connections of a prefix, before and after their logins.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourceAccount {
    /// An IPv4 address, or a /64, /56 or /48 of IPv6.
    pub prefix: String,
    /// The connections that it holds.
    pub connections: usize,
    /// The connections that it may hold (`login.max_connections_per_host`).
    pub bound: usize,
}

/// What became of a request to close the connections of a key.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Kicked {
    /// The key.
    pub key: String,
    /// The connections that are being closed.
    pub closed: usize,
}

/// What is wrong with a request.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Mistake {
    /// The mistake, in words.
    pub error: String,
}

/// The address as it is shown: one of IPv4 that is mapped into IPv6, as a listener on `[::]` has it, is one of IPv4.
fn canonical(address: SocketAddr) -> SocketAddr {
    match address.ip().to_canonical() {
        ip @ IpAddr::V4(_) => SocketAddr::new(ip, address.port()),
        IpAddr::V6(_) => address,
    }
}

impl From<&ConnectionReport> for ListedConnection {
    fn from(report: &ConnectionReport) -> Self {
        let client = report.client.as_ref();
        let is = |of_client: fn(&towpath_relay_forward::ClientReport) -> bool| client.is_some_and(of_client);
        let dropped = DropReason::ALL.map(|reason| (reason.label().to_owned(), report.dropped.of(reason)));
        Self {
            connection: report.id,
            kind: if client.is_some() { OtherEnd::Client } else { OtherEnd::Link },
            key: report.key.to_string(),
            address: canonical(report.address),
            age_seconds: report.age.as_secs(),
            transport: report.transport.label().into(),
            policy: client.map(|client| client.policy.label().into()),
            version: client.map(|client| client.version),
            app_name: client.map_or_else(String::new, |client| client.app_name.as_str().into()),
            home: is(|client| client.is_home),
            not_ideal: is(|client| client.is_not_ideal),
            mesh: client.is_none_or(|client| client.rights.is_mesh()),
            watch: is(|client| client.rights.may_watch()),
            prober: is(|client| client.is_prober),
            active: client.is_none_or(|client| client.is_active),
            duplicate: is(|client| client.is_duplicate),
            received: report.received.into(),
            sent: report.sent.into(),
            waiting: Waiting {
                packets: report.waiting.packets,
                bytes: report.waiting.bytes,
                bound_bytes: report.waiting_bound as u64,
            },
            blocked: report.is_blocked,
            dropped: dropped.into(),
        }
    }
}

impl From<towpath_relay_forward::Traffic> for Carried {
    fn from(traffic: towpath_relay_forward::Traffic) -> Self {
        Self { packets: traffic.packets, bytes: traffic.bytes }
    }
}

impl From<KeyRoute> for KeyPlace {
    fn from(route: KeyRoute) -> Self {
        match route {
            KeyRoute::Local => Self::Here,
            KeyRoute::Via { relay, address } => {
                Self::Relay { relay: relay.to_string(), address: canonical(address) }
            }
        }
    }
}

impl Refused {
    pub(super) fn new(last: &LastRefusal<RefusalReason>, age: Duration) -> Self {
        Self {
            reason: last.reason.label().into(),
            meaning: last.reason.about().into(),
            source: last.source.to_canonical(),
            age_seconds: age.as_secs(),
            times: last.times,
        }
    }
}

impl SourceAccount {
    pub(super) fn new(source: IpAddr, holding: Holding) -> Self {
        let source = source.to_canonical();
        let prefix = match source {
            IpAddr::V4(_) => source.to_string(),
            IpAddr::V6(_) => IpNet::new_assert(source, holding.width.bits()).trunc().to_string(),
        };
        Self { prefix, connections: holding.connections, bound: holding.bound }
    }
}

#[cfg(test)]
mod tests {
    use towpath_relay_forward::{Traffic, TransportKind};
    use towpath_relay_proto::outbox::DropCounts;
    use towpath_wire::host::PrefixWidth;
    use towpath_wire::key::NodePublic;

    use super::*;

    fn listed(address: &str) -> String {
        let report = ConnectionReport {
            id: 1,
            key: NodePublic::from_bytes([7; 32]),
            address: address.parse().expect("an address"),
            age: Duration::ZERO,
            transport: TransportKind::Tls,
            client: None,
            received: Traffic::default(),
            sent: Traffic::default(),
            waiting: Traffic::default(),
            waiting_bound: 0,
            is_blocked: false,
            dropped: DropCounts::default(),
        };
        ListedConnection::from(&report).address.to_string()
    }

    #[test]
    fn an_ipv4_address_is_shown_as_one_also_where_the_relay_listens_on_ipv6() {
        for (address, expected) in [
            ("[::ffff:192.0.2.1]:443", "192.0.2.1:443"),
            ("192.0.2.1:443", "192.0.2.1:443"),
            ("[2001:db8::1]:443", "[2001:db8::1]:443"),
            ("[fe80::1%2]:443", "[fe80::1%2]:443"),
        ] {
            assert_eq!(listed(address), expected);
        }
        let relay = NodePublic::from_bytes([8; 32]);
        let address = "[::ffff:192.0.2.1]:443".parse().expect("an address");
        let KeyPlace::Relay { address, .. } = KeyRoute::Via { relay, address }.into() else {
            panic!("another relay")
        };
        assert_eq!(address.to_string(), "192.0.2.1:443");
        let source = "::ffff:192.0.2.1".parse().expect("an address");
        let last = LastRefusal {
            reason: RefusalReason::NotAdmitted,
            source,
            at: Duration::ZERO,
            holds: Duration::ZERO,
            times: 1,
        };
        assert_eq!(Refused::new(&last, Duration::ZERO).source.to_string(), "192.0.2.1");
        let holding = Holding { width: PrefixWidth::Host, connections: 1, bound: 2 };
        assert_eq!(SourceAccount::new(source, holding).prefix, "192.0.2.1");
    }
}
