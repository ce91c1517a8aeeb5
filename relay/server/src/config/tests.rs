use towpath_relay_proto::admission::PolicyName;
use towpath_relay_proto::admission::policies::PolicyOrder;
use towpath_service::logs;
use towpath_wire::host::Prefixes;

use super::*;

const MINIMAL: &str = "hostname = \"relay.example.com\"\n";

fn read(text: &str) -> Result<(Config, Resolved), Problems> {
    Config::read(&Sources::new(VARIABLE_PREFIX).text("relay.toml", text), false)
}

fn read_dev(text: &str) -> Result<(Config, Resolved), Problems> {
    Config::read(&Sources::new(VARIABLE_PREFIX).text("relay.toml", text), true)
}

fn prefixes<const N: usize>(texts: [&str; N]) -> Prefixes {
    Vec::from(texts.map(|prefix| prefix.parse().unwrap())).into()
}

#[track_caller]
fn assert_problem(result: Result<(Config, Resolved), Problems>, expected: &str) {
    let problems: Vec<_> =
        result.expect_err("the configuration is wrong").iter().map(ToString::to_string).collect();
    assert_eq!(problems, [expected]);
}

#[test]
fn a_hostname_is_enough() {
    let (config, _) = read(MINIMAL).unwrap();
    assert_eq!(config.listen, Some("[::]:443".parse().unwrap()));
    assert_eq!(config.cert, None);
    assert!(
        matches!(&config.node_key, KeySource::File(path) if path == Path::new("/var/lib/towpath/relay.key"))
    );
    assert_eq!(config.stun.listen, ["[::]:3478".parse().unwrap()]);
    assert_eq!((config.stun.alternates, config.stun.policy), (vec![], towpath_stun::Policy::default()));
    let admin = AdminSettings { listen: Some("127.0.0.1:9090".parse().unwrap()), ..AdminSettings::default() };
    assert_eq!(config.admin, admin);
    assert_eq!(config.outbox.bytes, 512 * 1024);
    assert_eq!(config.keepalive, secs(60));
    assert!(!config.dev);
    assert_problem(
        read(""),
        "hostname: not set; give it in the file, as TOWPATH_HOSTNAME or as --hostname (allowed: a DNS name such as \
         \"relay.example.com\" or an IP address)",
    );
}

