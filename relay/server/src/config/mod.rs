//! The relay's configuration: its settings, their bounds, and which of them exclude or need each other.
//!
//! The server enforces every key; none is only read. Names, defaults and bounds stand here once, in
//! the order in which `print-config` shows them.

use std::net::{Ipv4Addr, SocketAddr};
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::time::Duration;

use towpath_relay_forward::PollPolicy;
use towpath_service::config::{ByteSize, Choice, ConfigReader, Problems, Resolved, Sources, Value};
use towpath_service::memory::available_memory;
use towpath_tls::RecordLayer;
use towpath_wire::host::Prefixes;
use towpath_wire::map::{OWN_REGION_IDS, REGION_ID_MAX};
use towpath_wire::ports;

mod admin;
mod admission;
mod families;
mod http;
pub mod keys;
mod log;
mod login;
mod mesh;
mod node_key;
mod rules;
mod stun;
mod variables;
mod verify;

pub use self::admin::AdminSettings;
pub use self::admission::{AdmissionSettings, Confirm};
pub use self::http::{BootstrapDns, Home, HttpSettings};
pub use self::log::Log;
pub use self::login::{LoginLimits, room_for_connections};
pub use self::mesh::{Mesh, MeshPeer, host_and_port};
pub use self::node_key::KeySource;
use self::rules::{DEV_ALLOWED, LABEL_MAX, NAME_MAX, is_hostname, is_loopback, path};
pub use self::stun::StunOnly;
pub use self::variables::{CONFIG_VARIABLE, VARIABLE_PREFIX};
pub use self::verify::{BackendUrl, TailscaledSettings, VerifySettings};

/// The configuration of a relay. Every value is within its bounds.
#[derive(Clone, Debug)]
pub struct Config {
    /// The DNS name or IP address that clients dial and that the certificate is for.
    pub hostname: String,
    /// The TCP address for TLS: DERP and HTTP; `None` for none, where a proxy ends TLS.
    pub listen: Option<SocketAddr>,
    /// The certificate to serve. `None`: a self-signed one, kept beside the key file as `self-signed.crt` and
    /// `self-signed.key`, or in memory if the node key is ephemeral too.
    pub cert: Option<CertFiles>,
    /// Where the relay's node key comes from.
    pub node_key: KeySource,
    /// Which clients may use the relay.
    pub admission: AdmissionSettings,
    /// The local tailscaled that admits the nodes of its tailnet; `None` for none.
    pub tailscaled: Option<TailscaledSettings>,
    /// The program at a URL that admits keys; `None` for none.
    pub verify: Option<VerifySettings>,
    /// The region that the relay's DERP map describes.
    pub region: Region,
    /// STUN; its list of addresses to listen on is empty for none.
    pub stun: towpath_stun::StunSettings,
    /// The ways in for an operator.
    pub admin: AdminSettings,
    /// The proxies whose connections begin with a header of the PROXY protocol.
    pub proxy_protocol_sources: Prefixes,
    /// HTTP without TLS, and the pages.
    pub http: HttpSettings,
    /// The names that `/bootstrap-dns` resolves.
    pub bootstrap_dns: BootstrapDns,
    /// What opens and seals TLS 1.3 records after the handshake: the relay's own record layer, which costs no
    /// allocation for each record and less memory for each connection, or rustls. rustls does TLS 1.2 and every
    /// handshake in any case.
    pub records: RecordLayer,
    /// Whether a `cert` that is not for `hostname` is refused.
    pub check_name: bool,
    /// Threads of the data plane, 1 to 256.
    pub workers: NonZeroUsize,
    /// What a worker does while it has nothing to do.
    pub poll: PollPolicy,
    /// Limits on connections, most of them until the login.
    pub login: LoginLimits,
    /// Limits on what waits for a peer.
    pub outbox: OutboxLimits,
    /// Bytes of packets that wait and of frames that are unfinished, over all connections, 16 MiB to 1 TiB.
    pub max_memory: usize,
    /// The interval of keep-alive frames, 5 s to 90 s; the first comes up to 5 s late. Stock clients leave a relay that is silent for 120 s.
    pub keepalive: Duration,
    /// How long a shutdown may take, up to a minute; zero ends at once.
    pub shutdown_timeout: Duration,
    /// The other relays of the region, and which connections are accepted as theirs.
    pub mesh: Mesh,
    /// What is logged and how.
    pub log: Log,
    /// Whether this is development mode on one machine (`--dev`): listeners on loopback only, throw-away secrets.
    pub dev: bool,
}

/// [`RecordLayer`] as a setting.
#[derive(Clone, Copy, PartialEq)]
struct RecordsSetting(RecordLayer);

impl Choice for RecordsSetting {
    const ALL: &'static [(&'static str, Self)] =
        &[("own", Self(RecordLayer::Own)), ("rustls", Self(RecordLayer::Rustls))];
}

/// A certificate chain and its key, PEM files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertFiles {
    /// The chain, the server's own certificate first.
    pub cert: PathBuf,
    /// The private key.
    pub key: PathBuf,
}

