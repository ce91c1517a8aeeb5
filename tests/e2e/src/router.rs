//! miniupnpd on the router of a LAN, which forwards a port on request.

use std::fs::{self, File};
use std::io::Write;
use std::net::IpAddr;
use std::process::{Child, Command, Stdio};
use std::thread::{panicking, sleep};
use std::time::{Duration, Instant};

use tempfile::TempDir;
use towpath_lab::{Namespace, Nat};

/// How long miniupnpd may take until it serves.
const START_LIMIT: Duration = Duration::from_secs(5);
/// How often it is looked for something.
const LOOK: Duration = Duration::from_millis(20);

/// The only protocol that a router answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Speaks {
    /// PCP.
    Pcp,
    /// NAT-PMP.
    NatPmp,
    /// UPnP-IGD.
    Upnp,
}

/// miniupnpd in the namespace of a NAT. It ends with this value.
#[derive(Debug)]
pub struct Router {
    process: Child,
    namespace: Namespace,
    files: TempDir,
}

impl Router {
    /// Whether this machine has miniupnpd. A test that is skipped for it says so.
    #[expect(clippy::print_stdout, reason = "a test that is skipped says so")]
    pub fn is_there() -> bool {
        let is_there = Command::new("miniupnpd").arg("--version").stdout(Stdio::null()).status().is_ok();
        if !is_there {
            println!("skipped: no miniupnpd: install the package miniupnpd-nftables");
        }
        is_there
    }

    /// Starts miniupnpd on a NAT, beside the rules of its class, and returns when it serves.
    pub fn start(nat: &Nat, speaks: Speaks) -> Self {
        let files = TempDir::new().expect("a temporary directory");
        let namespace = nat.namespace().clone();
        load(&namespace, &rules(speaks));
        let path = |name: &str| files.path().join(name);
        let is = |is: bool| if is { "yes" } else { "no" };
        let config = format!(
            "ext_ifname=wan\nlistening_ip=lan\nipv6_disable=yes\nsecure_mode=yes\nenable_upnp={}\nenable_natpmp={}\n\
             uuid=7c2f1f2e-4c37-4b47-9c7e-0d4c3a1c5b10\nallow 1024-65535 10.0.0.0/8 1024-65535\ndeny 0-65535 0.0.0.0/0 0-65535\n",
            is(speaks == Speaks::Upnp),
            is(speaks != Speaks::Upnp),
        );
        fs::write(path("config"), config).expect("a file");
        let log = File::create(path("log")).expect("a file");
        let mut command = namespace.command("miniupnpd");
        command.arg("-d").arg("-f").arg(path("config")).arg("-P").arg(path("pid"));
        command.stdout(log.try_clone().expect("a second handle")).stderr(log);
        let process = command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}"));
        let router = Self { process, namespace, files };
        let serves = if speaks == Speaks::Upnp { "HTTP listening on port" } else { "Listening for NAT-PMP" };
        let ready = until(START_LIMIT, || router.log().contains(serves));
        assert!(ready, "miniupnpd does not serve: {}", router.log());
        router
    }

    /// Waits until the router forwards a port to a host, or none any more.
    pub fn wait_until_it_forwards(&self, host: IpAddr, is_forwarded: bool, longest: Duration) -> bool {
        until(longest, || self.rules().contains(&format!("dnat ip to {host}:")) == is_forwarded)
    }

    /// What the kernel forwards on behalf of miniupnpd.
    pub fn rules(&self) -> String {
        let mut list = self.namespace.command("nft");
        let listed = list.args(["list", "chain", "inet", "filter", "prerouting_miniupnpd"]).output();
        String::from_utf8(listed.expect("nft").stdout).expect("text")
    }

    fn log(&self) -> String {
        fs::read_to_string(self.files.path().join("log")).unwrap_or_default()
    }
}

impl Drop for Router {
    #[expect(clippy::print_stderr, reason = "a failed test shows the router's side")]
    fn drop(&mut self) {
        if panicking() {
            eprintln!("miniupnpd's log:\n{}\n{}", self.log(), self.rules());
        }
        // It may have ended by itself.
        _ = self.process.kill();
        _ = self.process.wait();
    }
}

/// The chains that miniupnpd fills, as its script nft_init.sh makes them; what it forwards passes the filter of the NAT. miniupnpd answers
/// both PCP, whose packets begin with 2, and NAT-PMP, whose packets begin with 0, or none of them.
fn rules(speaks: Speaks) -> String {
    let silenced = match speaks {
        Speaks::Pcp => "udp dport 5351 @th,64,8 0 drop",
        Speaks::NatPmp => "udp dport 5351 @th,64,8 2 drop",
        Speaks::Upnp => "udp dport 5351 drop",
    };
    format!(
        "table inet filter {{
 chain forward {{ type filter hook forward priority 0; jump miniupnpd; }}
 chain prerouting {{ type nat hook prerouting priority dstnat; jump prerouting_miniupnpd; }}
 chain postrouting {{ type nat hook postrouting priority srcnat; jump postrouting_miniupnpd; }}
 chain input {{ type filter hook input priority 0; {silenced}; }}
 chain miniupnpd {{ }}
 chain prerouting_miniupnpd {{ }}
 chain postrouting_miniupnpd {{ }}
}}
insert rule ip flt f ct status dnat accept
"
    )
}

fn load(namespace: &Namespace, rules: &str) {
    let mut nft = namespace.command("nft").args(["-f", "-"]).stdin(Stdio::piped()).spawn().expect("nft");
    nft.stdin.take().expect("a pipe").write_all(rules.as_bytes()).expect("nft reads");
    assert!(nft.wait().expect("nft ends").success(), "{rules}");
}

/// Waits until something is so. Returns whether it is.
pub(crate) fn until(longest: Duration, mut is_so: impl FnMut() -> bool) -> bool {
    let begun = Instant::now();
    while !is_so() {
        if begun.elapsed() > longest {
            return false;
        }
        sleep(LOOK);
    }
    true
}
