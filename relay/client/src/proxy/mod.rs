//! HTTP proxies: a relay is dialled through a tunnel that a proxy makes by the method CONNECT (RFC 9110 section 9.3.6).

mod environment;
mod tunnel;

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rustls::pki_types::ServerName;
use towpath_wire::host::bracketed;
use towpath_wire::ports;

pub use environment::ProxyVariableError;
pub use tunnel::ProxyFailure;

pub(crate) use tunnel::open;

/// An HTTP proxy that makes tunnels.
///
/// The proxy sees the name of the relay and the traffic to it, which is in TLS unless the relay is dialled without.
#[derive(Clone, PartialEq, Eq)]
pub struct Proxy {
    host: String,
    port: u16,
    /// The value of the header Proxy-Authorization: a secret.
    authorization: Option<String>,
}

/// Why a text is no usable proxy. The text may hold a password, and so it is not repeated.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProxyUrlError {
    /// Not of the form.
    #[error(
        "it is not the URL of a proxy such as http://proxy.example.com:3128 or http://user:password@192.0.2.1:3128; in a \
         user and a password / is written %2F, @ is written %40, and % is written %25"
    )]
    NotUrl,
    /// A proxy that is reached in another way than by plain HTTP, as by `https` or `socks5`.
    #[error(
        "proxies with {0}:// are not supported: name the port where the proxy speaks HTTP without TLS, with http://"
    )]
    Scheme(String),
}

impl Proxy {
    /// Reads the URL of a proxy: `http://user:password@host:port`. The port is 80 where there is none; `http://` and the
    /// credentials may be left out. Credentials are for the scheme Basic; bytes of them may be written as `%40`. A path
    /// means nothing.
    ///
    /// # Errors
    ///
    /// See [`ProxyUrlError`].
    pub fn from_url(url: &str) -> Result<Self, ProxyUrlError> {
        let rest = match url.split_once("://") {
            None => url,
            Some((scheme, rest)) if scheme.eq_ignore_ascii_case("http") => rest,
            Some((scheme, _)) if is_scheme(scheme) => {
                return Err(ProxyUrlError::Scheme(scheme.to_ascii_lowercase()));
            }
            Some(_) => return Err(ProxyUrlError::NotUrl),
        };
        let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
        let (credentials, address) = match authority.rsplit_once('@') {
            Some((credentials, address)) => (Some(credentials), address),
            None => (None, authority),
        };
        let (host, port) = host_and_port(address).ok_or(ProxyUrlError::NotUrl)?;
        let authorization = credentials.map(basic).transpose()?;
        Ok(Self { host: host.to_owned(), port, authorization })
    }
}

impl fmt::Display for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", bracketed(&self.host), self.port)
    }
}

impl fmt::Debug for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { host, port, authorization } = self;
        f.debug_struct("Proxy")
            .field("host", host)
            .field("port", port)
            .field("credentials", &authorization.is_some())
            .finish()
    }
}

/// Whether `text` is the scheme of a URL (RFC 3986 section 3.1).
fn is_scheme(text: &str) -> bool {
    text.starts_with(|first: char| first.is_ascii_alphabetic())
        && text.chars().all(|each| each.is_ascii_alphanumeric() || "+-.".contains(each))
}

/// The host without brackets, and the port.
fn host_and_port(address: &str) -> Option<(&str, u16)> {
    let (host, port) = match address.strip_prefix('[') {
        Some(rest) => {
            let (host, port) = rest.split_once(']')?;
            host.parse::<std::net::Ipv6Addr>().ok()?;
            (host, port.strip_prefix(':').or_else(|| port.is_empty().then_some(""))?)
        }
        None => address.split_once(':').unwrap_or((address, "")),
    };
    ServerName::try_from(host).ok()?;
    let port = match port {
        "" => ports::HTTP,
        port if port.bytes().all(|byte| byte.is_ascii_digit()) => {
            port.parse().ok().filter(|&port| port > 0)?
        }
        _ => return None,
    };
    Some((host, port))
}

