//! The settings of the mesh: the files of its secrets, the addresses that may use them, and the relays to dial.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::path::PathBuf;

use towpath_service::config::{ConfigReader, Element, IpNet, Value, quote};
use towpath_wire::host::{Prefixes, bracketed};
use towpath_wire::key::NodePublic;
use towpath_wire::pin::CertificatePin;
use towpath_wire::ports;

use super::keys;
use super::rules::{is_hostname, path};

/// The keys that the relays of a region may announce to this one, all together, unless the configuration says how many
/// each may. It is far above the clients of any region that is known of, and worth some 400 MB of memory.
const MAX_KEYS_OF_ALL: usize = 1_000_000;
/// What the configuration may say for each relay. A relay with fewer clients than the least needs no bound.
const MAX_KEYS: RangeInclusive<usize> = 1_000..=100_000_000;

/// The other relays of the region, and which connections are accepted as theirs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Mesh {
    /// The file that holds the key of the mesh. `None`: this relay is in no mesh, and no client gets mesh rights.
    pub key_file: Option<PathBuf>,
    /// The file that holds a second key, which is accepted as the key of the mesh and never sent.
    pub second_key_file: Option<PathBuf>,
    /// The file that holds the key of probers, which gives the right to watch and no other.
    pub prober_key_file: Option<PathBuf>,
    /// The addresses from which a mesh key is accepted; empty for everywhere.
    pub sources: Prefixes,
    /// The relays to dial. This relay itself may be among them, so that all of a region can have the same list.
    pub peers: Vec<MeshPeer>,
    /// The keys that each relay may announce to this one, 1,000 to 100,000,000.
    pub max_keys: usize,
    /// The roots that vouch for the certificates of peers without a pin; `None` for the system's.
    pub ca_file: Option<PathBuf>,
}

impl Mesh {
    pub(super) fn read(reader: &mut ConfigReader<'_>) -> Self {
        let key_file = path(reader, keys::MESH_KEY_FILE).optional();
        let second_key_file = path(reader, keys::MESH_SECOND_KEY_FILE).optional();
        let prober_key_file = path(reader, keys::MESH_PROBER_KEY_FILE).optional();
        let sources: Prefixes = reader.key(keys::MESH_SOURCES).or(Vec::<IpNet>::new()).into();
        let peers: Vec<MeshPeer> = reader.key(keys::MESH_PEERS).or(Vec::new());
        let share = MAX_KEYS_OF_ALL / peers.len().max(1);
        let max_keys = reader.key(keys::MESH_MAX_KEYS).within(MAX_KEYS).or(share.max(*MAX_KEYS.start()));
        let ca_file = path(reader, keys::MESH_CA_FILE).optional();
        let mesh = Self { key_file, second_key_file, prober_key_file, sources, peers, max_keys, ca_file };
        if reader.given(keys::MESH_KEY_FILE).is_none() {
            for (key, given) in [
                (keys::MESH_SECOND_KEY_FILE, reader.given(keys::MESH_SECOND_KEY_FILE).is_some()),
                (keys::MESH_SOURCES, !mesh.sources.is_empty()),
                (keys::MESH_PEERS, !mesh.peers.is_empty()),
            ] {
                if given {
                    reader.conflict(key, "needs mesh.key_file, the key of the mesh, as well");
                }
            }
        }
        let mut seen = HashSet::new();
        if let Some(twice) = mesh.peers.iter().find(|peer| !seen.insert(peer.public_key)) {
            let why = format!("has the public key of {} twice: each relay has its own", twice.host);
            reader.conflict(keys::MESH_PEERS, why);
        }
        mesh
    }
}

/// Another relay of the region: words in a text, the first of them its host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MeshPeer {
    /// A DNS name or an IP address: what is looked up and dialled, and what its certificate is for.
    pub host: String,
    /// The TCP port, 443 unless given.
    pub port: u16,
    /// The node key of the relay. A relay with another node key is not sent the key of the mesh.
    pub public_key: NodePublic,
    /// The pin of the relay's certificate; `None` if roots vouch for it.
    pub pin: Option<CertificatePin>,
    /// Where to connect to instead of looking the host up.
    pub address: Option<SocketAddr>,
    /// Whether a proxy in front of the relay ends TLS, so that logins cannot be bound to their connections.
    pub proxied: bool,
}

/// The word for [`MeshPeer::proxied`].
const PROXIED: &str = "proxied";

impl Value for MeshPeer {
    fn allowed() -> String {
        "a relay such as \"relay-2.example.com:443 nodekey:…\", with a pin \"sha256-raw:…\", an IP address and port to dial, and \
         the word proxied, where they are needed"
            .into()
    }

