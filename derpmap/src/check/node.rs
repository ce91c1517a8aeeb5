//! Rules about one node.

use std::net::{IpAddr, Ipv4Addr};

use towpath_wire::pin::CertificatePin;

use super::host_name;
use super::verdict::{Verdict, place};
use crate::MapFormat;
use crate::code::FindingCode;
use crate::document::shorten;
use crate::finding::Finding;
use crate::map::ParsedNode;

const PIN_PREFIX: &str = CertificatePin::PREFIX;
const PIN_DIGITS: usize = CertificatePin::DIGITS;
const NONE: &str = "none";

/// Returns all findings about a node of the region with this number.
pub(super) fn check(format: MapFormat, id: i64, node: &ParsedNode, findings: &mut Vec<Finding>) {
    let place = format!("{}, {}", place(id), node.label);
    // Each rule, and the members that it looks at. Of what could not be read nothing is known, and that has been said.
    let rules: [(&[&str], Verdict); 14] = [
        (&["Name"], name(format, id, node)),
        (&["RegionID"], region(format, id, node)),
        (&["HostName", "IPv4", "IPv6", "CertName", "InsecureForTests"], host_name::check(format, node)),
        (&["IPv4"], address_form(format, "IPv4", &node.ipv4)),
        (&["IPv6"], address_form(format, "IPv6", &node.ipv6)),
        (&["IPv4", "IPv6", "HostName"], no_address(format, node)),
        (&[], private_address(node)),
        (&["CertName"], cert_name(format, node)),
        (&["HostName", "CertName", "InsecureForTests", "STUNOnly"], address_without_pin(format, node)),
        (&["InsecureForTests", "CertName"], insecure(format, node)),
        (&["DERPPort"], derp_port(format, node)),
        (&["STUNPort"], stun_port(format, node)),
        (&["STUNTestIP"], stun_test_ip(format, node)),
        (&["CanPort80", "IPv4"], port_80(format, node)),
    ];
    for (members, verdict) in rules {
        let Some((finding, member)) = verdict else { continue };
        if !node.lines.is_unread(members) {
            findings.push(finding.at(&place, node.lines.of(member)));
        }
    }
}

/// Whether it is known how clients ask the node for STUN, if at all.
pub(super) fn stun_is_known(node: &ParsedNode) -> bool {
    !node.lines.is_unread(&["HostName", "IPv4", "IPv6", "STUNPort"])
}

/// Whether clients send STUN requests to the node at all.
pub(super) fn answers_stun(node: &ParsedNode) -> bool {
    (0..=65535).contains(&node.stun_port) && is_reached(node)
}

/// Whether clients use any address of the node.
pub(super) fn is_reached(node: &ParsedNode) -> bool {
    uses_ipv4(node) || uses_ipv6(node)
}

fn uses_ipv4(node: &ParsedNode) -> bool {
    match (&*node.ipv4, node.host_name.parse()) {
        ("", Ok(IpAddr::V6(_))) => false,
        ("", _) => true,
        (text, _) => text.parse::<Ipv4Addr>().is_ok(),
    }
}

fn uses_ipv6(node: &ParsedNode) -> bool {
    match (&*node.ipv6, node.host_name.parse()) {
        ("", Ok(IpAddr::V4(_))) => false,
        ("", _) => true,
        (text, _) => host_name::is_ipv6(text),
    }
}

fn name(format: MapFormat, id: i64, node: &ParsedNode) -> Verdict {
    node.name.is_empty().then(|| {
        let finding =
            Finding::warning(FindingCode::NodeUnnamed, format!("there is no {}", format.spell("Name")))
                .effect("clients tell nodes apart by their names; with a second one like it STUN goes astray")
                .fix(format!("by custom it is the region's number and a letter: {id}a"));
        (finding, "Name")
    })
}

/// `netcheck` enters what it measures under the node's `RegionID`.
fn region(format: MapFormat, id: i64, node: &ParsedNode) -> Verdict {
    if node.region_id == id {
        return None;
    }
    let name = format.spell("RegionID");
    let (message, effect) = match node.region_id {
        0 => (
            format!("{name} is missing"),
            "what clients measure here counts for region 0, which is none: they never make this region \
                their home"
                .to_owned(),
        ),
        other => (
            format!("{name} is {other}, in region {id}"),
            format!(
                "what clients measure here counts for region {other}: they make that one their home, \
                whether it exists or not"
            ),
        ),
    };
    let finding = Finding::error(FindingCode::NodeRegionMismatch, message)
        .effect(effect)
        .fix(format!("write {name}: {id}"));
    Some((finding, "RegionID"))
}