#[test]
fn everything_can_be_set() {
    let text = r#"hostname = "203.0.113.7"
listen = "0.0.0.0:8443"
cert = "/etc/relay.crt"
key = "/etc/relay.pem"
key_file = "/srv/relay.key"
admission = ["verify_url", "allow_list", "tokens", "tailscaled"]
require = []
state_dir = "/srv/state"
workers = 3
busy_poll = "0s"
gather = "250us"
keepalive = "30s"
shutdown_timeout = "0s"

[allow_list]
file = "/etc/allowed"

[tokens]
key_file = "/etc/token-keys"

[confirm]
interval = "30s"
grace = "2h"
unknown = "admit"

[tailscaled]
socket = "/run/tailscaled.sock"

[verify]
url = "https://headscale.example.com:8443/verify?a=b"
ca_file = "/etc/verify-ca.pem"
token_file = "/etc/verify.token"
timeout = "250ms"

[region]
id = 1234
code = "fra"
name = "Frankfurt"

[stun]
listen = ["192.0.2.1:3478", "[2001:db8::1]:3478"]
alternate = ["192.0.2.2:3479", "[2001:db8::2]:3479"]
clients = "tailscale"
rate = 0
discovery_rate = 7

[admin]
listen = "192.0.2.1:9090"
clients = ["192.0.2.7", "2001:db8::/64"]
hosts = ["metrics.example.com"]
socket = "/run/towpath/admin.sock"

[proxy_protocol]
sources = ["192.0.2.8", "2001:db8:1::/64"]

[http]
listen = "192.0.2.1:80"
proxies = ["192.0.2.7", "2001:db8::/64"]
redirect_listen = "[::]:80"
home = "https://example.com/"

[bootstrap_dns]
names = ["login.example.com", "log.example.com"]
unpublished_names = ["hidden.example.com"]

[tls]
records = "rustls"
check_name = false

[login]
first_byte_timeout = "100ms"
handshake_timeout = "1s"
login_timeout = "2s"
idle_http_timeout = "3s"
max_pending = 5
max_pending_per_host = 4
max_connections = 7
max_connections_per_host = 6
max_connections_per_key = 3
refuse_app_names = ["some app", "other"]

[outbox]
bytes = "66KiB"
age = "10ms"
disco_bytes = "2KiB"
write_timeout = "100ms"

[memory]
max = "16MiB"

[mesh]
key_file = "/etc/mesh.key"
second_key_file = "/etc/mesh-next.key"
prober_key_file = "/etc/prober.key"
sources = ["10.0.0.0/8", "2001:db8::7"]
peers = ["relay-2.example.com:443 nodekey:358072d6365880d1aeea329adf9121383851ed21a28e3b75e965d0d2cd166254", "192.0.2.1:8443 nodekey:8f40c5adb68f25624ae5b214ea767a6ec94d829d3d7b5e1ad1ba6f3e2138285f"]
max_keys = 12345
ca_file = "/etc/ca.pem"

[log]
format = "json"
level = "debug"
"#;
    let (config, resolved) = read(text).unwrap();
    assert_eq!(config.hostname, "203.0.113.7");
    assert_eq!(config.listen, Some("0.0.0.0:8443".parse().unwrap()));
    assert_eq!(config.cert, Some(CertFiles { cert: "/etc/relay.crt".into(), key: "/etc/relay.pem".into() }));
    assert!(matches!(&config.node_key, KeySource::File(path) if path == Path::new("/srv/relay.key")));
    assert_eq!(config.workers.get(), 3);
    assert_eq!(config.poll.gather, Duration::from_micros(250));
    assert_eq!(config.keepalive, secs(30));
    assert_eq!(config.shutdown_timeout, Duration::ZERO);
    assert_eq!(config.region, Region { id: 1234, code: "fra".into(), name: "Frankfurt".into() });
    assert_eq!(config.stun.listen, ["192.0.2.1:3478", "[2001:db8::1]:3478"].map(|a| a.parse().unwrap()));
    assert_eq!(config.stun.alternates, ["192.0.2.2:3479", "[2001:db8::2]:3479"].map(|a| a.parse().unwrap()));
    let policy = towpath_stun::Policy {
        clients: towpath_stun::ClientFilter::Tailscale,
        rate: None,
        discovery_rate: 7.try_into().unwrap(),
    };
    assert_eq!(config.stun.policy, policy);
    let admin = AdminSettings {
        listen: Some("192.0.2.1:9090".parse().unwrap()),
        clients: vec!["192.0.2.7/32".parse().unwrap(), "2001:db8::/64".parse().unwrap()],
        hosts: vec!["metrics.example.com".into()],
        socket: Some("/run/towpath/admin.sock".into()),
    };
    assert_eq!(config.admin, admin);
    assert_eq!(config.proxy_protocol_sources, prefixes(["192.0.2.8/32", "2001:db8:1::/64"]));
    assert_eq!(config.http.listen, Some("192.0.2.1:80".parse().unwrap()));
    assert_eq!(config.http.proxies, prefixes(["192.0.2.7/32", "2001:db8::/64"]));
    assert_eq!(config.http.redirect_listen, Some("[::]:80".parse().unwrap()));
    assert_eq!(config.http.home, Home::Redirect("https://example.com/".parse().unwrap()));
    assert_eq!(config.bootstrap_dns.names, ["login.example.com", "log.example.com"]);
    assert_eq!(config.bootstrap_dns.unpublished_names, ["hidden.example.com"]);
    let login = LoginLimits {
        first_byte_timeout: Duration::from_millis(100),
        handshake_timeout: secs(1),
        login_timeout: secs(2),
        idle_http_timeout: secs(3),
        max_pending: 5,
        max_pending_per_host: 4,
        max_connections: Some(7),
        max_connections_per_host: Some(6),
        max_connections_per_key: 3,
        refuse_app_names: vec!["some app".into(), "other".into()],
    };
    let admission = AdmissionSettings {
        order: PolicyOrder {
            order: vec![
                PolicyName::VerifyUrl,
                PolicyName::AllowList,
                PolicyName::Tokens,
                PolicyName::Tailscaled,
            ],
            require: vec![],
        },
        allow_list: Some("/etc/allowed".into()),
        tokens: Some("/etc/token-keys".into()),
        confirm: Confirm { interval: secs(30), grace: secs(7200), admit_unknown: true },
        state_dir: Some("/srv/state".into()),
    };
    assert_eq!(config.admission, admission);
    assert_eq!(config.tailscaled, Some(TailscaledSettings { socket: "/run/tailscaled.sock".into() }));
    let verify = config.verify.expect("a verify URL");
    assert_eq!((verify.url.host(), verify.url.port()), ("headscale.example.com", 8443));
    assert_eq!(verify.url.path_and_query(), "/verify?a=b");
    assert_eq!(verify.ca_file.as_deref(), Some(Path::new("/etc/verify-ca.pem")));
    assert_eq!(verify.token_file.as_deref(), Some(Path::new("/etc/verify.token")));
    assert_eq!(verify.timeout, Duration::from_millis(250));
    assert_eq!(config.login, login);
    let outbox = OutboxLimits {
        bytes: 66 * 1024,
        age: Duration::from_millis(10),
        disco_bytes: 2048,
        write_timeout: Duration::from_millis(100),
    };
    assert_eq!(config.outbox, outbox);
    let mesh = &config.mesh;
    assert_eq!(mesh.key_file.as_deref(), Some(Path::new("/etc/mesh.key")));
    assert_eq!(mesh.second_key_file.as_deref(), Some(Path::new("/etc/mesh-next.key")));
    assert_eq!(mesh.prober_key_file.as_deref(), Some(Path::new("/etc/prober.key")));
    assert_eq!(mesh.ca_file.as_deref(), Some(Path::new("/etc/ca.pem")));
    assert_eq!(mesh.max_keys, 12_345);
    assert_eq!(mesh.sources, prefixes(["10.0.0.0/8", "2001:db8::7/128"]));
    assert_eq!(
        mesh.peers.iter().map(|peer| (&*peer.host, peer.port)).collect::<Vec<_>>(),
        [("relay-2.example.com", 443), ("192.0.2.1", 8443)]
    );
    assert_eq!(config.log, Log { format: logs::LogFormat::Json, level: logs::LogLevel::Debug });

    // What print-config prints is this very file, but for the comments.
    let printed: String = resolved
        .to_toml()
        .lines()
        .filter(|line| !line.starts_with("# "))
        .map(|line| format!("{}\n", line.split("  #").next().unwrap_or_default()))
        .collect();
    assert_eq!(printed, text);
}

