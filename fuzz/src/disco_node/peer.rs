//! The node, the peers that know their keys, and the addresses that there are.

use std::iter;
use std::net::{IpAddr, SocketAddr};
use std::sync::LazyLock;

use towpath_disco::datagram::Region;
use towpath_disco::{Node, NodeConfig, RelayConfig};
use towpath_wire::disco::MAGIC;
use towpath_wire::disco::key::{DiscoPrivate, DiscoPublic};
use towpath_wire::key::{NodePrivate, NodePublic};
use towpath_wire::sealed::{Nonce, SharedKey};

/// Addresses from which packets come: hosts with several ports, of both families, private, and the STUN servers.
const SOURCES: [&str; 10] = [
    "198.51.100.1:41641",
    "198.51.100.2:41641",
    "203.0.113.9:1",
    "203.0.113.9:2",
    "203.0.113.9:3",
    "[2001:db8::9]:7",
    "10.0.0.9:7",
    "100.64.0.9:7",
    "203.0.113.1:3478",
    "203.0.113.2:3478",
];
/// The STUN servers among the sources.
const STUN_AT: usize = 8;
/// Addresses to which a node must not send, whatever a peer names.
const FORBIDDEN: [&str; 10] = [
    "127.0.0.1:7",
    "0.0.0.0:7",
    "0.1.2.3:7",
    "169.254.1.1:7",
    "224.0.0.1:7",
    "255.255.255.255:7",
    "203.0.113.9:0",
    "[::1]:7",
    "[ff02::1]:7",
    "[fe80::1]:7",
];

static ADDRESSES: LazyLock<Vec<SocketAddr>> = LazyLock::new(|| {
    let texts = SOURCES.iter().chain(&FORBIDDEN);
    texts.map(|text| text.parse().expect("an address")).collect()
});

/// The address from which a packet comes.
pub(super) fn source(pick: u8) -> SocketAddr {
    ADDRESSES[usize::from(pick) % SOURCES.len()]
}

/// An address that a peer names.
pub(super) fn named_address(pick: u8) -> SocketAddr {
    ADDRESSES[usize::from(pick) % ADDRESSES.len()]
}

/// The STUN servers.
pub(super) fn stun_servers() -> &'static [SocketAddr] {
    &ADDRESSES[STUN_AT..SOURCES.len()]
}

/// Whether a node may send to an address.
pub(super) fn is_allowed(address: SocketAddr) -> bool {
    let ip = address.ip();
    let is_of_a_link = match ip {
        IpAddr::V4(ip) => ip.is_link_local() || ip.is_broadcast() || ip.octets()[0] == 0,
        IpAddr::V6(ip) => ip.is_unicast_link_local(),
    };
    address.port() != 0 && !is_of_a_link && !ip.is_loopback() && !ip.is_multicast() && !ip.is_unspecified()
}

/// A nonce. The peers use it again and again, which concerns nothing but their own secrecy.
const NONCE: Nonce = [5; 24];

/// A peer: its node key, and the two disco keys that it may use.
pub(super) struct Peer {
    pub(super) key: NodePublic,
    pub(super) discos: [(DiscoPublic, SharedKey); 2],
    pub(super) hello: SharedKey,
}

/// The peers. Their agreements with the node are computed once for all runs, because the node has the same keys in each.
pub(super) static PEERS: LazyLock<[Peer; 2]> = LazyLock::new(|| {
    let node = Node::new(config(0));
    [1, 2].map(|number: u8| {
        let private = NodePrivate::from_random([number; 32]);
        Peer {
            key: private.public(),
            discos: [10, 20].map(|kind| {
                let disco = DiscoPrivate::from_random([kind + number; 32]);
                (disco.public(), SharedKey::of_disco(&disco, &node.disco_key()))
            }),
            hello: SharedKey::new(&private, &NODE_KEY),
        }
    })
});

static NODE_PRIVATE: LazyLock<NodePrivate> = LazyLock::new(|| NodePrivate::from_random([3; 32]));
/// The node key of the node.
pub(super) static NODE_KEY: LazyLock<NodePublic> = LazyLock::new(|| NODE_PRIVATE.public());

/// One of a few configurations of the node.
pub(super) fn config(pick: u8) -> NodeConfig {
    // The first two regions have a STUN server each.
    let servers = stun_servers().iter().filter(|_| pick & 1 == 0).map(|server| vec![*server]);
    let relays = (1..=5).map(Region).zip(servers.chain(iter::repeat(vec![])));
    NodeConfig {
        key: NODE_PRIVATE.clone(),
        seed: [4; 32],
        relays: relays.map(|(region, stun)| RelayConfig { region, stun }).collect(),
        home: (pick & 2 == 0).then_some(Region(1)),
        regions: [1, 2, 3, 4, 5].map(Region).to_vec(),
        addresses: vec![],
        one_probe: pick & 4 != 0,
    }
}

impl Peer {
    /// A packet from one of the disco keys of this peer, with this text in a box of `shared`.
    pub(super) fn sealed(disco: &DiscoPublic, shared: &SharedKey, text: &[u8]) -> Vec<u8> {
        [&MAGIC[..], disco.as_bytes(), &NONCE, &shared.seal(&NONCE, text)].concat()
    }
}