/// The region of a DERP map that the relay belongs to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Region {
    /// The number, 1 to 2^53−1. 900 to 999 are set aside for an operator's own relays.
    pub id: u64,
    /// The short name, shown by `tailscale netcheck`.
    pub code: String,
    /// The name for people.
    pub name: String,
}

/// Limits on what waits for one peer. What exceeds them is dropped, the oldest first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutboxLimits {
    /// Bytes of frames, 66 KiB to 64 MiB: never less than the largest frame.
    pub bytes: usize,
    /// Time that a frame may wait, 10 ms to 60 s.
    pub age: Duration,
    /// Bytes of disco messages that may wait ahead of everything else, 2 KiB to 1 MiB; apart from `bytes`.
    pub disco_bytes: usize,
    /// Time for which a peer's socket may accept nothing before the connection is closed, 100 ms to 60 s.
    pub write_timeout: Duration,
}

/// What `--dev` listens on: derper's port for the same purpose.
const DEV_PORT: u16 = 3340;

/// The kernel adds its timer slack, 50 µs: see docs/performance.md for what other values cost and bring.
const GATHER: Duration = Duration::from_micros(100);

/// The most workers. More threads than this only contend, on any machine.
const WORKERS_MAX: NonZeroUsize = NonZeroUsize::new(256).expect("256 is not 0");

impl Config {
    /// Reads the whole configuration. `dev` chooses the defaults of development mode and confines it to loopback.
    ///
    /// # Errors
    ///
    /// Every problem of the configuration, all at once.
    pub fn read(sources: &Sources, dev: bool) -> Result<(Self, Resolved), Problems> {
        let mut reader = ConfigReader::new(sources);
        let config = Self::read_from(&mut reader, dev);
        Ok((config, reader.finish()?))
    }

    /// Reads the values alone; what is wrong with them is noted in `reader`.
    pub(crate) fn read_from(reader: &mut ConfigReader<'_>, dev: bool) -> Self {
        reader.accept_variable(CONFIG_VARIABLE);
        // Field by field in the order of evaluation, which is the order of `print-config`.
        let (hostname, listen, cert) = (hostname(reader, dev), listen(reader, dev), cert(reader));
        let node_key = KeySource::read(reader, dev);
        let config = Self {
            hostname,
            listen,
            cert,
            admission: AdmissionSettings::read(reader, &node_key, dev),
            tailscaled: TailscaledSettings::read(reader),
            verify: VerifySettings::read(reader),
            node_key,
            workers: reader.key(keys::WORKERS).within(NonZeroUsize::MIN..=WORKERS_MAX).or(default_workers()),
            poll: poll_policy(reader),
            keepalive: keepalive(reader),
            shutdown_timeout: reader.key(keys::SHUTDOWN_TIMEOUT).within(secs(0)..=secs(60)).or(secs(5)),
            region: Region::read(reader),
            stun: stun::read(reader, dev),
            admin: AdminSettings::read(reader, dev),
            proxy_protocol_sources: http::proxies(reader, keys::PROXY_PROTOCOL_SOURCES),
            http: HttpSettings::read(reader, dev),
            bootstrap_dns: BootstrapDns::read(reader),
            records: reader.key(keys::TLS_RECORDS).or(RecordsSetting(RecordLayer::Own)).0,
            check_name: reader.key(keys::TLS_CHECK_NAME).or(true),
            login: LoginLimits::read(reader),
            outbox: OutboxLimits::read(reader),
            max_memory: max_memory(reader),
            mesh: Mesh::read(reader),
            log: Log::read(reader),
            dev,
        };
        check_listeners(reader, &config);
        config
    }
}

fn hostname(reader: &mut ConfigReader<'_>, dev: bool) -> String {
    const ALLOWED: &str = "a DNS name such as \"relay.example.com\" or an IP address";
    let lookup = reader.key(keys::HOSTNAME).matching(ALLOWED, |name: &String| is_hostname(name));
    if dev { lookup.or("localhost".into()) } else { lookup.required() }
}

fn listen(reader: &mut ConfigReader<'_>, dev: bool) -> Option<SocketAddr> {
    if dev {
        let default = SocketAddr::new(Ipv4Addr::LOCALHOST.into(), DEV_PORT);
        Some(reader.key(keys::LISTEN).matching(DEV_ALLOWED, |address| is_loopback(*address)).or(default))
    } else {
        let default = families::any(reader, keys::LISTEN, ports::HTTPS);
        reader.key(keys::LISTEN).or(Some(default))
    }
}

/// Without TLS there is another way in, and no certificate.
fn check_listeners(reader: &mut ConfigReader<'_>, config: &Config) {
    if config.listen.is_some() {
        return;
    }
    if config.http.listen.is_none() {
        let why =
            "is off, and so is http.listen: a relay needs one of them, http.listen where a proxy ends TLS";
        reader.conflict(keys::LISTEN, why);
    }
    if config.cert.is_some() {
        reader.conflict(keys::CERT, "is for listen, which is off: the proxy has the certificate");
    }
}

