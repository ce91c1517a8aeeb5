//! The settings of `towpath up`.

use std::path::{Path, PathBuf};

use towpath_service::config::{ConfigReader, Element, Problems, Resolved, SettingKey, Sources, Value, quote};
use towpath_wire::key::NodePublic;

use super::{CONFIG_VARIABLE, EndpointSettings, ServiceSettings, sources};

const KEY_FILE: SettingKey = SettingKey::new("key_file");
const PEERS: SettingKey = SettingKey::new("peers");

/// The settings of a running peer.
#[derive(Debug)]
pub(crate) struct PeerSettings {
    /// The file of the node key, in the format of derper's; made if it is missing.
    pub(crate) key_file: PathBuf,
    pub(crate) peers: Vec<PeerKey>,
    pub(crate) endpoint: EndpointSettings,
    pub(crate) service: ServiceSettings,
}

/// The node key of a peer as a setting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PeerKey(pub(crate) NodePublic);

impl Value for PeerKey {
    fn allowed() -> String {
        "a node key: nodekey: and 64 hexadecimal digits".into()
    }

    fn from_text(text: &str) -> Option<Self> {
        text.parse().ok().map(Self)
    }

    fn to_toml(&self) -> String {
        quote(&self.0.to_string())
    }
}

impl Element for PeerKey {
    fn allowed_list() -> String {
        "a list of node keys, each nodekey: and 64 hexadecimal digits".into()
    }
}

impl PeerSettings {
    /// Reads all settings.
    pub(crate) fn read(file: Option<&Path>) -> Result<(Self, Resolved), Problems> {
        Self::read_sources(&sources(file))
    }

    fn read_sources(sources: &Sources) -> Result<(Self, Resolved), Problems> {
        let mut reader = ConfigReader::new(sources);
        reader.accept_variable(CONFIG_VARIABLE);
        let settings = Self {
            key_file: reader.key(KEY_FILE).or("/var/lib/towpath/peer.key".into()),
            peers: reader.key(PEERS).or(Vec::new()),
            endpoint: EndpointSettings::look_up(&mut reader),
            service: ServiceSettings::look_up(&mut reader),
        };
        if settings.peers.is_empty() && reader.is_sound(PEERS) {
            reader.warn("peers is empty: this peer talks to no other, and only the relays know it");
        }
        Ok((settings, reader.finish()?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<(PeerSettings, Resolved), Problems> {
        PeerSettings::read_sources(&Sources::new("UNSET").text("peer.toml", text))
    }

    #[test]
    fn every_mistake_is_reported_at_once() {
        let text =
            "peers = [\"nodekey:12\"]\nport = 70000\nhome = 0\nadmin.listen = \"0.0.0.0:9091\"\nprot = 1\n";
        let problems = read(text).expect_err("much is wrong").to_string();
        for part in [
            "peer.toml:1: peers",
            "peer.toml:2: port",
            "peer.toml:3: home",
            "peer.toml:4: admin.listen",
            "a loopback address",
            "peer.toml:5: prot",
            "did you mean port?",
            "relay_map",
        ] {
            assert!(problems.contains(part), "no `{part}` in {problems}");
        }
    }

    #[test]
    fn a_file_with_a_map_alone_is_enough_and_says_what_it_lacks() {
        let (settings, resolved) = read("relay_map = \"map.json\"").expect("it is right");
        assert_eq!(
            (settings.endpoint.port, settings.endpoint.home, settings.endpoint.port_mapping),
            (0, None, true)
        );
        assert!(resolved.warnings()[0].contains("peers is empty"), "{:?}", resolved.warnings());
    }
}