#[test]
fn a_trial_needs_nothing_and_stays_on_loopback() {
    let (config, _) = read_dev("").unwrap();
    assert_eq!(config.hostname, "localhost");
    assert_eq!(config.listen, Some("127.0.0.1:3340".parse().unwrap()));
    assert_eq!(config.stun.listen, ["127.0.0.1:3478".parse().unwrap()]);
    assert!(matches!(config.node_key, KeySource::Ephemeral));
    assert!(config.dev);
    read_dev("listen = '[::1]:0'\nstun.listen = ['127.0.0.2:1', '[::1]:1']").unwrap();
    for address in ["0.0.0.0:3340", "[::]:3340", "192.0.2.1:3340", "[::ffff:192.0.2.1]:3340"] {
        let allowed = "allowed: with --dev, only loopback addresses such as \"127.0.0.1:3340\"";
        assert_problem(
            read_dev(&format!("listen = \"{address}\"")),
            &format!("relay.toml:1: listen: found \"{address}\", {allowed}"),
        );
        assert_problem(
            read_dev(&format!("stun.listen = [\"127.0.0.1:1\", \"{address}\"]")),
            &format!("relay.toml:1: stun.listen: found [\"127.0.0.1:1\", \"{address}\"], {allowed}"),
        );
    }
}

#[test]
fn a_mesh_needs_its_key_and_each_relay_has_its_own() {
    let key = "nodekey:358072d6365880d1aeea329adf9121383851ed21a28e3b75e965d0d2cd166254";
    for (setting, value) in
        [("second_key_file", "'/k'"), ("sources", "['10.0.0.0/8']"), ("peers", &*format!("['a {key}']"))]
    {
        assert_problem(
            read(&format!("{MINIMAL}mesh.{setting} = {value}")),
            &format!("relay.toml:2: mesh.{setting}: needs mesh.key_file, the key of the mesh, as well"),
        );
    }
    read(&format!("{MINIMAL}mesh.prober_key_file = '/k'")).unwrap();
    read(&format!("{MINIMAL}mesh.key_file = '/k'")).unwrap();
    assert_problem(
        read(&format!("{MINIMAL}mesh.key_file = '/k'\nmesh.peers = ['a {key}', 'b {key}']")),
        "relay.toml:3: mesh.peers: has the public key of b twice: each relay has its own",
    );
}

