//! Settings of HTTP: the plain listener and its proxies, the listener that redirects to HTTPS, and the pages.

use std::net::SocketAddr;

use hyper::header::HeaderValue;
use hyper::http::Uri;
use towpath_service::config::{ConfigReader, IpNet, SettingKey, Value};
use towpath_wire::host::Prefixes;

use super::keys;
use super::rules::{DEV_ALLOWED, is_hostname, is_loopback};

/// Settings of HTTP without TLS, and of the pages on every listener.
#[derive(Clone, Debug, Default)]
pub struct HttpSettings {
    /// The TCP address for DERP and HTTP without TLS; `None` for none. Loopback, unless proxies are named.
    pub listen: Option<SocketAddr>,
    /// The addresses of the proxies in front of `listen`. If there are any, no other client may connect to it.
    pub proxies: Prefixes,
    /// The TCP address that redirects to HTTPS and answers captive-portal challenges; `None` for none.
    pub redirect_listen: Option<SocketAddr>,
    /// What `/` shows.
    pub home: Home,
}

/// What `/` shows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Home {
    /// A page that says what this is.
    #[default]
    Page,
    /// Nothing.
    Blank,
    /// A redirect to this URL.
    Redirect(HeaderValue),
}

impl Value for Home {
    fn allowed() -> String {
        "\"page\", \"blank\" or a URL such as \"https://example.com/\"".into()
    }

    fn from_text(text: &str) -> Option<Self> {
        match text {
            "page" => return Some(Self::Page),
            "blank" => return Some(Self::Blank),
            _ => {}
        }
        let uri: Uri = text.parse().ok()?;
        let is_web = matches!(uri.scheme_str(), Some("http" | "https")) && uri.authority().is_some();
        HeaderValue::from_str(text).ok().filter(|_| is_web).map(Self::Redirect)
    }

    fn to_toml(&self) -> String {
        let text = match self {
            Self::Page => "page",
            Self::Blank => "blank",
            Self::Redirect(url) => url.to_str().unwrap_or_default(),
        };
        text.to_owned().to_toml()
    }
}

impl HttpSettings {
    pub(super) fn read(reader: &mut ConfigReader<'_>, dev: bool) -> Self {
        let http = Self {
            listen: listener(reader, keys::HTTP_LISTEN, dev),
            proxies: proxies(reader, keys::HTTP_PROXIES),
            redirect_listen: listener(reader, keys::HTTP_REDIRECT_LISTEN, dev),
            home: reader.key(keys::HTTP_HOME).or(Home::Page),
        };
        match http.listen {
            Some(address) if http.proxies.is_empty() && !has_sources(reader) && !is_loopback(address) => reader.conflict(
                keys::HTTP_LISTEN,
                "is not a loopback address, and http.proxies and proxy_protocol.sources are empty: name the proxies \
                 there, or listen on loopback, because a login without TLS can be read and repeated",
            ),
            None if !http.proxies.is_empty() => {
                reader.conflict(keys::HTTP_PROXIES, "is for http.listen, which is off");
            }
            _ => {}
        }
        http
    }
}

/// Addresses that are believed about their clients, which therefore are never all addresses.
pub(super) fn proxies(reader: &mut ConfigReader<'_>, key: SettingKey) -> Prefixes {
    const ALLOWED: &str = "a list of IP addresses or prefixes such as [\"192.0.2.7\", \"2001:db8::/64\"], none of them all \
                           addresses";
    let are_some = |prefixes: &Vec<IpNet>| prefixes.iter().all(|prefix| prefix.prefix_len() > 0);
    reader.key(key).matching(ALLOWED, are_some).or(Vec::new()).into()
}

/// Whether there are proxies that send a header of the PROXY protocol.
pub(super) fn has_sources(reader: &ConfigReader<'_>) -> bool {
    let sources = reader.foresee::<Vec<IpNet>>(keys::PROXY_PROTOCOL_SOURCES);
    sources.is_some_and(|sources| !sources.is_empty())
}

fn listener(reader: &mut ConfigReader<'_>, key: SettingKey, dev: bool) -> Option<SocketAddr> {
    let lookup = reader.key(key);
    if dev {
        lookup.matching(DEV_ALLOWED, |address: &Option<SocketAddr>| address.is_none_or(is_loopback)).or(None)
    } else {
        lookup.or(None)
    }
}

/// The names that `/bootstrap-dns` resolves.
#[derive(Clone, Debug, Default)]
pub struct BootstrapDns {
    /// Names whose addresses every client is told.
    pub names: Vec<String>,
    /// Names whose addresses a client is told only if it asks for one of them by name.
    pub unpublished_names: Vec<String>,
}

impl BootstrapDns {
    pub(super) fn read(reader: &mut ConfigReader<'_>) -> Self {
        let mut names = |key| {
            const ALLOWED: &str = "a list of DNS names such as [\"login.example.com\"]";
            let are_names = |names: &Vec<String>| names.iter().all(|name| is_hostname(name));
            reader.key(key).matching(ALLOWED, are_names).or(Vec::new())
        };
        Self {
            names: names(keys::BOOTSTRAP_DNS_NAMES),
            unpublished_names: names(keys::BOOTSTRAP_DNS_UNPUBLISHED_NAMES),
        }
    }

    /// Whether there is nothing to resolve.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.names.is_empty() && self.unpublished_names.is_empty()
    }
}
