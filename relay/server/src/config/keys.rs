//! Every setting of the relay.

use towpath_service::config::Key;

/// The name in the certificate and in DERP maps.
pub const HOSTNAME: Key = Key::new("hostname").with_flag("--hostname");
/// The TCP address for TLS.
pub const LISTEN: Key = Key::new("listen").with_flag("--listen");
/// The certificate chain, a PEM file.
pub const CERT: Key = Key::new("cert").with_flag("--cert");
/// The certificate's private key, a PEM file.
pub const KEY: Key = Key::new("key").with_flag("--key");
/// The file that holds the relay's node key.
pub const KEY_FILE: Key = Key::new("key_file").with_flag("--key-file");
/// The relay's node key itself. No flag: command lines are visible to every user of the machine.
pub const PRIVATE_KEY: Key = Key::new("private_key").secret();
/// Who opens and seals TLS records.
pub const TLS_RECORDS: Key = Key::new("tls.records");
/// Threads of the data plane.
pub const WORKERS: Key = Key::new("workers");
/// How long a worker looks for more before it sleeps.
pub const BUSY_POLL: Key = Key::new("busy_poll");
/// How long packets gather on a busy worker.
pub const GATHER: Key = Key::new("gather");
/// The interval of keep-alive frames.
pub const KEEPALIVE: Key = Key::new("keepalive");
/// How long a shutdown may take.
pub const SHUTDOWN_TIMEOUT: Key = Key::new("shutdown_timeout");
/// The DERP region's number.
pub const REGION_ID: Key = Key::new("region.id");
/// The DERP region's short name.
pub const REGION_CODE: Key = Key::new("region.code");
/// The DERP region's name for people.
pub const REGION_NAME: Key = Key::new("region.name");
/// The UDP addresses for STUN.
pub const STUN_LISTEN: Key = Key::new("stun.listen").with_flag("--stun-listen");
/// The second UDP addresses for STUN.
pub const STUN_ALTERNATE: Key = Key::new("stun.alternate");
/// Which clients STUN answers.
pub const STUN_CLIENTS: Key = Key::new("stun.clients");
/// STUN answers a second for each source.
pub const STUN_RATE: Key = Key::new("stun.rate");
/// STUN answers of RFC 5780 a second for each source.
pub const STUN_DISCOVERY_RATE: Key = Key::new("stun.discovery_rate");
/// The TCP address for metrics and health.
pub const ADMIN_LISTEN: Key = Key::new("admin.listen");
/// The TCP address for DERP and HTTP without TLS.
pub const HTTP_LISTEN: Key = Key::new("http.listen");
/// The proxies in front of it.
pub const HTTP_PROXIES: Key = Key::new("http.proxies");
/// The TCP address that leads to HTTPS.
pub const HTTP_REDIRECT_LISTEN: Key = Key::new("http.redirect_listen");
/// What `/` shows.
pub const HTTP_HOME: Key = Key::new("http.home");
/// The names that `/bootstrap-dns` tells everybody.
pub const BOOTSTRAP_DNS_NAMES: Key = Key::new("bootstrap_dns.names");
/// The names that it tells who asks for them.
pub const BOOTSTRAP_DNS_UNPUBLISHED_NAMES: Key = Key::new("bootstrap_dns.unpublished_names");
/// The limit of a TLS handshake.
pub const HANDSHAKE_TIMEOUT: Key = Key::new("login.handshake_timeout");
/// The limit from the HTTP upgrade to the end of the login.
pub const LOGIN_TIMEOUT: Key = Key::new("login.login_timeout");
/// The limit of an HTTP connection without a request.
pub const IDLE_HTTP_TIMEOUT: Key = Key::new("login.idle_http_timeout");
/// Connections that have not logged in yet.
pub const MAX_PENDING: Key = Key::new("login.max_pending");
/// Those of one host.
pub const MAX_PENDING_PER_HOST: Key = Key::new("login.max_pending_per_host");
/// Bytes waiting for one peer.
pub const OUTBOX_BYTES: Key = Key::new("outbox.bytes");
/// Age of what waits for one peer.
pub const OUTBOX_AGE: Key = Key::new("outbox.age");
/// Bytes of disco messages that may overtake.
pub const OUTBOX_DISCO_BYTES: Key = Key::new("outbox.disco_bytes");
/// How long a peer may refuse to take anything.
pub const WRITE_TIMEOUT: Key = Key::new("outbox.write_timeout");
/// The file that holds the key of the mesh.
pub const MESH_KEY_FILE: Key = Key::new("mesh.key_file");
/// The file that holds a second key that is taken for the mesh's.
pub const MESH_SECOND_KEY_FILE: Key = Key::new("mesh.second_key_file");
/// The file that holds the key of probers.
pub const MESH_PROBER_KEY_FILE: Key = Key::new("mesh.prober_key_file");
/// The addresses from which a mesh key is taken.
pub const MESH_SOURCES: Key = Key::new("mesh.sources");
/// The other relays of the region.
pub const MESH_PEERS: Key = Key::new("mesh.peers");
/// The roots that vouch for their certificates.
pub const MESH_CA_FILE: Key = Key::new("mesh.ca_file");
/// The form of log lines.
pub const LOG_FORMAT: Key = Key::new("log.format");
/// The least severe events that are logged.
pub const LOG_LEVEL: Key = Key::new("log.level");