#[test]
fn the_relays_of_a_mesh_share_a_million_keys_unless_told_otherwise() {
    let max_keys = |relays: usize, settings: &str| {
        let peers: Vec<_> = (0..relays).map(|number| format!("'a nodekey:{}'", key_text(number))).collect();
        let text = format!("{MINIMAL}mesh.key_file = '/k'\nmesh.peers = [{}]\n{settings}", peers.join(","));
        read(&text).unwrap().0.mesh.max_keys
    };
    assert_eq!(
        [0, 1, 3, 1000, 1001].map(|relays| max_keys(relays, "")),
        [1_000_000, 1_000_000, 333_333, 1000, 1000]
    );
    assert_eq!([0, 3].map(|relays| max_keys(relays, "mesh.max_keys = 600_000")), [600_000; 2]);
    for number in ["999", "100000001"] {
        assert_problem(
            read(&format!("{MINIMAL}mesh.key_file = '/k'\nmesh.max_keys = {number}")),
            &format!("relay.toml:3: mesh.max_keys: found {number}, allowed: 1000 to 100000000"),
        );
    }
}

/// The digits of a public key that is made from a number.
fn key_text(number: usize) -> String {
    format!("{number:08x}{}", "11".repeat(28))
}

#[test]
fn a_worker_polls_or_lets_packets_gather_and_not_both() {
    let poll = |settings: &str| read(&format!("{MINIMAL}{settings}")).unwrap().0.poll;
    let (micros, zero) = (Duration::from_micros, Duration::ZERO);
    assert_eq!(poll(""), PollPolicy { busy_poll: zero, gather: micros(100) });
    for settings in ["busy_poll = '50us'", "busy_poll = '50us'\ngather = '0s'"] {
        assert_eq!(poll(settings), PollPolicy { busy_poll: micros(50), gather: zero });
    }
    assert_problem(
        read(&format!("{MINIMAL}busy_poll = '50us'\ngather = '50us'")),
        "relay.toml:2: busy_poll: excludes gather, for which a worker sleeps: give one of them",
    );
}

#[test]
fn a_mesh_key_in_the_place_of_its_file_is_not_repeated() {
    let secret = "aB".repeat(32);
    for setting in ["key_file", "mesh.key_file", "mesh.prober_key_file", "hostname"] {
        let text = format!("{}{setting} = '{secret}'", if setting == "hostname" { "" } else { MINIMAL });
        let message = read(&text).expect_err("no path").to_string();
        assert!(!message.contains(&secret), "{message}");
        assert!(message.contains("found what looks like a mesh key"), "{message}");
    }
}

#[test]
fn the_admin_listener_is_on_loopback_or_for_clients_that_are_named() {
    let admin = |text: &str| read(&format!("{MINIMAL}[admin]\n{text}"));
    for text in [
        "listen = '127.0.0.1:9090'",
        "listen = '[::1]:9090'",
        "listen = ''",
        "listen = '0.0.0.0:9090'\nclients = ['10.0.0.0/8']",
    ] {
        admin(text).unwrap_or_else(|problems| panic!("{text}: {problems}"));
    }
    for (text, expected) in [
        (
            "listen = '0.0.0.0:9090'",
            "relay.toml:3: admin.listen: is not a loopback address, and admin.clients is empty, so that any host could connect: \
             add to [admin] the addresses that may, as in clients = [\"192.0.2.7\", \"10.0.0.0/8\"]",
        ),
        (
            "listen = '[2001:db8::7]:9090'",
            "relay.toml:3: admin.listen: is not a loopback address, and admin.clients is empty, so that any host could connect: \
             add to [admin] the addresses that may, as in clients = [\"10.0.0.0/8\", \"2001:db8::/64\"]",
        ),
        (
            "listen = '0.0.0.0:9090'\nclients = ['0.0.0.0/0']",
            "relay.toml:4: admin.clients: found ['0.0.0.0/0'], allowed: a list of IP addresses or prefixes such as \
             [\"192.0.2.7\", \"2001:db8::/64\"], none of them all addresses",
        ),
        (
            "clients = ['10.0.0.0/8']",
            "relay.toml:3: admin.clients: names clients that cannot reach admin.listen, a loopback address: let it be an \
             address of this host, or remove admin.clients",
        ),
        (
            "listen = ''\nclients = ['10.0.0.0/8']",
            "relay.toml:4: admin.clients: is for admin.listen, which is off",
        ),
    ] {
        assert_problem(admin(text), expected);
    }
    assert_problem(
        read_dev("[admin]\nlisten = '0.0.0.0:9090'\nclients = ['10.0.0.0/8']"),
        "relay.toml:2: admin.listen: found '0.0.0.0:9090', allowed: with --dev, only loopback addresses such as \
         \"127.0.0.1:3340\"",
    );
}

