//! Rules that hold for several settings: what is a host name, a loopback address, the path of a file.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use towpath_service::config::{ConfigReader, Lookup, SettingKey};

/// Bytes of the longest DNS name (RFC 1035 section 2.3.4) and label.
pub(super) const NAME_MAX: usize = 253;
pub(super) const LABEL_MAX: usize = 63;

pub(super) const DEV_ALLOWED: &str = "with --dev, only loopback addresses such as \"127.0.0.1:3340\"";

/// A path. One that is a private key in truth would be repeated by the first error about the file.
pub(super) fn path<'r, 'a>(reader: &'r mut ConfigReader<'a>, key: SettingKey) -> Lookup<'r, 'a, PathBuf> {
    reader.key(key).matching("the path of a file", |path: &PathBuf| {
        let text = path.to_string_lossy();
        let is_mesh_key = text.len() == 64 && text.bytes().all(|digit| digit.is_ascii_hexdigit());
        !is_mesh_key && !text.to_ascii_lowercase().contains("privkey:")
    })
}

pub(super) fn is_loopback(address: SocketAddr) -> bool {
    address.ip().to_canonical().is_loopback()
}

/// A DNS name that a certificate can be for (letters, digits, inner hyphens: RFC 1123 section 2.1), or an IP address.
pub(super) fn is_hostname(name: &str) -> bool {
    if name.parse::<IpAddr>().is_ok() {
        return true;
    }
    let is_label = |label: &str| {
        (1..=LABEL_MAX).contains(&label.len())
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    // A last label of digits only is a mistyped IPv4 address.
    let numeric = |label: &str| label.bytes().all(|byte| byte.is_ascii_digit());
    name.len() <= NAME_MAX && name.split('.').all(is_label) && !name.rsplit('.').next().is_some_and(numeric)
}
