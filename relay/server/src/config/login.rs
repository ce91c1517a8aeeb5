//! Limits on connections: how long each step of a login may take, and how many connections there may be.

use std::time::Duration;

use towpath_relay_proto::account::connections::ConnectionBounds;
use towpath_relay_proto::account::places::PlaceBounds;
use towpath_service::config::ConfigReader;
use towpath_wire::derp::app_name::AppName;

use super::keys;

/// Open files that are not connections of clients: listeners, threads, links of the mesh, the admin listener, and connections
/// that are about to be closed.
const OTHER_FILES: usize = 256;
/// Open files of one worker.
const FILES_OF_A_WORKER: usize = 2;
/// Connections of one host where there is room for twice as many.
const CONNECTIONS_PER_HOST: usize = 4096;
/// More than a machine can hold; it keeps sums within their type.
const MAX: usize = 100_000_000;

/// Limits on connections, most of them until the login.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoginLimits {
    /// From accept to the first byte, 100 ms to 60 s.
    pub first_byte_timeout: Duration,
    /// From the first byte to the end of the TLS handshake, 1 s to 60 s.
    pub handshake_timeout: Duration,
    /// From the upgrade request to the end of the login, 1 s to 60 s.
    pub login_timeout: Duration,
    /// How long an HTTP connection may send no request, 1 s to 10 min.
    pub idle_http_timeout: Duration,
    /// Connections that have not logged in, all together, 1 to 1 000 000.
    pub max_pending: usize,
    /// Pending connections from one IPv4 address or one /64 of IPv6, 1 to 1 000 000.
    pub max_pending_per_host: usize,
    /// Connections, all together. `None`: as many as there may be open files for.
    pub max_connections: Option<usize>,
    /// Connections from one IPv4 address or one /64 of IPv6 that few keys share. `None`: 4096, or half of all.
    pub max_connections_per_host: Option<usize>,
    /// Connections of one node key, 1 to 1,000.
    pub max_connections_per_key: usize,
    /// The app names of clients that are refused.
    pub refuse_app_names: Vec<String>,
}

const APP_NAMES: &str = "a list of names such as [\"some-app\"], each 1 to 32 printable ASCII characters";

/// Whether a client can state this name.
fn is_app_name(name: &str) -> bool {
    AppName::from_bytes(name.as_bytes()).is_some_and(|name| !name.is_empty())
}

impl LoginLimits {
    pub(super) fn read(reader: &mut ConfigReader<'_>) -> Self {
        let (millis, secs) = (Duration::from_millis, Duration::from_secs);
        Self {
            // A round trip, and the time in which a lost packet is sent again.
            first_byte_timeout: reader
                .key(keys::FIRST_BYTE_TIMEOUT)
                .within(millis(100)..=secs(60))
                .or(secs(2)),
            handshake_timeout: reader.key(keys::HANDSHAKE_TIMEOUT).within(secs(1)..=secs(60)).or(secs(10)),
            login_timeout: reader.key(keys::LOGIN_TIMEOUT).within(secs(1)..=secs(60)).or(secs(10)),
            idle_http_timeout: reader.key(keys::IDLE_HTTP_TIMEOUT).within(secs(1)..=secs(600)).or(secs(30)),
            max_pending: reader.key(keys::MAX_PENDING).within(1..=1_000_000).or(4096),
            // Many clients may share an address and come back together, but a login holds its place for a few round
            // trips only.
            max_pending_per_host: reader.key(keys::MAX_PENDING_PER_HOST).within(1..=1_000_000).or(512),
            max_connections: reader.key(keys::MAX_CONNECTIONS).within(1..=MAX).optional(),
            max_connections_per_host: reader.key(keys::MAX_CONNECTIONS_PER_HOST).within(1..=MAX).optional(),
            // A client has one, and a second while it comes back before its old connection is noticed to be dead.
            max_connections_per_key: reader.key(keys::MAX_CONNECTIONS_PER_KEY).within(1..=1_000).or(8),
            refuse_app_names: reader
                .key(keys::REFUSE_APP_NAMES)
                .matching(APP_NAMES, |names: &Vec<String>| names.iter().all(|name| is_app_name(name)))
                .or(Vec::new()),
        }
    }

    /// The bounds on connections that have not logged in.
    #[must_use]
    pub const fn place_bounds(&self) -> PlaceBounds {
        PlaceBounds { all: self.max_pending, per_host: self.max_pending_per_host }
    }

    /// The bounds on connections in a process that may open `files` files, and has this many workers.
    #[must_use]
    pub fn connection_bounds(&self, files: Option<u64>, workers: usize) -> ConnectionBounds {
        let all = self.max_connections.unwrap_or_else(|| room_for_connections(files, workers));
        let per_host =
            self.max_connections_per_host.unwrap_or_else(|| CONNECTIONS_PER_HOST.min(all.div_ceil(2)));
        ConnectionBounds { all, per_host, per_key: self.max_connections_per_key }
    }
}

/// How many connections a process has room for that may open `files` files.
#[must_use]
pub fn room_for_connections(files: Option<u64>, workers: usize) -> usize {
    let files = files.and_then(|files| usize::try_from(files).ok()).unwrap_or(MAX).min(MAX);
    // A very low limit is shared out, because a relay without connections is of no use.
    files.saturating_sub(OTHER_FILES + FILES_OF_A_WORKER * workers).max(files / 2).max(1)
}

#[cfg(test)]
mod tests {
    use towpath_service::config::Sources;

    use super::*;

    fn bounds(settings: &str, files: Option<u64>) -> (usize, usize) {
        let sources = Sources::new("UNSET").text("test.toml", settings);
        let bounds = LoginLimits::read(&mut ConfigReader::new(&sources)).connection_bounds(files, 2);
        (bounds.all, bounds.per_host)
    }

    #[test]
    fn there_is_room_for_other_files_than_connections() {
        for (settings, files, expected) in [
            ("", Some(524_288), (524_028, 4096)),
            ("", Some(4096), (3836, 1918)),
            ("", Some(300), (150, 75)),
            ("", Some(0), (1, 1)),
            ("", None, (MAX - 260, 4096)),
            ("login.max_connections = 100", Some(4096), (100, 50)),
            ("login.max_connections_per_host = 7", Some(4096), (3836, 7)),
            ("login.max_connections_per_host = 3000", Some(4096), (3836, 3000)),
        ] {
            assert_eq!(bounds(settings, files), expected, "{settings} with {files:?}");
        }
    }
}