#[test]
fn the_path_of_the_admin_socket_fits_into_an_address() {
    let of_length = |bytes: usize| read(&format!("{MINIMAL}admin.socket = '/{}'", "x".repeat(bytes - 1)));
    assert!(of_length(107).is_ok());
    let problems = of_length(108).expect_err("too long").to_string();
    assert!(problems.contains("allowed: the path of a Unix socket, 107 bytes at most"), "{problems}");
}

#[test]
fn a_command_that_asks_a_relay_reads_nothing_but_the_way_to_it() {
    let locate = |text: &str| AdminSettings::locate(&Sources::new(VARIABLE_PREFIX).text("relay.toml", text));
    let settings = locate(
        "listen = 'nonsense'\nunknown = 1\n[admin]\nsocket = '/a'\nlisten = '0.0.0.0:1'\nclients = ['10.0.0.1']",
    );
    let settings = settings.expect("the hostname is in the environment of the relay");
    assert_eq!(settings.socket.as_deref(), Some(Path::new("/a")));
    assert_eq!(settings.nearest(), ["127.0.0.1:1".parse().unwrap()]);
    for text in ["admin.socket = 7", "not TOML"] {
        locate(text).expect_err(text);
    }
}

#[test]
fn a_plain_listener_is_on_loopback_or_for_proxies_that_are_named() {
    let http = |text: &str| read(&format!("{MINIMAL}[http]\n{text}"));
    for text in [
        "listen = '127.0.0.1:80'",
        "listen = '[::1]:80'",
        "listen = '[::ffff:127.0.0.1]:80'",
        "listen = '0.0.0.0:80'\nproxies = ['192.0.2.7']",
        "listen = '127.0.0.1:80'\nproxies = ['127.0.0.1', '10.0.0.0/8']",
        "redirect_listen = '0.0.0.0:80'",
    ] {
        http(text).unwrap_or_else(|problems| panic!("{text}: {problems}"));
    }
    for address in ["0.0.0.0:80", "[::]:80", "192.0.2.1:80", "10.0.0.1:80"] {
        assert_problem(
            http(&format!("listen = '{address}'")),
            "relay.toml:3: http.listen: is not a loopback address, and http.proxies and proxy_protocol.sources are \
             empty: name the proxies there, or listen on loopback, because a login without TLS can be read and repeated",
        );
    }
    assert_problem(
        http("proxies = ['192.0.2.7']"),
        "relay.toml:3: http.proxies: is for http.listen, which is off",
    );
    for prefix in ["0.0.0.0/0", "::/0", "proxy.example.com", "10.0.0.0/33"] {
        let problems = http(&format!("listen = '0.0.0.0:80'\nproxies = ['{prefix}']")).expect_err(prefix);
        assert!(problems.to_string().contains("http.proxies: found"), "{problems}");
        let problems = http(&format!("[proxy_protocol]\nsources = ['{prefix}']")).expect_err(prefix);
        assert!(problems.to_string().contains("proxy_protocol.sources: found"), "{problems}");
    }
    let (config, _) = http("listen = '0.0.0.0:80'\n[proxy_protocol]\nsources = ['192.0.2.7']").unwrap();
    assert_eq!(config.proxy_protocol_sources, prefixes(["192.0.2.7/32"]));
    assert_eq!(config.keepalive, secs(40));
    for key in ["listen", "redirect_listen"] {
        assert_problem(
            read_dev(&format!("[http]\n{key} = \"0.0.0.0:80\"")),
            &format!(
                "relay.toml:2: http.{key}: found \"0.0.0.0:80\", allowed: with --dev, only loopback addresses such as \
                 \"127.0.0.1:3340\""
            ),
        );
    }
}

#[test]
fn the_home_page_is_a_page_nothing_or_a_url() {
    for (text, home) in [("page", Home::Page), ("blank", Home::Blank)] {
        let (config, _) = read(&format!("{MINIMAL}http.home = '{text}'")).unwrap();
        assert_eq!(config.http.home, home);
    }
    for bad in ["", "example.com", "/there", "ftp://example.com/", "https://", "https://a/\tb"] {
        let problems = read(&format!("{MINIMAL}http.home = \"{bad}\"")).expect_err(bad).to_string();
        assert!(problems.contains("allowed: \"page\", \"blank\" or a URL"), "{problems}");
    }
}