    fn from_text(text: &str) -> Option<Self> {
        let mut words = text.split_ascii_whitespace();
        let (host, port) = host_and_port(words.next()?)?;
        let public_key = words.next()?.parse().ok().filter(NodePublic::is_contributory)?;
        let (mut pin, mut address, mut proxied) = (None, None, false);
        for word in words {
            if word == PROXIED && !proxied {
                proxied = true;
            } else if word.starts_with(CertificatePin::PREFIX) && pin.is_none() {
                pin = Some(word.parse().ok()?);
            } else if address.is_none() {
                address = Some(word.parse().ok()?);
            } else {
                return None;
            }
        }
        Some(Self { host, port, public_key, pin, address, proxied })
    }

    fn to_toml(&self) -> String {
        let mut text = format!("{}:{} {}", bracketed(&self.host), self.port, self.public_key);
        if let Some(pin) = self.pin {
            text.push_str(&format!(" {pin}"));
        }
        if let Some(address) = self.address {
            text.push_str(&format!(" {address}"));
        }
        if self.proxied {
            text.push_str(&format!(" {PROXIED}"));
        }
        quote(&text)
    }
}

impl Element for MeshPeer {
    fn allowed_list() -> String {
        "a list of relays such as [\"relay-2.example.com:443 nodekey:…\"], each with a pin \"sha256-raw:…\", an IP address and port \
         to dial, and the word proxied, where they are needed"
            .into()
    }
}

/// A DNS name or an IP address, and its port, 443 unless the text has one.
pub fn host_and_port(text: &str) -> Option<(String, u16)> {
    let (host, port) = match text.rsplit_once(':') {
        // Several colons without brackets belong to an IPv6 address.
        Some((host, port)) if !host.contains(':') || host.ends_with(']') => (host, port.parse().ok()?),
        _ => (text, ports::HTTPS),
    };
    let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    (is_hostname(host) && port != 0).then(|| (host.into(), port))
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "nodekey:358072d6365880d1aeea329adf9121383851ed21a28e3b75e965d0d2cd166254";

    fn peer(rest: &str) -> Option<MeshPeer> {
        MeshPeer::from_text(&rest.replace("KEY", KEY))
    }

    #[test]
    fn a_peer_is_a_host_a_key_and_what_else_is_needed() {
        let whole = peer("relay-2.example.com KEY").expect("a peer");
        assert_eq!(
            (&*whole.host, whole.port, whole.pin, whole.address),
            ("relay-2.example.com", 443, None, None)
        );
        let pin = CertificatePin::from_sha256([0xab; 32]);
        for (text, host, port) in [
            ("192.0.2.1:8443 KEY", "192.0.2.1", 8443),
            ("[2001:db8::1]:8443 KEY", "2001:db8::1", 8443),
            ("2001:db8::1 KEY", "2001:db8::1", 443),
            ("[2001:db8::1] KEY", "2001:db8::1", 443),
        ] {
            let bare = peer(text).expect(text);
            assert_eq!((&*bare.host, bare.port), (host, port), "{text}");
            let pinned = peer(&format!("{text} {pin} 10.0.0.1:443")).expect(text);
            assert_eq!(pinned.pin, Some(pin));
            assert_eq!(pinned, peer(&format!("{text} 10.0.0.1:443 {pin}")).expect("either order"));
            assert!(!pinned.proxied);
            let proxied = peer(&format!("{text} proxied {pin} 10.0.0.1:443")).expect("any order");
            assert_eq!(proxied, MeshPeer { proxied: true, ..pinned.clone() });
            for peer in [pinned, proxied] {
                let printed = peer.to_toml();
                assert_eq!(MeshPeer::from_text(printed.trim_matches('"')), Some(peer), "{printed}");
            }
        }
    }

    #[test]
    fn what_is_no_peer_is_refused() {
        for text in [
            "",
            "relay-2.example.com",
            "KEY",
            "relay-2.example.com nodekey:00",
            "relay-2.example.com:0 KEY",
            "relay-2.example.com:x KEY",
            "https://relay-2.example.com KEY",
            "relay-2.example.com KEY sha256-raw:00",
            "relay-2.example.com KEY 10.0.0.1",
            "relay-2.example.com KEY 10.0.0.1:1 10.0.0.1:2",
            "relay-2.example.com KEY KEY",
            "relay-2.example.com KEY proxied proxied",
            "relay-2.example.com KEY Proxied",
            "proxied relay-2.example.com KEY",
            &format!("relay-2.example.com nodekey:{}", "0".repeat(64)),
        ] {
            assert_eq!(peer(text), None, "{text}");
        }
    }
}
