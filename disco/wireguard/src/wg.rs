//! The commands `wg` of wireguard-tools and `ip` of iproute2, which know every implementation of WireGuard alike: the kernel's, and those
//! in programs, such as wireguard-go.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::process::{Output, Stdio};

use serde::Deserialize;
use tokio::io::AsyncWriteExt;
use tokio::process::Command;
use towpath::{NodePrivate, NodePublic};
use zeroize::Zeroizing;

use crate::quick::{public_from_text, secret_from_text, to_text};

/// Bytes around a packet in the tunnel: IPv6, UDP, and WireGuard's header and tag. Those of IPv4 are fewer.
pub(crate) const OVERHEAD: u32 = 80;

/// Why an interface cannot be asked or changed.
#[derive(Debug, thiserror::Error)]
pub enum WgError {
    /// The command cannot be run.
    #[error("cannot run `{command}`: install {package}")]
    Missing {
        /// The command.
        command: &'static str,
        /// The package that has it.
        package: &'static str,
        /// What the system says.
        source: io::Error,
    },
    /// The command says that it failed.
    #[error("`{command}` failed: {said}")]
    Failed {
        /// The command with its arguments, none of which is a secret.
        command: String,
        /// What it has said.
        said: String,
    },
    /// What the command prints is not of the form that its manual describes.
    #[error("what `{0}` prints is not understood: this needs wireguard-tools 1.0 and iproute2 5 or later")]
    Unknown(&'static str),
}

/// An interface, as `wg show` and `ip` describe it.
#[derive(Debug)]
pub(crate) struct Interface {
    /// The number that the kernel gave it, which an interface that was made anew does not have.
    pub(crate) index: u32,
    pub(crate) secret_key: Option<NodePrivate>,
    /// The UDP port of WireGuard; 0 while the interface is down.
    pub(crate) port: u16,
    /// The mark of WireGuard's own packets.
    pub(crate) mark: Option<u32>,
    /// Bytes.
    pub(crate) mtu: u32,
    pub(crate) peers: BTreeMap<NodePublic, InterfacePeer>,
}

/// A peer of an interface.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct InterfacePeer {
    pub(crate) endpoint: Option<SocketAddr>,
    /// Whether there was a handshake since the peer was made.
    pub(crate) is_known: bool,
    /// As in the dump: what is needed to make the peer anew.
    preshared_key: Option<Zeroizing<String>>,
    allowed: String,
    keepalive: String,
}

/// A link, as `ip -j link show` describes it.
#[derive(Deserialize)]
struct Link {
    ifindex: u32,
    ifname: String,
    mtu: u32,
}

/// A route, as `ip -j route show` describes it.
#[derive(Deserialize)]
struct Route {
    dev: Option<String>,
}

impl Interface {
    /// Looks at an interface; `None` if there is none of this name, or none of WireGuard.
    pub(crate) async fn look(name: &str) -> Result<Option<Self>, WgError> {
        let links: Vec<Link> = from_json("ip", &run("ip", &["-j", "link", "show"], None).await?)?;
        let Some(link) = links.iter().find(|link| link.ifname == name) else { return Ok(None) };
        let dump = match run("wg", &["show", name, "dump"], None).await {
            // It has gone meanwhile, or it is of another kind, or its program has not made it WireGuard's yet.
            Err(WgError::Failed { said, .. })
                if ["No such device", "not supported"].iter().any(|no| said.contains(no)) =>
            {
                return Ok(None);
            }
            done => done?,
        };
        let text = Zeroizing::new(String::from_utf8_lossy(&dump).into_owned());
        Self::parse(&text, link).ok_or(WgError::Unknown("wg show dump")).map(Some)
    }