#[test]
fn certificate_and_key_come_together() {
    assert_problem(
        read(&format!("{MINIMAL}cert = 'a'")),
        "relay.toml:2: cert: needs key, the file with its private key, as well",
    );
    assert_problem(
        read(&format!("{MINIMAL}key = 'a'")),
        "relay.toml:2: key: needs cert, the file with the certificate, as well",
    );
}

#[test]
fn the_node_key_has_one_source() {
    let key = format!("privkey:{}", "0a".repeat(32));
    let inline = format!("{MINIMAL}cert = 'a'\nkey = 'b'\nprivate_key = '{key}'\n");
    let (config, resolved) = read(&inline).unwrap();
    assert!(matches!(config.node_key, KeySource::Inline(_)));
    assert!(
        resolved.to_toml().contains("private_key = \"********\"  # relay.toml:4\n# key_file is not set\n")
    );
    for text in [format!("{config:?}"), format!("{resolved:?}"), resolved.to_toml()] {
        assert!(!text.contains("0a0a"), "{text}");
    }

    let excludes = "relay.toml:4: private_key: excludes key_file: give one of them";
    assert_problem(read(&format!("{inline}key_file = 'x'")), excludes);
    assert_problem(
        read(&format!("{MINIMAL}private_key = '{key}'")),
        "relay.toml:2: private_key: needs cert and key as well: a self-signed certificate would be kept beside key_file",
    );
    let (config, _) = read_dev(&format!("private_key = '{key}'")).unwrap();
    assert!(matches!(config.node_key, KeySource::Inline(_)));
}

#[test]
fn a_private_key_in_the_wrong_place_is_not_repeated() {
    let key = format!("privkey:{}", "0a".repeat(32));
    for name in ["key_file", "hostname", "listen", "region.code"] {
        let problems = read(&format!("{name} = '{key}'")).expect_err("not allowed there").to_string();
        assert!(problems.contains(&format!("relay.toml:1: {name}: found a private key")), "{problems}");
        assert!(!problems.contains("0a0a"), "{problems}");
    }
    let problems = read(&format!("{MINIMAL}private_key = '{key}0'")).expect_err("too long").to_string();
    assert!(
        problems.contains("private_key: found a value that is not shown, allowed: privkey: and 64"),
        "{problems}"
    );
}

#[test]
fn disco_messages_fit_into_the_outbox() {
    assert_problem(
        read(&format!("{MINIMAL}[outbox]\nbytes = '66KiB'\ndisco_bytes = '1MiB'")),
        "relay.toml:4: outbox.disco_bytes: \"1MiB\" is more than outbox.bytes, \"66KiB\"",
    );
}

/// nginx and others give a silent connection up after 60 s, HAProxy in Debian after 50 s. The first keep-alive is up to 5 s
/// late.
#[test]
fn behind_a_proxy_keep_alives_come_before_it_gives_up() {
    for (settings, expected) in [
        ("", "keepalive = \"1m\"  # default"),
        ("http.listen = ''", "keepalive = \"1m\"  # default"),
        ("http.listen = '127.0.0.1:8080'", "keepalive = \"40s\"  # default"),
        ("http.listen = '127.0.0.1:8080'\nkeepalive = '60s'", "keepalive = \"1m\"  # relay.toml:3"),
    ] {
        let (config, resolved) = read(&format!("{MINIMAL}{settings}")).unwrap();
        assert!(
            resolved.to_toml().lines().any(|line| line == expected),
            "{settings}: {}",
            resolved.to_toml()
        );
        assert_eq!(config.keepalive, secs(if expected.contains("40s") { 40 } else { 60 }));
    }
}