/// The default is derper's. Behind a proxy it is less: a proxy that nothing else is told closes a connection on which nothing
/// passes for 60 s (nginx, Apache, load balancers of AWS) or 50 s (HAProxy as Debian sets it up).
fn keepalive(reader: &mut ConfigReader<'_>) -> Duration {
    let is_proxied = http::has_sources(reader)
        || reader.foresee::<Option<SocketAddr>>(keys::HTTP_LISTEN).flatten().is_some();
    let default = secs(if is_proxied { 40 } else { 60 });
    reader.key(keys::KEEPALIVE).within(secs(5)..=secs(90)).or(default)
}

fn cert(reader: &mut ConfigReader<'_>) -> Option<CertFiles> {
    let cert = path(reader, keys::CERT).optional();
    let key = path(reader, keys::KEY).optional();
    match (reader.given(keys::CERT), reader.given(keys::KEY)) {
        (Some(_), None) => reader.conflict(keys::CERT, "needs key, the file with its private key, as well"),
        (None, Some(_)) => reader.conflict(keys::KEY, "needs cert, the file with the certificate, as well"),
        _ => {}
    }
    Some(CertFiles { cert: cert?, key: key? })
}

impl Region {
    fn read(reader: &mut ConfigReader<'_>) -> Self {
        const CODE: &str = "1 to 63 letters, digits, hyphens or underscores";
        const NAME: &str = "1 to 253 characters of printable text";
        Self {
            id: reader.key(keys::REGION_ID).within(1..=REGION_ID_MAX).or(*OWN_REGION_IDS.start()),
            code: reader
                .key(keys::REGION_CODE)
                .matching(CODE, |code: &String| {
                    (1..=LABEL_MAX).contains(&code.len())
                        && code
                            .bytes()
                            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
                })
                .or("towpath".into()),
            name: reader
                .key(keys::REGION_NAME)
                .matching(NAME, |name: &String| {
                    (1..=NAME_MAX).contains(&name.chars().count()) && !name.chars().any(char::is_control)
                })
                .or("Towpath".into()),
        }
    }
}

fn poll_policy(reader: &mut ConfigReader<'_>) -> PollPolicy {
    let millis = Duration::from_millis;
    let busy_poll = reader.key(keys::BUSY_POLL).within(secs(0)..=millis(10)).or(secs(0));
    let default = if busy_poll.is_zero() { GATHER } else { secs(0) };
    let gather = reader.key(keys::GATHER).within(secs(0)..=millis(1)).or(default);
    if !busy_poll.is_zero() && !gather.is_zero() {
        reader.conflict(keys::BUSY_POLL, "excludes gather, for which a worker sleeps: give one of them");
    }
    PollPolicy { busy_poll, gather }
}

impl OutboxLimits {
    fn read(reader: &mut ConfigReader<'_>) -> Self {
        let millis = Duration::from_millis;
        // The largest DERP frame is 64 KiB of payload, a key and a header.
        let sizes = ByteSize::kib(66)..=ByteSize::mib(64);
        let disco_sizes = ByteSize::kib(2)..=ByteSize::mib(1);
        let bytes = reader.key(keys::OUTBOX_BYTES).within(sizes).or(ByteSize::kib(512));
        let age = reader.key(keys::OUTBOX_AGE).within(millis(10)..=secs(60)).or(secs(1));
        let disco_bytes = reader.key(keys::OUTBOX_DISCO_BYTES).within(disco_sizes).or(ByteSize::kib(32));
        if disco_bytes > bytes {
            let why = format!("{} is more than outbox.bytes, {}", disco_bytes.to_toml(), bytes.to_toml());
            reader.conflict(keys::OUTBOX_DISCO_BYTES, why);
        }
        let write_timeout = reader.key(keys::WRITE_TIMEOUT).within(millis(100)..=secs(60)).or(secs(2));
        Self { bytes: bytes.get(), age, disco_bytes: disco_bytes.get(), write_timeout }
    }
}

fn max_memory(reader: &mut ConfigReader<'_>) -> usize {
    let sizes = ByteSize::mib(16)..=ByteSize::mib(1024 * 1024);
    let quarter = ByteSize::bytes(available_memory() / 4).clamp(*sizes.start(), *sizes.end());
    reader.key(keys::MEMORY_MAX).within(sizes).or(quarter).get()
}

fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

fn default_workers() -> NonZeroUsize {
    std::thread::available_parallelism().map_or(NonZeroUsize::MIN, |cores| cores.min(WORKERS_MAX))
}

/// The file in which a self-signed certificate is kept, and its key's, if the node key is kept in `key_file`.
pub fn self_signed_files(key_file: &Path) -> CertFiles {
    CertFiles {
        cert: key_file.with_file_name("self-signed.crt"),
        key: key_file.with_file_name("self-signed.key"),
    }
}

#[cfg(test)]
mod tests;