    /// Reads what `wg show INTERFACE dump` prints: lines of fields with tabs between them.
    fn parse(dump: &str, link: &Link) -> Option<Self> {
        let mut lines = dump.lines().map(|line| line.split('\t').collect::<Vec<_>>());
        let [secret, _, port, mark] = lines.next()?[..] else { return None };
        let secret_key = if secret == "(none)" { None } else { Some(secret_from_text(secret)?) };
        let mark = match mark.strip_prefix("0x") {
            Some(digits) => Some(u32::from_str_radix(digits, 16).ok()?),
            None if mark == "off" => None,
            None => Some(mark.parse().ok()?),
        };
        let mut peers = BTreeMap::new();
        for line in lines {
            let [key, preshared, endpoint, allowed, handshake, _, _, keepalive] = line[..] else {
                return None;
            };
            let peer = InterfacePeer {
                endpoint: endpoint.parse().ok(),
                is_known: handshake != "0",
                preshared_key: (preshared != "(none)").then(|| Zeroizing::new(preshared.to_owned())),
                allowed: if allowed == "(none)" { String::new() } else { allowed.to_owned() },
                keepalive: keepalive.to_owned(),
            };
            peers.insert(public_from_text(key)?, peer);
        }
        let Link { ifindex: index, mtu, .. } = *link;
        Some(Self { index, secret_key, port: port.parse().ok()?, mark, mtu, peers })
    }
}

/// Sets endpoints of peers.
pub(crate) async fn set_endpoints(
    interface: &str,
    endpoints: impl Iterator<Item = (NodePublic, SocketAddr)>,
) -> Result<(), WgError> {
    let mut arguments = vec!["set".to_owned(), interface.to_owned()];
    for (key, endpoint) in endpoints {
        arguments.extend(["peer".into(), to_text(&key), "endpoint".into(), endpoint.to_string()]);
    }
    if arguments.len() > 2 {
        let arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
        run("wg", &arguments, None).await?;
    }
    Ok(())
}

/// Makes a peer anew, with an endpoint or without one, which `wg` cannot take from one that is there. Its session ends, and so does the
/// time for which WireGuard waits after it has begun a handshake.
pub(crate) async fn make_anew(
    interface: &str,
    key: &NodePublic,
    peer: &InterfacePeer,
    endpoint: Option<SocketAddr>,
) -> Result<(), WgError> {
    let (key, endpoint) = (to_text(key), endpoint.map(|endpoint| endpoint.to_string()));
    // Both in one command, so that no packet finds that there is no peer.
    let mut arguments = vec!["set", interface, "peer", &key, "remove", "peer", &key];
    arguments.extend(["allowed-ips", &peer.allowed, "persistent-keepalive", &peer.keepalive]);
    if let Some(endpoint) = &endpoint {
        arguments.extend(["endpoint", endpoint]);
    }
    if peer.preshared_key.is_some() {
        arguments.extend(["preshared-key", "/dev/stdin"]);
    }
    run("wg", &arguments, peer.preshared_key.as_ref().map(|key| key.as_bytes())).await?;
    Ok(())
}

pub(crate) async fn set_mtu(interface: &str, mtu: u32) -> Result<(), WgError> {
    run("ip", &["link", "set", "dev", interface, "mtu", &mtu.to_string()], None).await?;
    Ok(())
}

/// An interface with a default route.
#[derive(Debug)]
pub(crate) struct Uplink {
    pub(crate) name: String,
    /// Bytes.
    pub(crate) mtu: u32,
}

impl Uplink {
    /// Whether the kernel drops what comes in here from an address to which an answer would leave by another interface (RFC 3704,
    /// strict): the larger of two settings counts.
    pub(crate) fn filters_strictly(&self) -> bool {
        let setting = |interface: &str| {
            let path = format!("/proc/sys/net/ipv4/conf/{interface}/rp_filter");
            std::fs::read_to_string(path).ok().and_then(|text| text.trim().parse::<u8>().ok()).unwrap_or(0)
        };
        setting("all").max(setting(&self.name)) == 1
    }
}

/// The interfaces with a default route in the main table, without `besides`.
pub(crate) async fn uplinks(besides: &str) -> Result<Vec<Uplink>, WgError> {
    let links: Vec<Link> = from_json("ip", &run("ip", &["-j", "link", "show"], None).await?)?;
    let mut devices = Vec::new();
    for family in ["-4", "-6"] {
        let said = run("ip", &["-j", family, "route", "show", "default", "table", "main"], None).await;
        // A kernel without the family has no such table.
        let Ok(said) = said else { continue };
        let routes: Vec<Route> = from_json("ip", &said)?;
        devices.extend(routes.into_iter().filter_map(|route| route.dev));
    }
    let used = links.into_iter().filter(|link| link.ifname != besides && devices.contains(&link.ifname));
    Ok(used.map(|Link { ifname: name, mtu, .. }| Uplink { name, mtu }).collect())
}