#[test]
fn bounds_are_those_of_the_documentation() {
    let cases = [
        ("workers", "0", "257", "1 to 256"),
        ("keepalive", "'4s'", "'91s'", "\"5s\" to \"90s\""),
        ("shutdown_timeout", "'-1s'", "'61s'", "\"0s\" to \"1m\""),
        ("region.id", "0", "9007199254740992", "1 to 9007199254740991"),
        ("login.handshake_timeout", "'999ms'", "'61s'", "\"1s\" to \"1m\""),
        ("login.login_timeout", "'999ms'", "'61s'", "\"1s\" to \"1m\""),
        ("login.idle_http_timeout", "'999ms'", "'601s'", "\"1s\" to \"10m\""),
        ("login.max_pending", "0", "1000001", "1 to 1000000"),
        ("login.max_pending_per_host", "0", "1000001", "1 to 1000000"),
        ("login.max_connections_per_key", "0", "1001", "1 to 1000"),
        ("memory.max", "'15MiB'", "'1025GiB'", "\"16MiB\" to \"1024GiB\""),
        ("stun.rate", "-1", "1000001", "0 to 1000000"),
        ("stun.discovery_rate", "0", "1000001", "1 to 1000000"),
        ("outbox.bytes", "'65KiB'", "'65MiB'", "\"66KiB\" to \"64MiB\""),
        ("outbox.age", "'9ms'", "'61s'", "\"10ms\" to \"1m\""),
        ("outbox.disco_bytes", "2047", "1048577", "\"2KiB\" to \"1MiB\""),
        ("outbox.write_timeout", "'99ms'", "'61s'", "\"100ms\" to \"1m\""),
    ];
    for (key, low, high, allowed) in cases {
        for value in [low, high] {
            let expected = format!("relay.toml:2: {key}: found {value}, allowed: {allowed}");
            assert_problem(read(&format!("{MINIMAL}{key} = {value}")), &expected);
        }
    }
}

#[test]
fn hostnames_are_dns_names_or_addresses() {
    let long = format!("{}.{}", "a".repeat(63), "b".repeat(63));
    for name in [
        "localhost",
        "a.b-c.example",
        "xn--bcher-kva.example",
        "1.example",
        "192.0.2.1",
        "2001:db8::1",
        &long,
    ] {
        assert!(is_hostname(name), "{name}");
    }
    let label = "a".repeat(64);
    let name = ["a"; 128].join(".");
    let bad = [
        "",
        ".",
        "a.",
        ".a",
        "a..b",
        "-a",
        "a-",
        "a_b",
        "https://a",
        "a:443",
        "[::1]",
        "192.0.2",
        "300.0.0.1",
        "bücher",
        "a b",
        &label,
        &name,
    ];
    for name in bad {
        assert!(!is_hostname(name), "{name}");
    }
}

#[test]
fn a_second_stun_address_goes_with_a_first_one() {
    let with = |listen: &str, alternate: &str| {
        read(&format!("{MINIMAL}stun.listen = {listen}\nstun.alternate = ['{alternate}']"))
    };
    with("['192.0.2.1:3478', '[::]:3478']", "192.0.2.2:3479").unwrap();
    for (listen, alternate) in [
        ("['0.0.0.0:3478']", "192.0.2.2:3479"),
        ("['192.0.2.1:3478']", "0.0.0.0:3479"),
        ("['192.0.2.1:3478']", "192.0.2.1:3479"),
        ("['192.0.2.1:3478']", "192.0.2.2:3478"),
        ("['192.0.2.1:3478']", "192.0.2.2:0"),
        ("['192.0.2.1:3478']", "[2001:db8::2]:3479"),
        ("['192.0.2.1:3478', '192.0.2.3:3478']", "192.0.2.2:3479"),
    ] {
        let expected = format!(
            "relay.toml:3: stun.alternate: {alternate} needs one address of its family in stun.listen that differs in both \
             address and port; wildcards and port 0 do not do"
        );
        assert_problem(with(listen, alternate), &expected);
    }
    assert_problem(
        with("['192.0.2.1:3478']", "192.0.2.2:3479', '192.0.2.3:3479"),
        "relay.toml:3: stun.alternate: found ['192.0.2.2:3479', '192.0.2.3:3479'], allowed: a list of IP addresses with \
         ports such as [\"203.0.113.8:3479\"], one for a family at most",
    );
}

#[test]
fn stun_alone_needs_nothing_and_knows_no_relay() {
    let read = |text: &str| StunOnly::read(&Sources::new(VARIABLE_PREFIX).text("stun.toml", text));
    let (config, resolved) = read("").unwrap();
    assert_eq!(config.stun.listen, ["[::]:3478".parse().unwrap()]);
    assert_eq!(config.admin.listen, Some("127.0.0.1:9090".parse().unwrap()));
    assert!(!resolved.to_toml().contains("hostname"), "{}", resolved.to_toml());
    let problems = read("hostname = 'a.example'\nstun.listen = []").expect_err("two mistakes").to_string();
    for expected in [
        "stun.toml:1: hostname: unknown key; allowed here: [stun], [admin], [log]",
        "stun.toml:2: stun.listen: is empty, and with --stun-only there is nothing else to do",
    ] {
        assert!(problems.contains(expected), "{problems}");
    }
}

