//! Addresses to listen on, as the real program takes them from its settings and from the kernel.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::process::{Command, Output, Stdio};

use tempfile::TempDir;
use towpath_relay_client::Dialer;
use towpath_wire::key::NodePrivate;

use crate::common::PATIENCE;

/// A program that runs its arguments without IPv6, as on a kernel with `ipv6.disable=1`: a filter (seccomp(2)) answers socket(2) with
/// EAFNOSUPPORT for AF_INET6.
const WITHOUT_IPV6: &str = r"
import ctypes, os, platform, struct, sys
SOCKET, ARCH = {'x86_64': (41, 0xc000003e), 'aarch64': (198, 0xc00000b7)}[platform.machine()]
LOAD, JUMP_IF_EQUAL, RETURN = 0x20, 0x15, 0x06
filter = b''.join(struct.pack('HBBI', *line) for line in [
    (LOAD, 0, 0, 4), (JUMP_IF_EQUAL, 0, 5, ARCH),
    (LOAD, 0, 0, 0), (JUMP_IF_EQUAL, 0, 3, SOCKET),
    (LOAD, 0, 0, 16), (JUMP_IF_EQUAL, 0, 1, 10),
    (RETURN, 0, 0, 0x00050000 | 97),
    (RETURN, 0, 0, 0x7fff0000)])
program = ctypes.create_string_buffer(filter, len(filter))
fprog = ctypes.create_string_buffer(struct.pack('HxxxxxxP', len(filter) // 8, ctypes.addressof(program)))
libc = ctypes.CDLL(None, use_errno=True)
assert libc.prctl(38, 1, 0, 0, 0) == 0 and libc.prctl(22, 2, fprog, 0, 0) == 0, os.strerror(ctypes.get_errno())
os.execv(sys.argv[1], sys.argv[1:])
";

fn run_without_ipv6(directory: &TempDir, args: &[&str]) -> Output {
    let mut command = Command::new("python3");
    command.args(["-c", WITHOUT_IPV6, env!("CARGO_BIN_EXE_towpath-relay")]).args(args);
    command.current_dir(directory.path()).env_clear().env("TOWPATH_ADMIN_LISTEN", "");
    command.output().expect("python3 is installed")
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).expect("UTF-8")
}

#[test]
fn without_ipv6_the_defaults_are_those_of_ipv4_and_the_user_is_told() {
    let directory = tempfile::tempdir().expect("a directory");
    let printed = run_without_ipv6(&directory, &["print-config", "--hostname", "localhost"]);
    let toml = text(&printed.stdout);
    assert!(toml.contains("\nlisten = \"0.0.0.0:443\"  # default\n"), "{toml}");
    assert!(toml.contains("[stun]\nlisten = [\"0.0.0.0:3478\"]  # default\n"), "{toml}");
    let warnings = "towpath-relay: warning: listen: this kernel has no IPv6, so the default is the wildcard of IPv4\n\
                    towpath-relay: warning: stun.listen: this kernel has no IPv6, so the default is the wildcard of IPv4\n";
    assert_eq!(text(&printed.stderr), warnings);
}

/// What was asked for is not given up in silence.
#[test]
fn without_ipv6_an_address_of_the_settings_is_an_error_that_says_what_to_write() {
    let directory = tempfile::tempdir().expect("a directory");
    let args = ["--hostname", "localhost", "--key-file", "relay.key", "--open"];
    for (listen, stun, what) in
        [("[::]:0", "0.0.0.0:0", "TLS on [::]:0/tcp"), ("0.0.0.0:0", "[::]:0", "STUN on [::]:0/udp")]
    {
        let done =
            run_without_ipv6(&directory, &[&args[..], &["--listen", listen, "--stun-listen", stun]].concat());
        let expected = format!(
            "towpath-relay: cannot bind {what}: Address family not supported by protocol (os error 97); this kernel has no \
             IPv6: write 0.0.0.0:0 instead\n"
        );
        assert_eq!(
            (done.status.code(), text(&done.stderr).contains(&expected)),
            (Some(1), true),
            "{}",
            text(&done.stderr)
        );
    }
}

/// The index of an interface is another one after the next start of the host.
#[test]
fn a_link_local_address_may_name_its_interface() {
    let directory = tempfile::tempdir().expect("a directory");
    let run = |stun: &str| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_towpath-relay"));
        command.args(["print-config", "--hostname", "localhost", "--stun-listen", stun]);
        command.current_dir(directory.path()).env_clear().output().expect("the program starts")
    };
    let printed = run("[fe80::1%lo]:3478");
    assert!(text(&printed.stdout).contains("\nlisten = [\"[fe80::1%1]:3478\"]"), "{printed:?}");
    let refused = run("[fe80::1%none]:3478");
    assert_eq!(refused.status.code(), Some(2));
    let problem =
        "--stun-listen: stun.listen: found [fe80::1%none]:3478, allowed: a list of IP addresses with ports";
    assert!(text(&refused.stderr).contains(problem), "{refused:?}");
}

/// A proxy on the same host has port 443 and the certificate.
#[tokio::test]
async fn without_tls_of_its_own_the_relay_serves_a_proxy_and_makes_no_certificate() {
    const SETTINGS: &str = "hostname = 'relay.example.com'\nlisten = ''\nkey_file = 'relay.key'\nhttp.listen = '127.0.0.1:0'\n\
                            stun.listen = []\nadmin.listen = ''\n";
    let directory = tempfile::tempdir().expect("a directory");
    std::fs::write(directory.path().join("relay.toml"), SETTINGS).expect("a file");
    let command = |args: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_towpath-relay"));
        command.args(args).args(["--config", "relay.toml"]).current_dir(directory.path()).env_clear();
        command.env("TOWPATH_ADMISSION", "open");
        command
    };
    let checked = command(&["check-config"]).output().expect("the program starts");
    let valid = "the configuration is valid\nthe start will make relay.key\n";
    assert_eq!((text(&checked.stdout), text(&checked.stderr)), (valid, ""));
    let mut relay = command(&[]).stderr(Stdio::piped()).spawn().expect("the program starts");
    let mut lines = BufReader::new(relay.stderr.take().expect("a pipe")).lines().map_while(Result::ok);
    let listening = lines.find(|line| line.contains("listening")).expect("the log says where it listens");
    assert!(!listening.contains(" listen="), "{listening}");
    let http =
        listening.split(' ').find_map(|field| field.strip_prefix("http=")).expect("the plain listener");
    let http: SocketAddr = http.parse().expect("an address");
    let dialer = Dialer::plain("localhost", http.port()).at(http);
    let key = NodePrivate::from_random([1; 32]);
    let login = tokio::time::timeout(PATIENCE, dialer.connect(&key)).await.expect("a login in time");
    let ended = relay.kill().and_then(|()| relay.wait());
    login.expect("a login");
    ended.expect("it runs");
    let mut files: Vec<_> = std::fs::read_dir(directory.path())
        .expect("a directory")
        .map(|entry| entry.expect("an entry").file_name().into_string().expect("UTF-8"))
        .collect();
    files.sort();
    assert_eq!(files, ["relay.key", "relay.toml"]);
    // Clients find the proxy, whose certificate an authority has signed.
    let map = command(&["derpmap"]).output().expect("the program starts");
    let map: serde_json::Value = serde_json::from_slice(&map.stdout).expect("JSON");
    let node = &map["Regions"]["900"]["Nodes"][0];
    assert_eq!((&node["DERPPort"], &node["CertName"]), (&serde_json::Value::Null, &serde_json::Value::Null));
}
