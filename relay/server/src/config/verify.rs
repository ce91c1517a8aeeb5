//! The settings of the backends of admission: a verify URL, and the local tailscaled.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use hyper::http::Uri;
use towpath_service::config::{ConfigReader, Value, quote};
use towpath_wire::host::bracketed;
use towpath_wire::ports;

use super::keys;
use super::rules::{is_hostname, path};

/// The port of HTTP without TLS.
const HTTP_PORT: u16 = 80;

/// The program that answers at a URL whether a key may use the relay.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VerifySettings {
    /// Where the program is.
    pub url: BackendUrl,
    /// The roots that vouch for its certificate; `None` for the system's.
    pub ca_file: Option<PathBuf>,
    /// The file with a token that proves the relay to the program.
    pub token_file: Option<PathBuf>,
    /// How long an answer may take, from the question on, 100 ms to 5 s.
    pub timeout: Duration,
}

impl VerifySettings {
    pub(super) fn read(reader: &mut ConfigReader<'_>) -> Option<Self> {
        let (millis, secs) = (Duration::from_millis, Duration::from_secs);
        let url: Option<BackendUrl> = reader.key(keys::VERIFY_URL).optional();
        let ca_file = path(reader, keys::VERIFY_CA_FILE).optional();
        let token_file = path(reader, keys::VERIFY_TOKEN_FILE).optional();
        let timeout = reader.key(keys::VERIFY_TIMEOUT).within(millis(100)..=secs(5)).or(secs(5));
        if reader.given(keys::VERIFY_URL).is_none() {
            for key in [keys::VERIFY_CA_FILE, keys::VERIFY_TOKEN_FILE] {
                if reader.given(key).is_some() {
                    reader.conflict(key, "is for verify.url, which is not set");
                }
            }
        } else if ca_file.is_some() && url.as_ref().is_some_and(|url| !url.https) {
            reader.conflict(keys::VERIFY_CA_FILE, "is for a verify.url with https");
        }
        Some(Self { url: url?, ca_file, token_file, timeout })
    }
}

/// The local tailscaled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TailscaledSettings {
    /// Its socket.
    pub socket: PathBuf,
}

impl TailscaledSettings {
    pub(super) fn read(reader: &mut ConfigReader<'_>) -> Option<Self> {
        path(reader, keys::TAILSCALED_SOCKET).optional().map(|socket| Self { socket })
    }
}

/// A URL with `https`, or with `http` and a host that is this machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BackendUrl {
    https: bool,
    host: String,
    port: u16,
    path_and_query: String,
}

impl BackendUrl {
    /// Whether the URL is one with TLS.
    #[must_use]
    pub const fn is_https(&self) -> bool {
        self.https
    }

    /// The DNS name or IP address, without brackets.
    #[must_use]
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The port, 443 or 80 unless the URL has one.
    #[must_use]
    pub const fn port(&self) -> u16 {
        self.port
    }

    /// The path, `/` at least, and the query, if there is one.
    #[must_use]
    pub fn path_and_query(&self) -> &str {
        &self.path_and_query
    }

    /// Host and port as the header `Host` has them.
    #[must_use]
    pub fn authority(&self) -> String {
        let host = bracketed(&self.host);
        let default = if self.https { ports::HTTPS } else { HTTP_PORT };
        if self.port == default { host.into() } else { format!("{host}:{}", self.port) }
    }

    /// The URL as the log may have it: a query may hold a secret.
    #[must_use]
    pub fn without_query(&self) -> String {
        let path = self.path_and_query.split('?').next().unwrap_or_default();
        format!("{}{path}", self.origin())
    }

    fn origin(&self) -> String {
        let scheme = if self.https { "https" } else { "http" };
        format!("{scheme}://{}", self.authority())
    }
}

impl Value for BackendUrl {
    fn allowed() -> String {
        "a URL such as \"https://headscale.example.com/verify\", with http only for this machine as in \
         \"http://127.0.0.1:8080/verify\", without a user and password (verify.token_file is the place of a secret)"
            .into()
    }

