//! Every setting of the relay.

use towpath_service::config::SettingKey;

/// The name in the certificate and in DERP maps.
pub const HOSTNAME: SettingKey = SettingKey::new("hostname").with_flag("--hostname");
/// The TCP address for TLS.
pub const LISTEN: SettingKey = SettingKey::new("listen").with_flag("--listen");
/// The certificate chain, a PEM file.
pub const CERT: SettingKey = SettingKey::new("cert").with_flag("--cert");
/// The certificate's private key, a PEM file.
pub const KEY: SettingKey = SettingKey::new("key").with_flag("--key");
/// The file that holds the relay's node key.
pub const KEY_FILE: SettingKey = SettingKey::new("key_file").with_flag("--key-file");
/// The relay's node key itself. No flag: command lines are visible to every user of the machine.
pub const PRIVATE_KEY: SettingKey = SettingKey::new("private_key").secret();
/// Who opens and seals TLS records.
pub const TLS_RECORDS: SettingKey = SettingKey::new("tls.records");
/// Threads of the data plane.
pub const WORKERS: SettingKey = SettingKey::new("workers");
/// How long a worker looks for more before it sleeps.
pub const BUSY_POLL: SettingKey = SettingKey::new("busy_poll");
/// How long packets gather on a busy worker.
pub const GATHER: SettingKey = SettingKey::new("gather");
/// The interval of keep-alive frames.
pub const KEEPALIVE: SettingKey = SettingKey::new("keepalive");
/// How long a shutdown may take.
pub const SHUTDOWN_TIMEOUT: SettingKey = SettingKey::new("shutdown_timeout");
/// The DERP region's number.
pub const REGION_ID: SettingKey = SettingKey::new("region.id");
/// The DERP region's short name.
pub const REGION_CODE: SettingKey = SettingKey::new("region.code");
/// The DERP region's name for people.
pub const REGION_NAME: SettingKey = SettingKey::new("region.name");
/// The UDP addresses for STUN.
pub const STUN_LISTEN: SettingKey = SettingKey::new("stun.listen").with_flag("--stun-listen");
/// The second UDP addresses for STUN.
pub const STUN_ALTERNATE: SettingKey = SettingKey::new("stun.alternate");
/// Which clients STUN answers.
pub const STUN_CLIENTS: SettingKey = SettingKey::new("stun.clients");
/// STUN answers a second for each source.
pub const STUN_RATE: SettingKey = SettingKey::new("stun.rate");
/// STUN answers of RFC 5780 a second for each source.
pub const STUN_DISCOVERY_RATE: SettingKey = SettingKey::new("stun.discovery_rate");
/// The TCP address for metrics and health.
pub const ADMIN_LISTEN: SettingKey = SettingKey::new("admin.listen");
/// The TCP address for DERP and HTTP without TLS.
pub const HTTP_LISTEN: SettingKey = SettingKey::new("http.listen");
/// The proxies in front of it.
pub const HTTP_PROXIES: SettingKey = SettingKey::new("http.proxies");
/// The TCP address that leads to HTTPS.
pub const HTTP_REDIRECT_LISTEN: SettingKey = SettingKey::new("http.redirect_listen");
/// What `/` shows.
pub const HTTP_HOME: SettingKey = SettingKey::new("http.home");
/// The names that `/bootstrap-dns` tells everybody.
pub const BOOTSTRAP_DNS_NAMES: SettingKey = SettingKey::new("bootstrap_dns.names");
/// The names that it tells who asks for them.
pub const BOOTSTRAP_DNS_UNPUBLISHED_NAMES: SettingKey = SettingKey::new("bootstrap_dns.unpublished_names");
/// The limit of a TLS handshake.
pub const HANDSHAKE_TIMEOUT: SettingKey = SettingKey::new("login.handshake_timeout");
/// The limit from the HTTP upgrade to the end of the login.
pub const LOGIN_TIMEOUT: SettingKey = SettingKey::new("login.login_timeout");
/// The limit of an HTTP connection without a request.
pub const IDLE_HTTP_TIMEOUT: SettingKey = SettingKey::new("login.idle_http_timeout");
/// Connections that have not logged in yet.
pub const MAX_PENDING: SettingKey = SettingKey::new("login.max_pending");
/// Those of one host.
pub const MAX_PENDING_PER_HOST: SettingKey = SettingKey::new("login.max_pending_per_host");
/// Bytes waiting for one peer.
pub const OUTBOX_BYTES: SettingKey = SettingKey::new("outbox.bytes");
/// Age of what waits for one peer.
pub const OUTBOX_AGE: SettingKey = SettingKey::new("outbox.age");
/// Bytes of disco messages that may overtake.
pub const OUTBOX_DISCO_BYTES: SettingKey = SettingKey::new("outbox.disco_bytes");
/// How long a peer may refuse to take anything.
pub const WRITE_TIMEOUT: SettingKey = SettingKey::new("outbox.write_timeout");
/// The file that holds the key of the mesh.
pub const MESH_KEY_FILE: SettingKey = SettingKey::new("mesh.key_file");
/// The file that holds a second key that is taken for the mesh's.
pub const MESH_SECOND_KEY_FILE: SettingKey = SettingKey::new("mesh.second_key_file");
/// The file that holds the key of probers.
pub const MESH_PROBER_KEY_FILE: SettingKey = SettingKey::new("mesh.prober_key_file");
/// The addresses from which a mesh key is taken.
pub const MESH_SOURCES: SettingKey = SettingKey::new("mesh.sources");
/// The other relays of the region.
pub const MESH_PEERS: SettingKey = SettingKey::new("mesh.peers");
/// The roots that vouch for their certificates.
pub const MESH_CA_FILE: SettingKey = SettingKey::new("mesh.ca_file");
/// The form of log lines.
pub const LOG_FORMAT: SettingKey = SettingKey::new("log.format");
/// The least severe events that are logged.
pub const LOG_LEVEL: SettingKey = SettingKey::new("log.level");