/// The value of Proxy-Authorization (RFC 7617) for the credentials of a URL.
fn basic(credentials: &str) -> Result<String, ProxyUrlError> {
    let mut plain = percent_decoded(credentials).ok_or(ProxyUrlError::NotUrl)?;
    if !credentials.contains(':') {
        plain.push(b':');
    }
    Ok(format!("Basic {}", STANDARD.encode(plain)))
}

/// Bytes of which some may be written as `%` and two hexadecimal digits (RFC 3986 section 2.1).
fn percent_decoded(text: &str) -> Option<Vec<u8>> {
    let mut decoded = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        if byte != b'%' {
            decoded.push(byte);
            continue;
        }
        let mut digit = || char::from(bytes.next()?).to_digit(16);
        decoded.push((digit()? << 4 | digit()?) as u8);
    }
    Some(decoded)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn proxy(host: &str, port: u16, credentials: Option<&str>) -> Proxy {
        let authorization = credentials.map(|plain| format!("Basic {}", STANDARD.encode(plain)));
        Proxy { host: host.into(), port, authorization }
    }

    #[test]
    fn urls_are_read_as_go_and_curl_read_them() {
        for (url, expected) in [
            ("http://proxy.example.com:3128", proxy("proxy.example.com", 3128, None)),
            ("HTTP://proxy_1:3128/", proxy("proxy_1", 3128, None)),
            ("proxy.example.com", proxy("proxy.example.com", 80, None)),
            ("192.0.2.1:8080", proxy("192.0.2.1", 8080, None)),
            ("http://[2001:db8::1]", proxy("2001:db8::1", 80, None)),
            ("http://[2001:db8::1]:3128/path?query", proxy("2001:db8::1", 3128, None)),
            ("http://u:p@proxy.example.com:3128", proxy("proxy.example.com", 3128, Some("u:p"))),
            ("u@proxy.example.com", proxy("proxy.example.com", 80, Some("u:"))),
            ("http://u%40x:p%2f%3A%25@h:1", proxy("h", 1, Some("u@x:p/:%"))),
            ("http://u:p@ss@h:1", proxy("h", 1, Some("u:p@ss"))),
        ] {
            assert_eq!(Proxy::from_url(url), Ok(expected), "{url}");
        }
    }

    #[test]
    fn what_is_no_usable_proxy_is_refused_without_repeating_it() {
        for url in [
            "",
            "http://",
            "http://:3128",
            "http://h:0",
            "http://h:65536",
            "http://h:+80",
            "http://h:80:80",
            "http://2001:db8::1",
            "http://[2001:db8::1]x",
            "http://[h]:1",
            "http://[2001:db8::1",
            "http://a b:1",
            "http://h\r\nX: y:1",
            "http://u:secret%4@h:1",
            "http://u:secret%zz@h:1",
            "http://u:se/cret@h:1",
            "u:secret://h",
        ] {
            let error = Proxy::from_url(url).expect_err(url);
            assert_eq!(error, ProxyUrlError::NotUrl, "{url}");
        }
        for (url, scheme) in [("https://u:secret@h:1", "https"), ("SOCKS5h://h:1", "socks5h")] {
            let error = Proxy::from_url(url).expect_err(url);
            assert_eq!(error, ProxyUrlError::Scheme(scheme.into()));
            assert!(!error.to_string().contains("secret"));
        }
    }

    #[test]
    fn credentials_are_never_shown() {
        let proxy = Proxy::from_url("http://user:secret@proxy.example.com:3128").expect("a proxy");
        let secret = proxy.authorization.clone().expect("credentials");
        for shown in [format!("{proxy}"), format!("{proxy:?}"), format!("{proxy:#?}")] {
            assert!(
                !shown.contains("secret") && !shown.contains("user") && !shown.contains(&secret[6..]),
                "{shown}"
            );
        }
        assert_eq!(proxy.to_string(), "proxy.example.com:3128");
        assert_eq!(Proxy::from_url("http://[::1]:1").expect("a proxy").to_string(), "[::1]:1");
    }
}
