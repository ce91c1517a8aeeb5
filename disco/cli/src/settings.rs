//! The settings of a running peer. Each is enforced; a name that is none is an error.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use towpath_service::config::{ConfigReader, Element, Problems, Resolved, SettingKey, Sources, Value, quote};
use towpath_service::logs::{LogFormat, LogLevel};
use towpath_wire::key::NodePublic;

/// What the variables of the environment begin with.
const PREFIX: &str = "TOWPATH_PEER";
/// The variable that names the file.
const CONFIG_VARIABLE: &str = "TOWPATH_PEER_CONFIG";

const KEY_FILE: SettingKey = SettingKey::new("key_file");
const RELAY_MAP: SettingKey = SettingKey::new("relay_map");
const PEERS: SettingKey = SettingKey::new("peers");
const PORT: SettingKey = SettingKey::new("port");
const HOME: SettingKey = SettingKey::new("home");
const TOKEN_FILE: SettingKey = SettingKey::new("token_file");
const ADDRESSES: SettingKey = SettingKey::new("addresses");
const IGNORE_INTERFACES: SettingKey = SettingKey::new("ignore_interfaces");
const PORT_MAPPING: SettingKey = SettingKey::new("port_mapping");
const ONE_PROBE: SettingKey = SettingKey::new("one_probe");
const WEBSOCKET: SettingKey = SettingKey::new("websocket");
const ADMIN_LISTEN: SettingKey = SettingKey::new("admin.listen");
const ADMIN_SOCKET: SettingKey = SettingKey::new("admin.socket");
const LOG_FORMAT: SettingKey = SettingKey::new("log.format");
const LOG_LEVEL: SettingKey = SettingKey::new("log.level");

/// The settings of a running peer.
#[derive(Debug)]
pub(crate) struct Settings {
    /// The file of the node key, in the format of derper's; made if it is missing.
    pub(crate) key_file: PathBuf,
    /// The file of the relay map.
    pub(crate) relay_map: PathBuf,
    pub(crate) peers: Vec<PeerKey>,
    /// The UDP port; 0 for any.
    pub(crate) port: u16,
    /// The region that is the home however far away it is.
    pub(crate) home: Option<u16>,
    /// The file with the token by which relays admit this peer.
    pub(crate) token_file: Option<PathBuf>,
    /// Addresses under which this peer is reached besides those that it finds.
    pub(crate) addresses: Vec<SocketAddr>,
    pub(crate) ignored_interfaces: Vec<String>,
    pub(crate) port_mapping: bool,
    pub(crate) one_probe: bool,
    pub(crate) websocket: bool,
    /// The address for metrics and health; `None` for none. Of loopback.
    pub(crate) admin_listen: Option<SocketAddr>,
    /// The control socket.
    pub(crate) admin_socket: PathBuf,
    pub(crate) log_format: LogFormat,
    pub(crate) log_level: LogLevel,
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

/// The environment, and the file that is given or that the environment names.
fn sources(file: Option<&Path>) -> Sources {
    let sources = Sources::new(PREFIX).variables(std::env::vars_os());
    let from_variable = || std::env::var_os(CONFIG_VARIABLE).map(PathBuf::from);
    match file.map(Path::to_owned).or_else(from_variable) {
        Some(path) => sources.file(&path),
        None => sources,
    }
}

impl Settings {
    /// Reads all settings.
    pub(crate) fn read(file: Option<&Path>) -> Result<(Self, Resolved), Problems> {
        Self::read_sources(&sources(file))
    }

    fn read_sources(sources: &Sources) -> Result<(Self, Resolved), Problems> {
        let mut reader = ConfigReader::new(sources);
        reader.accept_variable(CONFIG_VARIABLE);
        let settings = Self::look_up(&mut reader);
        Ok((settings, reader.finish()?))
    }

    /// Reads where a running peer is asked. What is wrong with other settings is not looked at.
    pub(crate) fn socket_of(file: Option<&Path>) -> Result<PathBuf, Problems> {
        let sources = sources(file);
        let mut reader = ConfigReader::new(&sources);
        reader.accept_variable(CONFIG_VARIABLE);
        let socket = socket(&mut reader);
        reader.finish_part()?;
        Ok(socket)
    }

    fn look_up(reader: &mut ConfigReader<'_>) -> Self {
        const PATH: &str = "the path of a file";
        let settings = Self {
            key_file: reader.key(KEY_FILE).or("/var/lib/towpath/peer.key".into()),
            relay_map: reader
                .key(RELAY_MAP)
                .matching(PATH, |path: &PathBuf| !path.as_os_str().is_empty())
                .required(),
            peers: reader.key(PEERS).or(Vec::new()),
            port: reader.key(PORT).or(0),
            home: reader.key(HOME).within(1..=u16::MAX).optional(),
            token_file: reader.key(TOKEN_FILE).optional(),
            addresses: reader.key(ADDRESSES).or(Vec::new()),
            ignored_interfaces: reader.key(IGNORE_INTERFACES).or(Vec::new()),
            port_mapping: reader.key(PORT_MAPPING).or(true),
            one_probe: reader.key(ONE_PROBE).or(false),
            websocket: reader.key(WEBSOCKET).or(false),
            admin_listen: admin_listen(reader),
            admin_socket: socket(reader),
            log_format: reader.key(LOG_FORMAT).or(LogFormat::Human),
            log_level: reader.key(LOG_LEVEL).or(LogLevel::Info),
        };
        if settings.peers.is_empty() && reader.is_sound(PEERS) {
            reader.warn("peers is empty: this peer talks to no other, and only the relays know it");
        }
        settings
    }
}

fn admin_listen(reader: &mut ConfigReader<'_>) -> Option<SocketAddr> {
    const ALLOWED: &str = "a loopback address and port such as \"127.0.0.1:9091\", or \"\" to turn it off";
    let is_near = |address: &Option<SocketAddr>| address.is_none_or(|address| address.ip().is_loopback());
    reader.key(ADMIN_LISTEN).matching(ALLOWED, is_near).or(None)
}

fn socket(reader: &mut ConfigReader<'_>) -> PathBuf {
    const ALLOWED: &str = "the path of a Unix socket, 107 bytes at most";
    let fits = |path: &PathBuf| (1..=107).contains(&path.as_os_str().len());
    reader.key(ADMIN_SOCKET).matching(ALLOWED, fits).or("/run/towpath/peer.sock".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<(Settings, Resolved), Problems> {
        Settings::read_sources(&Sources::new("UNSET").text("peer.toml", text))
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
        assert_eq!((settings.port, settings.home, settings.port_mapping), (0, None, true));
        assert!(resolved.warnings()[0].contains("peers is empty"), "{:?}", resolved.warnings());
    }
}
