//! The proxy that the environment names for a host: `HTTPS_PROXY`, `ALL_PROXY` and `NO_PROXY`.
//!
//! Programs agree on no more than the names. Where they differ, this follows Go, as stock clients do, in what `NO_PROXY`
//! means, and curl in `ALL_PROXY` and in the order of names in lower and in upper case.

use std::ffi::OsString;
use std::net::IpAddr;

use ipnet::IpNet;

use super::{Proxy, ProxyUrlError};

/// The variables that name a proxy: the first that is set counts.
const PROXY: [&str; 4] = ["https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"];
/// The variables that name hosts without one.
const NO_PROXY: [&str; 2] = ["no_proxy", "NO_PROXY"];

/// A variable of the environment that names no usable proxy.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the variable {variable} names no proxy that can be used")]
pub struct ProxyVariableError {
    /// The name of the variable.
    pub variable: &'static str,
    /// What is wrong with its value.
    pub source: ProxyUrlError,
}

impl Proxy {
    /// The proxy that the environment of this process names for a relay; `None` if the relay is to be dialled directly.
    ///
    /// - The proxy is that of `https_proxy`, `HTTPS_PROXY`, `all_proxy` or `ALL_PROXY`: of the first that is not empty.
    ///   [`from_url`](Self::from_url) reads it.
    /// - `no_proxy`, or else `NO_PROXY`, is a list of hosts that are dialled directly, with commas or spaces in between. An
    ///   entry is an IP address, a prefix such as `192.0.2.0/24`, a domain, which means its hosts as well, or
    ///   `.domain` and `*.domain`, which mean its hosts alone. `:port` narrows an entry down to a port. `*` means every host.
    /// - `localhost` and loopback addresses never have a proxy.
    ///
    /// `host` is a name or an address without brackets. A name is not looked up, so that addresses in `NO_PROXY` mean only
    /// relays that are dialled by address.
    ///
    /// # Errors
    ///
    /// See [`ProxyVariableError`].
    pub fn from_environment(host: &str, port: u16) -> Result<Option<Self>, ProxyVariableError> {
        choose(std::env::var_os, host, port)
    }
}

