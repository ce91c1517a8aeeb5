//! The rule about the name of a node, and what a name is.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use towpath_wire::pin::CertificatePin;

use super::verdict::Verdict;
use crate::MapFormat;
use crate::code::FindingCode;
use crate::document::shorten;
use crate::finding::Finding;
use crate::map::ParsedNode;

pub(super) fn check(format: MapFormat, node: &ParsedNode) -> Verdict {
    let host = &*node.host_name;
    if host.is_empty() {
        return missing(format, node);
    }
    let fault = fault(host)?;
    let message = format!("{} is {:?}: {}", format.spell("HostName"), shorten(host), fault);
    let (is_error, effect) = form_effect(node);
    let finding = match is_error {
        true => Finding::error(FindingCode::HostNameForm, message),
        false => Finding::warning(FindingCode::HostNameForm, message),
    };
    let finding = finding.effect(effect).fix(format!(
        "write the bare DNS name or address; a port goes into {} and {}",
        format.spell("DERPPort"),
        format.spell("STUNPort")
    ));
    Some((finding, "HostName"))
}

/// What clients do with a text that is no name, and whether that ends their attempt to connect.
///
/// `derphttp` dials an address that is given, names `HostName` in TLS, verifies the certificate by it
/// unless `CertName` or `InsecureForTests` say otherwise, and asks for a URL with it.
fn form_effect(node: &ParsedNode) -> (bool, &'static str) {
    if !is_addressed(node) {
        return (true, "clients look all of it up as a name, and find nothing");
    }
    if node.stun_only {
        return (
            false,
            "clients send STUN requests to the address that is given, and find none of the other family",
        );
    }
    let effect = match node.cert_name.is_empty() && !node.insecure_for_tests {
        true => {
            "clients dial the address that is given and expect a certificate for all of that text: none connects"
        }
        // rustls takes no name in a ClientHello that the DNS cannot have.
        false => {
            "clients dial the address that is given, but call the relay by that text in TLS and in the URL: this \
                relay refuses it, others may"
        }
    };
    (true, effect)
}

/// Whether clients know an address without the DNS.
fn is_addressed(node: &ParsedNode) -> bool {
    node.ipv4.parse::<Ipv4Addr>().is_ok() || is_ipv6(&node.ipv6)
}

/// `derphttp` dials the address of each family that has one, and for a family that is left out the name, which is empty:
/// that is the client's own host to Go's dialler. TLS verifies no name then, and `netcheck` has no URL to ask.
fn missing(format: MapFormat, node: &ParsedNode) -> Verdict {
    let message = format!("there is no {}", format.spell("HostName"));
    if !is_addressed(node) {
        // An empty host is this one to Go's dialler.
        let finding = Finding::error(FindingCode::HostNameMissing, message)
            .effect("clients have nothing to dial: they dial themselves")
            .fix("give the relay's DNS name, or its address");
        return Some((finding, "HostName"));
    }
    let mut effects = Vec::new();
    if !node.stun_only {
        effects.push(if node.cert_name.starts_with(CertificatePin::PREFIX) {
            "clients dial the address and judge the certificate by the pin alone".to_owned()
        } else if node.insecure_for_tests {
            "clients dial the address and believe any certificate".to_owned()
        } else if !node.cert_name.is_empty() {
            "clients dial the address and judge the certificate by CertName alone".to_owned()
        } else {
            "clients dial the address and take any certificate that an authority they trust has signed, for \
                whatever name: each owner of one can pretend to be the relay"
                .to_owned()
        });
        let open = [("IPv4", &node.ipv4), ("IPv6", &node.ipv6)].into_iter().find(|(_, text)| text.is_empty());
        if let Some((family, _)) = open {
            effects.push(format!("over {family} they dial themselves"));
        }
        effects.push(
            "they cannot measure the relay over HTTPS, so where UDP is blocked it is the home of those that may \
                ping it at best"
                .to_owned(),
        );
    } else {
        effects.push("clients send STUN requests to the address".to_owned());
    }
    let fix = "give the relay's DNS name or its address, and \"none\" for a family that it does not have";
    let finding = Finding::warning(FindingCode::HostNameMissing, message).effect(effects.join("; ")).fix(fix);
    Some((finding, "HostName"))
}

/// Returns why `host` is neither an address nor a name that the DNS can have.
pub(super) fn fault(host: &str) -> Option<&'static str> {
    if host.parse::<IpAddr>().is_ok() {
        return None;
    }
    if host.contains("://") {
        return Some("it has a scheme");
    }
    if host.contains('/') {
        return Some("it has a path");
    }
    if host.contains('[') || host.contains(':') {
        return Some("it has a port or brackets");
    }
    if host.contains('*') {
        return Some("it has a wildcard");
    }
    if host.chars().any(|c| c.is_whitespace() || c.is_control()) {
        return Some("it has white space");
    }
    if !host.is_ascii() {
        return Some("it is not ASCII; names in other letters have a form that begins with xn--");
    }
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'))
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    let host = host.strip_suffix('.').unwrap_or(host);
    if host.len() > 253 || !host.split('.').all(label) {
        return Some("the DNS has no such names");
    }
    // A name whose last label is a number is a mistyped address.
    let last = host.rsplit('.').next().unwrap_or_default();
    last.bytes().all(|b| b.is_ascii_digit()).then_some("it is neither an address nor a name")
}

/// As Go has it: an IPv4 address in IPv6 form counts, and so does one with a zone.
pub(super) fn is_ipv6(text: &str) -> bool {
    text.split_once('%').map_or(text, |(address, _)| address).parse::<Ipv6Addr>().is_ok()
}
