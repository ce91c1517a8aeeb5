//! The settings of a running peer: those that `up` and `proxy` share, and those of each. Each is enforced; a name that is none is an error.

mod names;
mod peer;
mod proxy;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use anyhow::Context;
use towpath::{Builder, Endpoint, Region, RelayMap, Token};
use towpath_relay::secret_file;
use towpath_service::config::{ConfigReader, Problems, SettingKey, Sources};
use towpath_service::logs::{LogFormat, LogLevel};

pub(crate) use self::peer::{PeerKey, PeerSettings};
pub(crate) use self::proxy::{ProxyFlags, ProxySettings};

/// What the variables of the environment begin with.
const PREFIX: &str = "TOWPATH_PEER";
/// The variable that names the file.
const CONFIG_VARIABLE: &str = "TOWPATH_PEER_CONFIG";

const RELAY_MAP: SettingKey = SettingKey::new("relay_map").with_flag("--relay-map");
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

/// The settings of an endpoint.
#[derive(Debug)]
pub(crate) struct EndpointSettings {
    /// The file of the relay map.
    relay_map: PathBuf,
    /// The UDP port; 0 for any.
    port: u16,
    /// The region that is the home however far away it is.
    home: Option<u16>,
    /// The file with the token by which relays admit this peer.
    token_file: Option<PathBuf>,
    /// Addresses under which this peer is reached besides those that it finds.
    addresses: Vec<SocketAddr>,
    ignored_interfaces: Vec<String>,
    port_mapping: bool,
    one_probe: bool,
    websocket: bool,
}

/// The settings of a program that runs.
#[derive(Debug)]
pub(crate) struct ServiceSettings {
    /// The address for metrics and health; `None` for none. Of loopback.
    pub(crate) admin_listen: Option<SocketAddr>,
    /// The control socket.
    pub(crate) admin_socket: PathBuf,
    pub(crate) log_format: LogFormat,
    pub(crate) log_level: LogLevel,
}

impl EndpointSettings {
    fn look_up(reader: &mut ConfigReader<'_>) -> Self {
        Self {
            relay_map: reader.key(RELAY_MAP).required(),
            port: reader.key(PORT).or(0),
            home: reader.key(HOME).within(1..=u16::MAX).optional(),
            token_file: reader.key(TOKEN_FILE).optional(),
            addresses: reader.key(ADDRESSES).or(Vec::new()),
            ignored_interfaces: reader.key(IGNORE_INTERFACES).or(Vec::new()),
            port_mapping: reader.key(PORT_MAPPING).or(true),
            one_probe: reader.key(ONE_PROBE).or(false),
            websocket: reader.key(WEBSOCKET).or(false),
        }
    }

    /// An endpoint with these settings, which has no key and no peers yet.
    pub(crate) fn builder(&self, warnings: &mut Vec<String>) -> anyhow::Result<Builder> {
        let mut builder = Endpoint::builder()
            .relay_map(RelayMap::from_file(&self.relay_map)?)
            .port(self.port)
            .port_mapping(self.port_mapping);
        if let Some(path) = &self.token_file {
            let text = secret_file::read_text(path, warnings)?;
            let token = text.trim().parse::<Token>().with_context(|| format!("{}", path.display()))?;
            builder = builder.relay_token(token);
        }
        if let Some(home) = self.home {
            builder = builder.home(Region(home));
        }
        if self.one_probe {
            builder = builder.one_probe();
        }
        if self.websocket {
            builder = builder.websocket();
        }
        for address in &self.addresses {
            builder = builder.address(*address);
        }
        for name in &self.ignored_interfaces {
            builder = builder.ignore_interface(name);
        }
        Ok(builder)
    }
}

impl ServiceSettings {
    fn look_up(reader: &mut ConfigReader<'_>) -> Self {
        Self {
            admin_listen: admin_listen(reader),
            admin_socket: socket(reader),
            log_format: reader.key(LOG_FORMAT).or(LogFormat::Human),
            log_level: reader.key(LOG_LEVEL).or(LogLevel::Info),
        }
    }
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

/// The environment, and the file that is given or that the environment names.
fn sources(file: Option<&Path>) -> Sources {
    let sources = Sources::new(PREFIX).variables(std::env::vars_os());
    let from_variable = || std::env::var_os(CONFIG_VARIABLE).map(PathBuf::from);
    match file.map(Path::to_owned).or_else(from_variable) {
        Some(path) => sources.file(&path),
        None => sources,
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
