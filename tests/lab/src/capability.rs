//! What a laboratory needs of the machine, each tried for real.

use std::error::Error;
use std::io;

use towpath_sim::Class;

use crate::conntrack;
use crate::error::LabError;
use crate::namespace::Namespace;
use crate::nat::Nat;
use crate::site::Site;
use crate::tools::{has_ipv6, ip};
use crate::wire::Carrier;

/// Something that a laboratory needs, and why the machine lacks it.
#[derive(Clone, Debug)]
pub struct Capability {
    /// What it is.
    pub name: String,
    /// Why it is not there. `None` if it is.
    pub lack: Option<String>,
}

/// Tries everything that a laboratory needs, in a namespace that is then gone.
#[must_use]
pub fn capabilities() -> Vec<Capability> {
    let of = |name: &str, tried: Result<(), LabError>| Capability {
        name: name.to_owned(),
        lack: tried.err().map(|error| chain(&error)),
    };
    let namespace = match Namespace::new() {
        Ok(namespace) => namespace,
        Err(error) => return vec![of("network namespaces (root)", Err(error))],
    };
    let mut found = vec![
        of("network namespaces (root)", Ok(())),
        of("bridges", ip(&namespace, "link add name lan type bridge\n")),
        of("veth", ip(&namespace, "link add name one type veth peer name other\n")),
        of("IPv6", ipv6(&namespace)),
        of("ctnetlink", conntrack::flush(&namespace)),
        of("nsenter and setpriv", run_command(&namespace)),
    ];
    match Carrier::start(0) {
        Ok(carrier) => {
            let site = Site(0);
            found.push(of("TUN", carrier.wire().attach(&namespace, "tun0", site).map(|_| ())));
            found.extend((1..).zip(Class::ALL).map(|(number, class)| {
                let built = Nat::build(carrier.wire(), class, site, number);
                of(&format!("nftables for NATs of class {class}"), built.map(|_| ()))
            }));
        }
        Err(error) => found.push(of("TUN", Err(error))),
    }
    found
}

/// The first thing that a laboratory needs and the machine lacks, with what the machine says. A test that gets one is skipped,
/// and says so.
#[must_use]
pub fn lack() -> Option<String> {
    let lack = |capability: Capability| Some(format!("{}: {}", capability.name, capability.lack?));
    capabilities().into_iter().find_map(lack)
}

fn ipv6(namespace: &Namespace) -> Result<(), LabError> {
    if has_ipv6(namespace) {
        return Ok(());
    }
    Err(LabError::of("use IPv6")(io::ErrorKind::Unsupported.into()))
}

fn run_command(namespace: &Namespace) -> Result<(), LabError> {
    let status = namespace.command("true").status().map_err(LabError::of("run nsenter"))?;
    if status.success() {
        return Ok(());
    }
    Err(LabError::of("run a command in a namespace")(io::Error::other(status.to_string())))
}

/// An error with its causes.
fn chain(error: &LabError) -> String {
    let cause = error.source().map(|cause| format!(": {cause}"));
    format!("{error}{}", cause.unwrap_or_default())
}