#[test]
fn without_tls_the_relay_needs_the_plain_listener_and_no_certificate() {
    let (config, _) = read(&format!("{MINIMAL}listen = ''\nhttp.listen = '127.0.0.1:3340'")).unwrap();
    assert_eq!(config.listen, None);
    assert_problem(
        read(&format!("{MINIMAL}listen = ''")),
        "relay.toml:2: listen: is off, and so is http.listen: a relay needs one of them, http.listen where a proxy ends TLS",
    );
    assert_problem(
        read(&format!("{MINIMAL}listen = ''\nhttp.listen = '127.0.0.1:1'\ncert = 'a'\nkey = 'b'")),
        "relay.toml:4: cert: is for listen, which is off: the proxy has the certificate",
    );
}

fn order(text: &str) -> PolicyOrder {
    read(&format!("{MINIMAL}{text}")).expect(text).0.admission.order
}

#[test]
fn the_policies_that_are_configured_are_asked_unless_an_order_is_given() {
    let list = PolicyOrder { order: vec![PolicyName::AllowList], require: vec![] };
    assert_eq!(order("allow_list.file = 'a'"), list);
    assert_eq!(order("admission = ['allow_list']\nallow_list.file = 'a'"), list);
    assert_eq!(order("admission = 'open'"), PolicyOrder::open());
    assert_eq!(order(""), PolicyOrder::default());
    let state = |text: &str| read(&format!("{MINIMAL}{text}")).expect(text).0.admission.state_dir;
    assert_eq!(state(""), Some("/var/lib/towpath".into()));
    assert_eq!(state("key_file = '/srv/a/relay.key'"), Some("/srv/a".into()));
    assert_eq!(state("key_file = 'relay.key'"), Some(".".into()));
    assert_eq!(state("key_file = '/srv/a/relay.key'\nstate_dir = '/srv/b'"), Some("/srv/b".into()));
}

#[test]
fn policies_and_what_configures_them_go_together() {
    let problem = |text: &str, expected: &str| {
        let text = format!("{MINIMAL}{text}");
        assert_problem(read(&text), expected);
    };
    problem(
        "admission = ['allow_list']",
        "relay.toml:2: admission: names allow_list, which needs allow_list.file as well",
    );
    problem(
        "admission = 'open'\nallow_list.file = 'a'",
        "relay.toml:3: allow_list.file: configures the policy allow_list, which admission = \"open\" does not ask: name it \
         there or in require, or take it out",
    );
    problem(
        "admission = ['require']\n",
        "relay.toml:2: admission: names require, which needs the setting require as well",
    );
    problem(
        "confirm.interval = '1m'\nconfirm.grace = '59s'\nadmission = 'open'",
        "relay.toml:3: confirm.grace: \"59s\" is less than confirm.interval, \"1m\"",
    );
    for wrong in [
        "admission = 'closed'",
        "admission = ['open']",
        "admission = ['allow_list', 'allow_list']\nallow_list.file = 'a'",
    ] {
        let text = format!("{MINIMAL}{wrong}");
        let problems = read(&text).expect_err(wrong);
        let message = problems.iter().next().expect("a problem").to_string();
        assert!(
            message.contains("admission: found ") && message.contains("\"open\", or a list of policies"),
            "{message}"
        );
    }
}

#[test]
fn what_runs_a_relay_needs_a_policy() {
    let with_files = |text: &str, dev| {
        let sources = Sources::new(VARIABLE_PREFIX).text("relay.toml", text);
        Config::read_with_files(&sources, dev).map(|_| ()).map_err(|problems| problems.to_string())
    };
    let problem = with_files(
        "hostname = 'localhost'\nlisten = ''\nhttp.listen = '127.0.0.1:1'\nkey_file = '/nowhere/x'",
        false,
    )
    .expect_err("no policy");
    assert!(
        problem.contains("default: admission: no policy is configured, and the relay is not open"),
        "{problem}"
    );
    assert!(
        problem.contains("[allow_list]") && problem.contains("--open"),
        "it shows the lines that help: {problem}"
    );
    assert_eq!(with_files("", true), Ok(()), "development mode is open");
}