    fn from_text(text: &str) -> Option<Self> {
        // The parser drops a fragment, and one is never sent.
        let uri: Uri = Some(text).filter(|text| !text.contains('#'))?.parse().ok()?;
        let https = match uri.scheme_str()? {
            "https" => true,
            "http" => false,
            _ => return None,
        };
        let host = uri.host()?;
        // A user name stands in front of the host, and a port that is none behind it is not noticed by the parser.
        let port = match uri.authority()?.as_str().strip_prefix(host)?.strip_prefix(':') {
            Some(port) => port.parse().ok().filter(|port| *port != 0)?,
            None if uri.authority()?.as_str() != host => return None,
            None if https => ports::HTTPS,
            None => HTTP_PORT,
        };
        let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
        if !is_hostname(host) || !(https || is_this_machine(host)) {
            return None;
        }
        let path_and_query = uri.path_and_query().map_or("/", |path| path.as_str());
        Some(Self { https, host: host.into(), port, path_and_query: path_and_query.into() })
    }

    fn to_toml(&self) -> String {
        quote(&format!("{}{}", self.origin(), self.path_and_query))
    }
}

/// Whether a host leads to this machine without anything on the way that could read along.
fn is_this_machine(host: &str) -> bool {
    host.eq_ignore_ascii_case("localhost")
        || host.parse::<IpAddr>().is_ok_and(|address| address.to_canonical().is_loopback())
}

#[cfg(test)]
mod tests {
    use towpath_service::config::Sources;

    use super::*;

    #[test]
    fn a_backend_is_reached_by_https_or_on_this_machine() {
        for (text, host, port, path, authority) in [
            ("https://hs.example.com/verify", "hs.example.com", 443, "/verify", "hs.example.com"),
            ("https://hs.example.com", "hs.example.com", 443, "/", "hs.example.com"),
            ("https://hs.example.com:443/verify", "hs.example.com", 443, "/verify", "hs.example.com"),
            ("https://192.0.2.7:8443/a/b?c=d", "192.0.2.7", 8443, "/a/b?c=d", "192.0.2.7:8443"),
            ("https://[2001:db8::7]/verify", "2001:db8::7", 443, "/verify", "[2001:db8::7]"),
            ("http://127.0.0.1:8080/verify", "127.0.0.1", 8080, "/verify", "127.0.0.1:8080"),
            ("http://[::1]/verify", "::1", 80, "/verify", "[::1]"),
            ("http://localhost:8080/verify", "localhost", 8080, "/verify", "localhost:8080"),
        ] {
            let url = BackendUrl::from_text(text).expect(text);
            assert_eq!((url.host(), url.port(), url.path_and_query()), (host, port, path), "{text}");
            assert_eq!(url.authority(), authority, "{text}");
            let printed = url.to_toml();
            assert_eq!(BackendUrl::from_text(printed.trim_matches('"')), Some(url), "{printed}");
        }
        let url = BackendUrl::from_text("https://hs.example.com/verify?secret=1").expect("a URL");
        assert_eq!(url.without_query(), "https://hs.example.com/verify");
    }

    #[test]
    fn what_is_no_backend_is_refused() {
        for text in [
            "",
            "hs.example.com/verify",
            "/verify",
            "ftp://hs.example.com/verify",
            "http://hs.example.com/verify",
            "http://192.0.2.7/verify",
            "http://localhost.example.com/verify",
            "http://127.0.0.1@192.0.2.7/verify",
            "https://user:password@hs.example.com/verify",
            "https://hs.example.com:/verify",
            "https://hs.example.com:0/verify",
            "https://hs.example.com:99999/verify",
            "https://hs.example.com:x/verify",
            "https://hs.example.com/verify#a",
            "https://hs.example.com/a b",
            "https://",
        ] {
            assert_eq!(BackendUrl::from_text(text), None, "{text}");
        }
    }

    #[test]
    fn settings_of_a_url_that_is_not_there_are_reported() {
        let problems = |text: &str| {
            let sources = Sources::new("UNSET").text("test.toml", text);
            let mut reader = ConfigReader::new(&sources);
            VerifySettings::read(&mut reader);
            reader.finish().map(|_| ()).map_err(|problems| problems.to_string())
        };
        for setting in ["ca_file = \"/ca\"", "token_file = \"/token\""] {
            let told = problems(&format!("verify.{setting}")).expect_err("no URL");
            assert!(told.contains("is for verify.url, which is not set"), "{told}");
            assert_eq!(problems(&format!("verify.url = \"https://a.example/\"\nverify.{setting}")), Ok(()));
        }
        // What print-config prints of a relay without a URL is read again.
        assert_eq!(problems("verify.timeout = \"1s\""), Ok(()));
        let told =
            problems("verify.url = \"http://127.0.0.1/\"\nverify.ca_file = \"/ca\"").expect_err("no TLS");
        assert!(told.contains("is for a verify.url with https"), "{told}");
    }
}
