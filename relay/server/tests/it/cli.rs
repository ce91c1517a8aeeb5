//! The command line of the real binary.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, Command, Output, Stdio};
use std::sync::mpsc;
use std::time::Duration;
use std::{fs, thread};

use rustix::process::{Pid, Signal, kill_process};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use sha2::{Digest, Sha256};
use tempfile::TempDir;
use towpath_wire::key::NodePrivate;
use towpath_wire::map::DerpMap;
use towpath_wire::pin::CertificatePin;

/// How long a relay may take to start or to stop, on a busy machine.
const PATIENCE: Duration = Duration::from_secs(30);

/// The binary in a directory of its own, with an environment that holds nothing of the caller's.
pub(crate) struct Cli {
    directory: TempDir,
}

impl Cli {
    pub(crate) fn new() -> Self {
        Self { directory: tempfile::tempdir().unwrap() }
    }

    pub(crate) fn write(&self, name: &str, text: &str) {
        fs::write(self.path(name), text).unwrap();
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_towpath-relay"));
        command.args(args).current_dir(&self.directory).env_clear();
        if !args.contains(&"--stun-only") {
            command.env("TOWPATH_ADMISSION", "open");
        }
        command
    }

    pub(crate) fn run(&self, args: &[&str]) -> Outcome {
        self.command(args).output().unwrap().into()
    }
}

#[derive(Debug, PartialEq)]
pub(crate) struct Outcome {
    pub(crate) code: Option<i32>,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl From<Output> for Outcome {
    fn from(output: Output) -> Self {
        Self {
            code: output.status.code(),
            out: String::from_utf8(output.stdout).unwrap(),
            err: String::from_utf8(output.stderr).unwrap(),
        }
    }
}

impl Outcome {
    #[track_caller]
    pub(crate) fn assert_success(&self, out: &str) {
        assert_eq!((self.code, &*self.out, &*self.err), (Some(0), out, ""));
    }