fn address_form(format: MapFormat, member: &'static str, text: &str) -> Verdict {
    if text.is_empty() || text == NONE {
        return None;
    }
    let v4 = member == "IPv4";
    let right = if v4 { text.parse::<Ipv4Addr>().is_ok() } else { host_name::is_ipv6(text) };
    if right {
        return None;
    }
    let other = if v4 { host_name::is_ipv6(text) } else { text.parse::<Ipv4Addr>().is_ok() };
    let name = format.spell(member);
    let message = match other {
        true => format!("{name} is {:?}, an address of the other family", shorten(text)),
        false => format!("{name} is {:?}, which is no {member} address", shorten(text)),
    };
    let finding = Finding::warning(FindingCode::AddressForm, message)
        .effect(format!(
            "clients take it for \"none\": they do not use {member} for this node, and do not ask the DNS"
        ))
        .fix(format!(
            "write an address without port and brackets, \"none\", or leave {name} out for the DNS"
        ));
    Some((finding, member))
}

fn no_address(format: MapFormat, node: &ParsedNode) -> Verdict {
    if is_reached(node) {
        return None;
    }
    let (v4, v6) = (format.spell("IPv4"), format.spell("IPv6"));
    let finding = Finding::error(FindingCode::NoAddress, "neither IPv4 nor IPv6 may be used")
        .effect("no client connects: \"both IPv4 and IPv6 are explicitly disabled for node\"")
        .fix(format!("give an address, or leave {v4} or {v6} out for the DNS"));
    Some((finding, if node.lines.has("IPv4") { "IPv4" } else { "IPv6" }))
}

fn private_address(node: &ParsedNode) -> Verdict {
    let addresses = [("IPv4", &node.ipv4), ("IPv6", &node.ipv6), ("HostName", &node.host_name)];
    addresses.into_iter().find_map(|(member, text)| {
        let kind = reach(text.parse().ok()?)?;
        let finding = Finding::warning(FindingCode::PrivateAddress, format!("{text} is {kind}"))
            .effect(
                "clients elsewhere reach another host there, or none; they try for 1.5 s at each \
                    connection",
            )
            .fix("give the public address, as clients see it, unless all of them are in that network");
        Some((finding, member))
    })
}

/// From where the address can be reached, if not from everywhere.
fn reach(address: IpAddr) -> Option<&'static str> {
    let v4 = match address.to_canonical() {
        IpAddr::V4(v4) => v4,
        IpAddr::V6(v6) => {
            return match v6.segments()[0] {
                0 if v6.is_loopback() => Some("a loopback address"),
                0 if v6.is_unspecified() => Some("no address of a host"),
                first if first & 0xfe00 == 0xfc00 => Some("a private address"),
                first if first & 0xffc0 == 0xfe80 => Some("a link-local address"),
                _ => None,
            };
        }
    };
    match v4.octets() {
        [127, ..] => Some("a loopback address"),
        [0, ..] => Some("no address of a host"),
        [169, 254, ..] => Some("a link-local address"),
        [100, second, ..] if second & 0xc0 == 64 => {
            Some("an address of a carrier's NAT or of a tailnet, which needs a relay itself")
        }
        _ if v4.is_private() => Some("a private address"),
        _ => None,
    }
}

/// Clients compare the digits as text, and take what does not begin like a pin for a name.
fn cert_name(format: MapFormat, node: &ParsedNode) -> Verdict {
    let text = &*node.cert_name;
    if text.is_empty() {
        return None;
    }
    let name = format.spell("CertName");
    let form = format!(
        "a pin is \"{PIN_PREFIX}\" and {PIN_DIGITS} lower-case hexadecimal digits, the SHA-256 of the \
            certificate's DER form; towpath-relay derpmap prints the one of its certificate"
    );
    let (fault, effect) = match text.strip_prefix(PIN_PREFIX) {
        Some(digits) => {
            let fault = if digits.len() != PIN_DIGITS {
                format!("has {} digits instead of {PIN_DIGITS}", digits.chars().count())
            } else if digits.bytes().any(|b| b.is_ascii_uppercase()) {
                "has capital letters".to_owned()
            } else if digits.bytes().all(|b| b.is_ascii_hexdigit()) {
                return None;
            } else {
                "has digits that are not hexadecimal".to_owned()
            };
            (
                format!("the pin in {name} {fault}"),
                "no certificate matches, so no client connects: \"cert hash does not match expected cert \
                    hash\"",
            )
        }
        None if looks_like_pin(text) => (
            format!("{name} is {:?}, which looks like a pin and is none", shorten(text)),
            "clients expect a certificate for that name, so none connects",
        ),
        None => {
            let fault = host_name::fault(text)?;
            let finding =
                Finding::error(FindingCode::CertNameForm, format!("{name} is {:?}: {fault}", shorten(text)))
                    .effect("no certificate is for that name, so no client connects")
                    .fix("write the DNS name that the certificate is for, or a pin");
            return Some((finding, "CertName"));
        }
    };
    Some((Finding::error(FindingCode::PinForm, fault).effect(effect).fix(form), "CertName"))
}