/// The proxy for a host in the environment that `variable` reads.
fn choose(
    variable: impl Fn(&'static str) -> Option<OsString>,
    host: &str,
    port: u16,
) -> Result<Option<Proxy>, ProxyVariableError> {
    let first_set = |names: &[&'static str]| {
        let set = |&name| Some((name, variable(name).filter(|value| !value.is_empty())?));
        names.iter().find_map(set)
    };
    let Some((variable, value)) = first_set(&PROXY) else { return Ok(None) };
    let exempt = first_set(&NO_PROXY).map(|(_, hosts)| hosts.to_string_lossy().into_owned());
    if Target::new(host, port).is_direct(&exempt.unwrap_or_default()) {
        return Ok(None);
    }
    let proxy = value.to_str().ok_or(ProxyUrlError::NotUrl).and_then(|url| Proxy::from_url(url.trim()));
    proxy.map(Some).map_err(|source| ProxyVariableError { variable, source })
}

/// A relay as the rules of `NO_PROXY` see it.
struct Target {
    /// In lower case, without a dot at the end.
    name: String,
    /// The address, if the name is one.
    address: Option<IpAddr>,
    port: u16,
}

impl Target {
    fn new(host: &str, port: u16) -> Self {
        let name = host.trim_end_matches('.').to_ascii_lowercase();
        let address = name.parse().map(|address: IpAddr| address.to_canonical()).ok();
        Self { name, address, port }
    }

    /// Whether the target has no proxy. `exempt` is the value of `NO_PROXY`.
    fn is_direct(&self, exempt: &str) -> bool {
        self.name == "localhost"
            || self.address.is_some_and(|address| address.is_loopback())
            || exempt
                .split([',', ' ', '\t'])
                .filter(|entry| !entry.is_empty())
                .any(|entry| self.matches(entry))
    }

    fn matches(&self, entry: &str) -> bool {
        if entry == "*" {
            return true;
        }
        if let Ok(prefix) = entry.parse::<IpNet>() {
            return self.address.is_some_and(|address| prefix.contains(&address));
        }
        let (host, port) = host_and_port(entry);
        if port.is_some_and(|port| port.parse() != Ok(self.port)) {
            return false;
        }
        if let Ok(address) = host.parse::<IpAddr>() {
            return self.address == Some(address.to_canonical());
        }
        self.address.is_none() && self.is_in_domain(&host.to_ascii_lowercase())
    }

    /// Whether the name is in `domain`, which begins with `.` or `*.` where the domain itself does not count.
    fn is_in_domain(&self, domain: &str) -> bool {
        let domain = domain.trim_end_matches('.');
        let (domain, itself) = match domain.strip_prefix("*.").or_else(|| domain.strip_prefix('.')) {
            Some(domain) => (domain, false),
            None => (domain, true),
        };
        if domain.is_empty() {
            return false;
        }
        match self.name.strip_suffix(domain) {
            Some("") => itself,
            Some(labels) => labels.ends_with('.'),
            None => false,
        }
    }
}

/// The host of an entry without brackets, and its port. An IPv6 address without brackets has none.
fn host_and_port(entry: &str) -> (&str, Option<&str>) {
    if let Some((host, rest)) = entry.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        return (host, rest.strip_prefix(':'));
    }
    match entry.split_once(':') {
        Some((host, port)) if !port.contains(':') => (host, Some(port)),
        _ => (entry, None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The proxy for a host where these variables are set.
    fn chosen(
        variables: &[(&str, &str)],
        host: &str,
        port: u16,
    ) -> Result<Option<String>, ProxyVariableError> {
        let variable = |name: &str| {
            let (_, value) = variables.iter().find(|(each, _)| *each == name)?;
            Some(OsString::from(value))
        };
        choose(variable, host, port).map(|proxy| proxy.map(|proxy| proxy.to_string()))
    }

    fn is_direct(exempt: &str, host: &str, port: u16) -> bool {
        let variables = [("HTTPS_PROXY", "http://proxy:1"), ("NO_PROXY", exempt)];
        chosen(&variables, host, port).expect("a proxy or none").is_none()
    }

    #[test]
    fn the_first_variable_that_is_set_names_the_proxy() {
        let all = [
            ("https_proxy", "http://first:1"),
            ("HTTPS_PROXY", "http://second:2"),
            ("all_proxy", "http://third:3"),
            ("ALL_PROXY", "http://fourth:4"),
        ];
        for (from, expected) in ["first:1", "second:2", "third:3", "fourth:4"].into_iter().enumerate() {
            assert_eq!(chosen(&all[from..], "relay.example.com", 443), Ok(Some(expected.into())));
        }
        let emptied = [("https_proxy", ""), ("HTTPS_PROXY", " http://second:2 ")];
        assert_eq!(chosen(&emptied, "relay.example.com", 443), Ok(Some("second:2".into())));
        for variables in [&[][..], &[("http_proxy", "http://p:1"), ("HTTP_PROXY", "http://p:1")]] {
            assert_eq!(chosen(variables, "relay.example.com", 443), Ok(None));
        }
    }

    #[test]
    fn the_name_in_lower_case_lists_the_hosts_without_a_proxy() {
        let variables = [("HTTPS_PROXY", "http://proxy:1"), ("no_proxy", "a.test"), ("NO_PROXY", "b.test")];
        assert_eq!(chosen(&variables, "a.test", 443), Ok(None));
        assert_eq!(chosen(&variables, "b.test", 443), Ok(Some("proxy:1".into())));
    }

    #[test]
    fn hosts_without_a_proxy_are_those_of_go() {
        for (exempt, host, port, expected) in [
            ("", "relay.example.com", 443, false),
            ("*", "relay.example.com", 443, true),
            ("a.test,*", "192.0.2.1", 443, true),
            // A domain and its hosts, or its hosts alone.
            ("example.com", "example.com", 443, true),
            ("example.com", "relay.example.com", 443, true),
            ("example.com", "badexample.com", 443, false),
            ("example.com", "example.com.test", 443, false),
            (".example.com", "relay.example.com", 443, true),
            (".example.com", "example.com", 443, false),
            ("*.example.com", "a.relay.example.com", 443, true),
            ("*.example.com", "example.com", 443, false),
            ("EXAMPLE.com.", "Relay.Example.COM.", 443, true),
            // Lists.
            ("a.test, example.com", "example.com", 443, true),
            ("a.test example.com", "example.com", 443, true),
            (",, ,.,*.", "example.com", 443, false),
            // Ports.
            ("example.com:443", "relay.example.com", 443, true),
            ("example.com:443", "relay.example.com", 8443, false),
            ("example.com:x", "relay.example.com", 443, false),
            ("192.0.2.1:443", "192.0.2.1", 443, true),
            ("192.0.2.1:443", "192.0.2.1", 80, false),
            ("[2001:db8::1]:443", "2001:db8::1", 443, true),
            ("[2001:db8::1]:443", "2001:db8::1", 80, false),
            // Addresses and prefixes.
            ("192.0.2.1", "192.0.2.1", 443, true),
            ("192.0.2.1", "192.0.2.2", 443, false),
            ("192.0.2.1", "::ffff:192.0.2.1", 443, true),
            ("2001:db8::1", "2001:DB8:0::1", 443, true),
            ("192.0.2.0/24", "192.0.2.77", 443, true),
            ("192.0.2.0/24", "192.0.3.77", 443, false),
            ("2001:db8::/32", "2001:db8:1::1", 443, true),
            ("2.1", "192.0.2.1", 443, false),
            ("192.0.2.0/24", "relay.example.com", 443, false),
        ] {
            assert_eq!(is_direct(exempt, host, port), expected, "NO_PROXY={exempt}, {host}:{port}");
        }
    }

    #[test]
    fn this_machine_never_has_a_proxy() {
        for host in ["localhost", "LocalHost", "127.0.0.1", "127.9.9.9", "::1", "::ffff:127.0.0.1"] {
            assert!(is_direct("", host, 443), "{host}");
        }
        for host in ["localhost.example.com", "notlocalhost", "128.0.0.1", "::2"] {
            assert!(!is_direct("", host, 443), "{host}");
        }
    }

    #[test]
    fn a_bad_value_is_an_error_that_names_its_variable_alone() {
        let variables = [("ALL_PROXY", "socks5://user:secret@h:1080"), ("NO_PROXY", "example.com")];
        let error = chosen(&variables, "relay.test", 443).expect_err("no HTTP proxy");
        assert_eq!(error.variable, "ALL_PROXY");
        assert_eq!(error.to_string(), "the variable ALL_PROXY names no proxy that can be used");
        assert!(!format!("{error:?} {}", error.source).contains("secret"));
        // Where no proxy is needed, a bad one does no harm.
        assert_eq!(chosen(&variables, "relay.example.com", 443), Ok(None));
    }
}