    #[track_caller]
    pub(crate) fn assert_failure(&self, code: i32, err: &str) {
        assert_eq!((self.code, &*self.out, &*self.err), (Some(code), "", err));
    }
}

#[test]
fn check_config_prints_everything_that_is_wrong() {
    let cli = Cli::new();
    let text = r#"hostnam = "relay.example.com"
listen = ":443"
cert = "relay.crt"
keepalive = 60

[stun]
listen = ["0.0.0.0:3478", "[::]"]

[admin]
listen = "0.0.0.0:9090"

[outbox]
bytes = "1KiB"
agee = "1s"
"#;
    cli.write("relay.toml", text);
    let mut command = cli.command(&["check-config", "--config", "relay.toml", "--key-file", ""]);
    command.env("TOWPATH_WORKERS", "many").env("TOWPATH_LISTN", "x");
    let expected = r#"towpath-relay: 11 problems in the configuration
  relay.toml:1: hostnam: unknown key; did you mean hostname?
  relay.toml:2: listen: found ":443", allowed: an IP address and port such as "0.0.0.0:443" or "[::]:443", or "" to turn it off
  relay.toml:3: cert: needs key, the file with its private key, as well
  relay.toml:4: keepalive: found 60, allowed: "5s" to "90s"
  relay.toml:7: stun.listen: found "[::]", allowed: a list of IP addresses with ports such as ["192.0.2.7:3478", "[2001:db8::7]:3478"]
  relay.toml:10: admin.listen: is not a loopback address, and admin.clients is empty, so that any host could connect: add to [admin] the addresses that may, as in clients = ["192.0.2.7", "10.0.0.0/8"]
  relay.toml:13: outbox.bytes: found "1KiB", allowed: "66KiB" to "64MiB"
  relay.toml:14: outbox.agee: unknown key; did you mean outbox.age?
  TOWPATH_WORKERS: workers: found many, allowed: 1 to 256
  --key-file: key_file: found an empty value, allowed: the path of a file
  hostname: not set; give it in the file, as TOWPATH_HOSTNAME or as --hostname (allowed: a DNS name such as "relay.example.com" or an IP address)
  note: TOWPATH_LISTN is not a setting and is ignored; did you mean TOWPATH_LISTEN?
"#;
    Outcome::from(command.output().unwrap()).assert_failure(2, expected);
}

#[test]
fn check_config_accepts_a_correct_one() {
    let cli = Cli::new();
    cli.write("relay.toml", "hostname = \"relay.example.com\"\n");
    let expected = "the configuration is valid\nthe start will make state/relay.key\nthe start will make \
                    state/self-signed.key\nthe start will make state/self-signed.crt\n";
    let check = || cli.run(&["check-config", "--config", "relay.toml", "--key-file", "state/relay.key"]);
    check().assert_success(expected);
    assert!(!cli.path("state").exists(), "a check writes nothing");
    cli.run(&["check-config", "--dev"]).assert_success("the configuration is valid\n");
}

#[test]
fn a_missing_file_is_an_error_however_it_was_named() {
    let cli = Cli::new();
    let expected = "towpath-relay: 1 problem in the configuration\n  relay.toml: cannot be read: No such file or directory \
                    (os error 2)\n";
    cli.run(&["check-config", "--config", "relay.toml"]).assert_failure(2, expected);
    cli.run(&["--config", "relay.toml"]).assert_failure(2, expected);
    let output = cli.command(&["check-config"]).env("TOWPATH_CONFIG", "relay.toml").output().unwrap();
    Outcome::from(output).assert_failure(2, expected);
}

#[test]
fn print_config_names_the_origin_of_each_value_and_masks_secrets() {
    let cli = Cli::new();
    let text = r#"hostname = "relay.example.com"
cert = "relay.crt"
key = "relay.pem"
workers = 4
[region]
id = 901
[outbox]
bytes = 1_048_576
[memory]
max = "64MiB"
"#;
    cli.write("relay.toml", text);
    let key = NodePrivate::from_bytes([10; 32]).to_text();
    let mut command = cli.command(&[
        "print-config",
        "--listen",
        "[::]:8443",
        "--stun-listen",
        "[::]:1",
        "--stun-listen",
        "[::]:2",
    ]);
    command
        .env("TOWPATH_CONFIG", "relay.toml")
        .env("TOWPATH_PRIVATE_KEY", key)
        .env("TOWPATH_REGION_ID", "902");
    let expected = r#"hostname = "relay.example.com"  # relay.toml:1
listen = "[::]:8443"  # --listen
cert = "relay.crt"  # relay.toml:2; the file reloads
key = "relay.pem"  # relay.toml:3; the file reloads
private_key = "********"  # TOWPATH_PRIVATE_KEY
# key_file is not set
admission = "open"  # TOWPATH_ADMISSION
require = []  # default
# state_dir is not set
workers = 4  # relay.toml:4
busy_poll = "0s"  # default
gather = "100us"  # default
keepalive = "1m"  # default
shutdown_timeout = "5s"  # default

[allow_list]
# file is not set

[tokens]
# key_file is not set

[confirm]
interval = "1m"  # default
grace = "24h"  # default
unknown = "refuse"  # default

[tailscaled]
# socket is not set

[verify]
# url is not set
# ca_file is not set
# token_file is not set
timeout = "5s"  # default

[region]
id = 902  # TOWPATH_REGION_ID
code = "towpath"  # default
name = "Towpath"  # default

[stun]
listen = ["[::]:1", "[::]:2"]  # --stun-listen
alternate = []  # default
clients = "all"  # default
rate = 1000  # default
discovery_rate = 20  # default

[admin]
listen = "127.0.0.1:9090"  # default
clients = []  # default
hosts = []  # default
# socket is not set

[proxy_protocol]
sources = []  # default

[http]
listen = ""  # default
proxies = []  # default
redirect_listen = ""  # default
home = "page"  # default

[bootstrap_dns]
names = []  # default
unpublished_names = []  # default

[tls]
records = "own"  # default
check_name = true  # default

[login]
first_byte_timeout = "2s"  # default; reloads
handshake_timeout = "10s"  # default; reloads
login_timeout = "10s"  # default; reloads
idle_http_timeout = "30s"  # default; reloads
max_pending = 4096  # default; reloads
max_pending_per_host = 512  # default; reloads
# max_connections is not set; reloads
# max_connections_per_host is not set; reloads
max_connections_per_key = 8  # default; reloads
refuse_app_names = []  # default; reloads

[outbox]
bytes = "1MiB"  # relay.toml:8; reloads
age = "1s"  # default; reloads
disco_bytes = "32KiB"  # default; reloads
write_timeout = "2s"  # default; reloads

[memory]
max = "64MiB"  # relay.toml:10

[mesh]
# key_file is not set
# second_key_file is not set
# prober_key_file is not set
sources = []  # default
peers = []  # default; reloads
max_keys = 1000000  # default; reloads
# ca_file is not set

[log]
format = "human"  # default
level = "info"  # default
"#;
    Outcome::from(command.output().unwrap()).assert_success(expected);
}

#[test]
fn a_trial_refuses_public_addresses() {
    let cli = Cli::new();
    let expected = r#"towpath-relay: 2 problems in the configuration
  --listen: listen: found 0.0.0.0:3340, allowed: with --dev, only loopback addresses such as "127.0.0.1:3340"
  --stun-listen: stun.listen: found 192.0.2.1:3478, allowed: with --dev, only loopback addresses such as "127.0.0.1:3340"
"#;
    cli.run(&["--dev", "--listen", "0.0.0.0:3340", "--stun-listen", "192.0.2.1:3478"])
        .assert_failure(2, expected);
}

#[test]
fn keygen_writes_a_key_for_its_owner_only() {
    let cli = Cli::new();
    let made = cli.run(&["keygen", "relay.key"]);
    let path = cli.path("relay.key");
    let key = key_of(&fs::read_to_string(&path).unwrap());
    let expected =
        Outcome { code: Some(0), out: String::new(), err: format!("public key: {}\n", key.public()) };
    assert_eq!(made, expected);
    assert_eq!(mode(&path), 0o600);
}

#[test]
fn keygen_never_overwrites() {
    let cli = Cli::new();
    cli.write("relay.key", "precious");
    let refusal = "towpath-relay: cannot create relay.key: File exists (os error 17)\n";
    cli.run(&["keygen", "relay.key"]).assert_failure(1, refusal);
    assert_eq!(fs::read_to_string(cli.path("relay.key")).unwrap(), "precious");
    std::os::unix::fs::symlink(cli.path("elsewhere"), cli.path("link")).unwrap();
    assert_eq!(cli.run(&["keygen", "link"]).code, Some(1), "a dangling link is not followed");
    assert!(!cli.path("elsewhere").exists());
}

#[test]
fn keygen_prints_without_a_file_and_never_twice_the_same() {
    let cli = Cli::new();
    let [one, other] = [(); 2].map(|()| cli.run(&["keygen"]));
    assert_eq!(one.err, format!("public key: {}\n", key_of(&one.out).public()));
    assert_ne!(one.err, other.err);
}

#[test]
fn wrong_command_lines_exit_with_2() {
    let cli = Cli::new();
    for args in [
        &["--listne", "x"][..],
        &["nonsense"],
        &["--listen", "127.0.0.1:1", "check-config"],
        &["keygen", "a", "b"],
    ] {
        assert_eq!(cli.run(args).code, Some(2), "{args:?}");
    }
    let leak = format!("--private-key={}", NodePrivate::from_bytes([10; 32]).to_text());
    let refusal = cli.run(&[&leak]);
    assert_eq!(refusal.code, Some(2));
    assert!(!refusal.err.contains("0a0a"), "{}", refusal.err);
}

/// derper's command line, which begins with what looks like a request for help.
#[test]
fn flags_of_derper_are_answered_one_by_one() {
    let cli = Cli::new();
    let outcome = cli.run(&["-hostname", "relay.example.com", "-a", ":443", "-acme-eab-key=hunter2"]);
    assert_eq!((outcome.code, &*outcome.out), (Some(2), ""));
    for line in [
        "  -hostname: hostname (--hostname)\n",
        "  -a: listen, with an IP address",
        "  -acme-eab-key: no such thing",
    ] {
        assert!(outcome.err.contains(line), "{}", outcome.err);
    }
    assert!(!outcome.err.contains("hunter2"));
    for help in ["-h", "--help"] {
        let outcome = cli.run(&[help]);
        assert!(outcome.code == Some(0) && outcome.out.contains("Usage: towpath-relay"), "{outcome:?}");
    }
}

/// What answers, and what does not.
#[test]
fn the_key_that_a_relay_shows_is_printed() {
    let cli = Cli::new();
    cli.write(
        "trial.toml",
        "listen = '127.0.0.1:0'\nhttp.listen = '127.0.0.1:0'\nstun.listen = []\nadmin.listen = ''\n",
    );
    let (relay, listening) = Relay::start(&cli, &["--dev", "--config", "trial.toml"]);
    let [tls, plain] = ["listen", "http"].map(|name| address_in(&listening, name));
    let public = listening.split("node_public=").nth(1).unwrap().split(' ').next().unwrap();
    let warning = "So whatever is on the way could have answered in its place";
    for target in [format!("localhost:{}", tls.port()), format!("http://{plain}")] {
        let outcome = cli.run(&["key", &target]);
        assert_eq!((outcome.code, outcome.out), (Some(0), format!("{public}\n")), "{}", outcome.err);
        assert!(outcome.err.contains(warning), "{}", outcome.err);
        assert_eq!(
            outcome.err.contains("pin of its certificate: sha256-raw:"),
            target.starts_with("localhost")
        );
    }
    let expected = format!(
        "towpath-relay: cannot ask {plain}; http://{plain} asks without TLS: the TLS handshake failed: the server speaks \
         plain HTTP at this port, not TLS\n"
    );
    cli.run(&["key", &plain.to_string()]).assert_failure(1, &expected);
    assert_eq!(relay.stop().0, Some(0));
    let outcome = cli.run(&["key", &tls.to_string()]);
    assert!(outcome.code == Some(1) && outcome.err.contains("Connection refused"), "{}", outcome.err);
    assert_eq!(cli.run(&["key", "a b"]).code, Some(2));
}

#[test]
fn version_is_the_packages() {
    Cli::new().run(&["--version"]).assert_success(concat!("towpath-relay ", env!("CARGO_PKG_VERSION"), "\n"));
}

/// A running relay. Killed when dropped.
struct Relay {
    child: Child,
    log: BufReader<ChildStderr>,
}

impl Relay {
    /// Starts the relay and waits until it listens; returns the line of the log that says so.
    fn start(cli: &Cli, args: &[&str]) -> (Self, String) {
        let mut command = cli.command(args);
        command.env("TOWPATH_WORKERS", "1").stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let log = BufReader::new(child.stderr.take().unwrap());
        let mut relay = Self { child, log };
        let listening = relay.within_patience(|relay| {
            let line = relay.log.by_ref().lines().map(Result::unwrap).find(|line| line.contains("listening"));
            line.expect("the relay ended before it listened")
        });
        (relay, listening)
    }