fn looks_like_pin(text: &str) -> bool {
    let lower = text.trim().to_ascii_lowercase();
    let hex = lower.chars().filter(char::is_ascii_hexdigit).count();
    let digits_only = lower.chars().all(|c| c.is_ascii_hexdigit() || c == ':');
    lower.starts_with("sha256") || lower.starts_with("sha-256") || (digits_only && hex >= 32)
}

fn address_without_pin(format: MapFormat, node: &ParsedNode) -> Verdict {
    let address = node.host_name.parse::<IpAddr>().is_ok();
    (address && node.cert_name.is_empty() && !node.insecure_for_tests && !node.stun_only).then(|| {
        let finding = Finding::warning(
            FindingCode::AddressWithoutPin,
            format!(
                "{} is an address, and {} is not given",
                format.spell("HostName"),
                format.spell("CertName")
            ),
        )
        .effect(
            "clients connect only if an authority that they trust has signed a certificate for the \
            address itself, which few do",
        )
        .fix(format!(
            "pin the certificate: {} \"{PIN_PREFIX}…\", as towpath-relay derpmap prints it",
            format.spell("CertName")
        ));
        (finding, "HostName")
    })
}

/// Nothing in `derphttp` asks whether a test is running.
fn insecure(format: MapFormat, node: &ParsedNode) -> Verdict {
    node.insecure_for_tests.then(|| {
        let name = format.spell("InsecureForTests");
        let effect = match node.cert_name.starts_with(PIN_PREFIX) {
            true => "the pin is still checked, so this does nothing",
            false => {
                "clients believe any certificate: who is on the path can pretend to be the relay, \
                see who talks to whom and drop what they send. What they say stays encrypted"
            }
        };
        let finding = Finding::warning(FindingCode::Insecure, format!("{name} is set"))
            .effect(effect)
            .fix(format!("take it out and pin the certificate with {}", format.spell("CertName")));
        (finding, "InsecureForTests")
    })
}

fn derp_port(format: MapFormat, node: &ParsedNode) -> Verdict {
    if (0..=65535).contains(&node.derp_port) {
        return None;
    }
    let name = format.spell("DERPPort");
    let finding = Finding::error(FindingCode::DerpPortRange, format!("{name} is {}", node.derp_port))
        .effect("there is no such port, so no client connects")
        .fix("use 1 to 65535; 0 or nothing is 443");
    Some((finding, "DERPPort"))
}

fn stun_port(format: MapFormat, node: &ParsedNode) -> Verdict {
    let name = format.spell("STUNPort");
    let finding = match node.stun_port {
        0 if node.lines.has("STUNPort") => {
            Finding::warning(FindingCode::StunPortZero, format!("{name} is 0"))
                .effect("0 is 3478, not off: clients send STUN requests there, and wait for the answers")
                .fix("write -1 for no STUN, or leave it out for 3478")
        }
        -1..=65535 => return None,
        port => Finding::warning(FindingCode::StunPortRange, format!("{name} is {port}"))
            .effect("clients take it for no STUN at all")
            .fix("use 1 to 65535, or -1 for no STUN"),
    };
    Some((finding, "STUNPort"))
}

fn stun_test_ip(format: MapFormat, node: &ParsedNode) -> Verdict {
    (!node.stun_test_ip.is_empty()).then(|| {
        let name = format.spell("STUNTestIP");
        let finding = Finding::warning(FindingCode::StunTestIp, format!("{name} is set"))
            .effect(
                "clients send STUN requests to that address instead of the relay's, and to the one \
                family that it has",
            )
            .fix("take it out; it is for Tailscale's own tests");
        (finding, "STUNTestIP")
    })
}

/// `captivedetection` makes a URL of the text in `IPv4`, whatever it is.
fn port_80(format: MapFormat, node: &ParsedNode) -> Verdict {
    if !node.can_port80 || node.ipv4.parse::<Ipv4Addr>().is_ok() {
        return None;
    }
    let finding = Finding::warning(
        FindingCode::Port80WithoutIpv4,
        format!("{} is set without an address in {}", format.spell("CanPort80"), format.spell("IPv4")),
    )
    .effect("clients look for captive portals at addresses only, so they do not ask this node")
    .fix(format!("give {}, or take it out", format.spell("IPv4")));
    Some((finding, "CanPort80"))
}