fn from_json<'a, T: Deserialize<'a>>(command: &'static str, said: &'a [u8]) -> Result<Vec<T>, WgError> {
    // `ip` prints nothing at all where it has no entries.
    let said = said.trim_ascii();
    if said.is_empty() {
        Ok(Vec::new())
    } else {
        serde_json::from_slice(said).map_err(|_| WgError::Unknown(command))
    }
}

/// Runs a command. Returns what it prints.
async fn run(
    command: &'static str,
    arguments: &[&str],
    input: Option<&[u8]>,
) -> Result<Zeroizing<Vec<u8>>, WgError> {
    let package = if command == "wg" { "wireguard-tools" } else { "iproute2" };
    let missing = |source| WgError::Missing { command, package, source };
    let mut child = Command::new(command)
        .args(arguments)
        // Its messages are looked at.
        .env("LC_ALL", "C")
        .env("WG_COLOR_MODE", "never")
        .stdin(if input.is_some() { Stdio::piped() } else { Stdio::null() })
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(missing)?;
    if let Some((mut pipe, input)) = child.stdin.take().zip(input) {
        // A command that does not read it fails, and says why.
        _ = pipe.write_all(input).await;
    }
    let Output { status, stdout, stderr } = child.wait_with_output().await.map_err(missing)?;
    let stdout = Zeroizing::new(stdout);
    if status.success() {
        return Ok(stdout);
    }
    let said = String::from_utf8_lossy(&stderr).trim().replace('\n', "; ");
    Err(WgError::Failed { command: format!("{command} {}", arguments.join(" ")), said })
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECRET: &str = "yAnz5TF+lXXJte14tji3zlMNq+hd2rYUIgJBgB3fBmk=";
    const A: &str = "HIgo9xNzJMWLKASShiTqIybxZ0U3wGLiUeJ1PKf8ykw=";
    const B: &str = "xTIBA5rboUvnH4htodjb6e697QjLERt1NAB4mZqp8Dg=";

    fn link() -> Link {
        Link { ifindex: 7, ifname: "wg0".into(), mtu: 1420 }
    }

    #[test]
    fn a_dump_is_read() {
        let dump = format!(
            "{SECRET}\t{A}\t51820\t0xca6c\n{A}\t{SECRET}\t127.0.0.1:4001\t10.0.0.2/32,fd00::2/128\t0\t148\t92\t25\n\
             {B}\t(none)\t(none)\t(none)\t0\t0\t0\toff\n"
        );
        let interface = Interface::parse(&dump, &link()).expect("it is right");
        assert_eq!((interface.port, interface.mark, interface.mtu), (51_820, Some(0xca6c), 1420));
        let peers: Vec<_> = interface.peers.iter().map(|(key, peer)| (to_text(key), peer)).collect();
        let (_, one) = peers.iter().find(|(key, _)| key == A).expect("a peer");
        assert_eq!(one.endpoint, Some(([127, 0, 0, 1], 4001).into()));
        assert!(!one.is_known);
        assert_eq!((one.preshared_key.is_some(), one.keepalive.as_str()), (true, "25"));
        let (_, other) = peers.iter().find(|(key, _)| key == B).expect("a peer");
        assert_eq!(
            (other.endpoint, other.preshared_key.is_some(), other.allowed.as_str()),
            (None, false, "")
        );
    }

    #[test]
    fn an_interface_that_has_nothing_yet_is_read_and_other_text_is_not() {
        let interface = Interface::parse("(none)\t(none)\t0\toff\n", &link()).expect("it is right");
        assert!(interface.secret_key.is_none() && interface.peers.is_empty() && interface.mark.is_none());
        for wrong in ["", "what", "(none)\t(none)\tport\toff", "(none)\t(none)\t0\toff\nkey\t1\n"] {
            assert!(Interface::parse(wrong, &link()).is_none(), "{wrong}");
        }
    }
}