    /// Asks the relay to stop; returns how it ended and what it printed.
    fn stop(mut self) -> (Option<i32>, String) {
        kill_process(Pid::from_child(&self.child), Signal::TERM).unwrap();
        self.within_patience(|relay| {
            let mut out = String::new();
            relay.child.stdout.take().unwrap().read_to_string(&mut out).unwrap();
            (relay.child.wait().unwrap().code(), out)
        })
    }

    /// Ends the relay, and with it the wait for it, if `wait` takes too long.
    fn within_patience<T>(&mut self, wait: impl FnOnce(&mut Self) -> T) -> T {
        let pid = Pid::from_child(&self.child);
        let (done, waiting) = mpsc::channel::<()>();
        let watch = thread::spawn(move || {
            if waiting.recv_timeout(PATIENCE) == Err(mpsc::RecvTimeoutError::Timeout) {
                kill_process(pid, Signal::KILL).unwrap();
            }
        });
        let outcome = wait(self);
        drop(done);
        watch.join().unwrap();
        outcome
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        // Fails only for a relay that has ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The address behind `name=` in a line of the log, the first of a list.
fn address_in(line: &str, name: &str) -> SocketAddr {
    let field = line.split(' ').find_map(|field| field.strip_prefix(name)?.strip_prefix('=')).unwrap();
    field.trim_matches(['[', ']', ',']).parse().unwrap()
}

fn pin_of(certificate: &Path) -> String {
    let der = CertificateDer::from_pem_file(certificate).unwrap();
    CertificatePin::from_sha256(Sha256::digest(der).into()).to_string()
}

#[test]
fn a_trial_runs_and_prints_a_map_that_leads_to_it() {
    let cli = Cli::new();
    // STUN and admin on fixed ports would collide with another trial on this machine.
    cli.write(
        "trial.toml",
        "listen = '127.0.0.1:0'\nstun.listen = ['127.0.0.1:0']\nadmin.listen = '127.0.0.1:0'\n",
    );
    let (relay, listening) = Relay::start(&cli, &["--dev", "--config", "trial.toml"]);
    let [listen, stun, admin] = ["listen", "stun", "admin"].map(|name| address_in(&listening, name));
    TcpStream::connect(listen).unwrap();
    TcpStream::connect(admin).unwrap();
    let (code, out) = relay.stop();
    assert_eq!(code, Some(0));

    let json = &out[out.find("\n{\n").unwrap()..out.find("\n}\n").unwrap() + 3];
    let map: DerpMap = serde_json::from_str(json).unwrap();
    let node = &map.regions[&900].as_ref().unwrap().nodes[0];
    assert_eq!(
        (node.host_name.as_str(), node.ipv4.as_str(), node.ipv6.as_str()),
        ("localhost", "127.0.0.1", "none")
    );
    assert_eq!((node.derp_port, node.stun_port), (listen.port(), stun.port().into()));
    assert!(
        node.cert_name.starts_with("sha256-raw:") && node.cert_name.len() == 11 + 64,
        "{}",
        node.cert_name
    );
    assert!(out.contains(&map.to_headscale_yaml()), "{out}");
    assert!(out.contains(&format!("curl http://{admin}/metrics\n")), "{out}");
    assert_eq!(fs::read_dir(&cli.directory).unwrap().count(), 1, "a trial leaves no files");
}

/// No key, no certificate, no name: what runs is STUN, and what tells of it.
#[test]
fn stun_alone_runs_without_a_key_and_tells_of_itself() {
    let cli = Cli::new();
    cli.write("stun.toml", "stun.listen = ['127.0.0.1:0', '[::1]:0']\nadmin.listen = '127.0.0.1:0'\n");
    let args = ["--stun-only", "--config", "stun.toml"];
    cli.run(&[&["check-config"], &args[..]].concat()).assert_success("the configuration is valid\n");
    let printed = cli.run(&[&["print-config"], &args[..]].concat()).out;
    assert!(
        printed.starts_with("[stun]\nlisten = [\"127.0.0.1:0\", \"[::1]:0\"]  # stun.toml:1\n"),
        "{printed}"
    );

    let (relay, listening) = Relay::start(&cli, &args);
    let (stun, admin) = (address_in(&listening, "stun"), address_in(&listening, "admin"));
    let client = UdpSocket::bind("127.0.0.1:0").unwrap();
    client.set_read_timeout(Some(PATIENCE)).unwrap();
    let request = [&[0, 1, 0, 0, 0x21, 0x12, 0xa4, 0x42][..], &[7; 12]].concat();
    client.send_to(&request, stun).unwrap();
    assert_eq!(client.recv_from(&mut [0; 64]).unwrap(), (32, stun));

    assert!(get(admin, "/healthz").ends_with("ok\n"));
    assert!(get(admin, "/readyz").ends_with("ready\n"));
    let metrics = get(admin, "/metrics");
    assert!(metrics.contains("towpath_stun_answers_total{answer=\"standard\"} 1\n"), "{metrics}");
    assert!(!metrics.contains("derp_"), "{metrics}");
    assert_eq!(relay.stop(), (Some(0), String::new()));
    assert_eq!(fs::read_dir(&cli.directory).unwrap().count(), 1, "STUN alone leaves no files");
}

#[test]
fn stun_alone_refuses_what_a_relay_needs() {
    let cli = Cli::new();
    for relays in
        [&["--hostname", "a.example"][..], &["--key-file", "a"], &["--listen", "[::]:443"], &["--dev"]]
    {
        let outcome = cli.run(&[&["check-config", "--stun-only"], relays].concat());
        assert_eq!(outcome.code, Some(2), "{relays:?}");
        assert!(outcome.err.contains("cannot be used with"), "{}", outcome.err);
    }
    cli.run(&["--stun-only", "--stun-listen", ""]).assert_failure(
        2,
        "towpath-relay: 1 problem in the configuration\n  --stun-listen: stun.listen: is empty, and with --stun-only there is \
         nothing else to do\n",
    );
}

/// What an HTTP/1.1 server answers.
fn get(server: SocketAddr, path: &str) -> String {
    let mut stream = TcpStream::connect(server).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nHost: {server}\r\nConnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

#[test]
fn a_relay_that_cannot_bind_says_where_and_exits_with_1() {
    let cli = Cli::new();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    cli.write("trial.toml", "stun.listen = []\nadmin.listen = ''\nlog.level = 'error'");
    let outcome = cli.run(&["--dev", "--config", "trial.toml", "--listen", &address]);
    outcome.assert_failure(
        1,
        &format!(
            "towpath-relay: cannot bind TLS on {address}/tcp: Address already in use (os error 98); another \
             program listens there, and `ss -lntp` names it\n"
        ),
    );
}

#[test]
fn derpmap_of_a_relay_with_a_certificate() {
    let cli = Cli::new();
    let text = r#"hostname = "relay.example.com"
cert = "relay.crt"
key = "relay.pem"
[region]
id = 901
code = "fra"
name = "Frankfurt"
"#;
    cli.write("relay.toml", text);
    let authority = rcgen::KeyPair::generate().unwrap();
    let issuer = rcgen::Issuer::new(rcgen::CertificateParams::default(), authority);
    let key = rcgen::KeyPair::generate().unwrap();
    let mut leaf = rcgen::CertificateParams::new(["relay.example.com".to_owned()]).unwrap();
    leaf.distinguished_name.push(rcgen::DnType::CommonName, "relay.example.com");
    cli.write("relay.crt", &leaf.signed_by(&key, &issuer).unwrap().pem());
    let derpmap = |args: &[&str]| cli.run(&[&["derpmap", "--config", "relay.toml"], args].concat());
    let json = r#"{
  "Regions": {
    "901": {
      "RegionID": 901,
      "RegionCode": "fra",
      "RegionName": "Frankfurt",
      "Nodes": [
        {
          "Name": "901a",
          "RegionID": 901,
          "HostName": "relay.example.com"
        }
      ]
    }
  }
}
"#;
    derpmap(&[]).assert_success(json);
    derpmap(&["--format", "json"]).assert_success(json);
    let yaml = r#"regions:
  901:
    regionid: 901
    regioncode: "fra"
    regionname: "Frankfurt"
    nodes:
      - name: "901a"
        regionid: 901
        hostname: "relay.example.com"
        ipv4: "203.0.113.7"
        ipv6: "2001:db8::7"
"#;
    derpmap(&["--format", "headscale", "--ipv4", "203.0.113.7", "--ipv6", "2001:db8::7"])
        .assert_success(yaml);
    let policy = r#"	"derpMap": {
		"Regions": {
			"901": {
				"RegionID": 901,
				"RegionCode": "fra",
				"RegionName": "Frankfurt",
				"Nodes": [
					{
						"Name": "901a",
						"RegionID": 901,
						"HostName": "relay.example.com",
						"IPv6": "none",
						"STUNPort": -1,
						"DERPPort": 8443
					}
				]
			}
		}
	},
"#;
    derpmap(&["--format", "tailscale-policy", "--listen", "0.0.0.0:8443", "--stun-listen", ""])
        .assert_success(policy);
}

#[test]
fn derpmap_pins_a_self_signed_certificate_and_makes_none() {
    let cli = Cli::new();
    let text = "hostname = '127.0.0.1'\nkey_file = 'state/relay.key'\nstun.listen = []\nadmin.listen = ''\n";
    cli.write("relay.toml", text);
    let derpmap = || {
        cli.run(&["derpmap", "--config", "relay.toml", "--listen", "127.0.0.1:8443", "--format", "headscale"])
    };
    let refusal = "towpath-relay: there is no state/self-signed.crt yet: start the relay once, it makes its certificate then\n";
    derpmap().assert_failure(1, refusal);
    assert!(!cli.path("state").exists());

    let (relay, _) = Relay::start(&cli, &["--config", "relay.toml", "--listen", "127.0.0.1:0"]);
    assert_eq!(relay.stop(), (Some(0), String::new()));
    assert_eq!(mode(&cli.path("state/relay.key")), 0o600);
    assert_eq!(mode(&cli.path("state/self-signed.key")), 0o600);
    let yaml = format!(
        r#"regions:
  900:
    regionid: 900
    regioncode: "towpath"
    regionname: "Towpath"
    nodes:
      - name: "900a"
        regionid: 900
        hostname: "127.0.0.1"
        certname: "{}"
        ipv4: "127.0.0.1"
        ipv6: "none"
        stunport: -1
        derpport: 8443
"#,
        pin_of(&cli.path("state/self-signed.crt"))
    );
    derpmap().assert_success(&yaml);
}

#[test]
fn derpmap_needs_ports_that_last() {
    let cli = Cli::new();
    let expected =
        "towpath-relay: listen and stun.listen need ports other than 0, which is a new one at each start\n";
    cli.run(&["derpmap", "--hostname", "a.example", "--listen", "[::]:0"]).assert_failure(1, expected);
    cli.run(&["derpmap", "--hostname", "a.example", "--stun-listen", "[::]:0"]).assert_failure(1, expected);
}

/// The key in a file of derper's format, which is checked to the byte.
fn key_of(json: &str) -> NodePrivate {
    let text =
        json.strip_prefix("{\n\t\"PrivateKey\": \"").and_then(|rest| rest.strip_suffix("\"\n}\n")).unwrap();
    text.parse().unwrap()
}

pub(crate) fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[test]
fn a_self_signed_certificate_for_another_hostname_is_not_served() {
    let cli = Cli::new();
    let text = "key_file = 'relay.key'\nstun.listen = []\nadmin.listen = ''\nlisten = '127.0.0.1:0'\n";
    cli.write("relay.toml", text);
    drop(Relay::start(&cli, &["--config", "relay.toml", "--hostname", "old.example.com"]));
    let expected = "towpath-relay: 1 problem in the configuration\n  relay.toml:1: key_file: self-signed.crt is not for \
                    new.example.com: remove it and self-signed.key, and new ones are made\n";
    let renamed = ["--config", "relay.toml", "--hostname", "new.example.com"];
    // First the check, which ends also where the start would not.
    cli.run(&[&["check-config"], &renamed[..]].concat()).assert_failure(2, expected);
    cli.run(&renamed).assert_failure(2, expected);
}
