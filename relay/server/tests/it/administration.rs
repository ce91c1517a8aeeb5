//! The socket for administration, and the commands that ask a running relay by it.

use std::io::{BufRead, Read, Write};
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;
use towpath_relay_client::{Client, Dialer, Event, TlsVersions, Trust};
use towpath_service::admin::{Admin, AdminListeners, AdminSocket, Readiness};
use towpath_wire::derp::app_name::AppName;
use towpath_wire::derp::info::ClientInfo;
use towpath_wire::key::{NodePrivate, NodePublic};

use crate::common::process::{Process, key};
use crate::common::{MeshFiles, PATIENCE, Relay, event, packet};

/// What a command has said.
#[derive(Debug, PartialEq)]
struct Said {
    code: Option<i32>,
    out: String,
    err: String,
}

/// Runs the program with an environment that holds `COLUMNS` only.
fn run(columns: usize, args: &[&str]) -> Said {
    let mut command = Command::new(env!("CARGO_BIN_EXE_towpath-relay"));
    let output = command.args(args).env_clear().env("COLUMNS", columns.to_string()).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    Said { code: output.status.code(), out: text(output.stdout), err: text(output.stderr) }
}

/// A directory with the socket of a relay.
struct Place {
    dir: TempDir,
}

impl Place {
    fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap() }
    }

    fn socket(&self) -> PathBuf {
        self.dir.path().join("admin.sock")
    }

    /// The setting that names the socket.
    fn setting(&self) -> String {
        format!("admin.socket = '{}'", self.socket().display())
    }

    fn run(&self, args: &[&str]) -> Said {
        self.run_at(80, args)
    }

    /// Runs a command that asks by the socket.
    fn run_at(&self, columns: usize, args: &[&str]) -> Said {
        let path = self.socket().display().to_string();
        run(columns, &[args, &["--socket", &path]].concat())
    }

    /// The answer of a command in JSON.
    fn json(&self, args: &[&str]) -> Value {
        let said = self.run(&[args, &["--json"]].concat());
        assert_eq!((said.code, &*said.err), (Some(0), ""), "{said:?}");
        serde_json::from_str(&said.out).expect("JSON")
    }

    /// The one connection of a key.
    fn connection(&self, key: NodePublic) -> Value {
        let clients = self.json(&["clients", "--key", &key.to_string()]);
        let [connection] = &clients["connections"].as_array().unwrap()[..] else { panic!("one: {clients}") };
        connection.clone()
    }
}

/// A relay that is ready, with a socket at `place`.
fn start(place: &Place) -> Process {
    start_after("true", place)
}

/// Starts a relay after a command of the shell.
fn start_after(before: &str, place: &Place) -> Process {
    let relay = Process::start(before, &place.setting());
    relay.wait("ready", |relay| relay.get("/readyz").starts_with("HTTP/1.1 200"));
    relay
}

fn node(number: u64) -> NodePublic {
    key(number).public()
}

async fn log_in(relay: &Process, number: u64, app_name: &str) -> Client {
    let app_name = AppName::from_bytes(app_name.as_bytes()).expect("a name");
    let info = ClientInfo { version: 2, app_name, ..ClientInfo::default() };
    let dialer = Dialer::tls("localhost", relay.listen.port(), &Trust::Anyone, TlsVersions::Both);
    dialer.unwrap().at(relay.listen).with_info(info).connect(&key(number)).await.expect("a login")
}

/// Waits until `fact` is one, of what another process or thread does.
fn wait(what: &str, mut fact: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !fact() {
        assert!(Instant::now() < deadline, "not in time: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[tokio::test]
async fn clients_shows_each_connection_as_a_table_and_as_json() {
    let place = Place::new();
    let relay = start(&place);
    let (mut one, mut other) = (log_in(&relay, 1, "").await, log_in(&relay, 2, "some app").await);
    one.note_preferred(true).await.unwrap();
    one.send(node(2), &[7; 1000]).await.unwrap();
    one.send(node(2), &[8; 500]).await.unwrap();
    one.send(node(99), &[9; 10]).await.unwrap();
    for len in [1000, 500] {
        assert_eq!(packet(&mut other).await.1.len(), len);
    }
    // The packets of a client are read in their order, so the last one is in the account when its drop is.
    relay.wait("the last packet is dropped", |relay| {
        relay.metric("derp_packets_dropped{kind=\"other\",reason=\"unknown_dest\"}") == 1
    });
    let sender = place.connection(node(1));
    let expected = [
        ("kind", Value::from("client")),
        ("key", node(1).to_string().into()),
        ("transport", "tls".into()),
        ("policy", "open".into()),
        ("version", 2.into()),
        ("app_name", "".into()),
        ("home", true.into()),
        ("not_ideal", false.into()),
        ("mesh", false.into()),
        ("watch", false.into()),
        ("prober", false.into()),
        ("active", true.into()),
        ("duplicate", false.into()),
        ("received", serde_json::json!({"packets": 3, "bytes": 1510})),
        ("sent", serde_json::json!({"packets": 0, "bytes": 0})),
        ("waiting", serde_json::json!({"packets": 0, "bytes": 0, "bound_bytes": 524_288})),
        ("blocked", false.into()),
    ];
    for (member, value) in &expected {
        assert_eq!(sender[*member], *value, "{member}");
    }
    assert_eq!(sender["dropped"]["unknown_dest"], 1);
    let address: SocketAddr = sender["address"].as_str().unwrap().parse().unwrap();
    assert!(address.ip().is_loopback() && sender["age_seconds"].is_u64() && sender["connection"].is_u64());
    // The members that are not compared: number, address, age and drops.
    assert_eq!(sender.as_object().unwrap().len(), expected.len() + 4);
    let receiver = place.connection(node(2));
    assert_eq!(receiver["sent"], serde_json::json!({"packets": 2, "bytes": 1500}));
    assert_eq!((&receiver["app_name"], &receiver["home"]), (&"some app".into(), &false.into()));

    for columns in [80, 120] {
        let table = place.run_at(columns, &["clients", "--sort", "sent"]);
        let lines: Vec<_> = table.out.lines().collect();
        assert_eq!((table.code, lines.len()), (Some(0), 4), "{table:?}");
        assert!(lines.iter().all(|line| line.chars().count() <= columns), "{}", table.out);
        assert!(lines[0].starts_with("KEY         SOURCE"), "{}", table.out);
        let digits = |number| node(number).to_hex()[..10].to_owned();
        assert!(lines[1].starts_with(&digits(2)) && lines[2].starts_with(&digits(1)), "{}", table.out);
        assert!(lines[1].contains(" 1.5 KiB ") && lines[2].contains(" 1.5 KiB "), "{}", table.out);
        assert_eq!(lines[1].contains("some app"), columns == 120, "{}", table.out);
        assert_eq!(lines[3], "2 connections");
        // Numbers end where their titles end.
        let end = lines[0].find("RECEIVED").unwrap() + "RECEIVED".len();
        assert!(lines[1..3].iter().all(|line| line[..end].ends_with('B')), "{}", table.out);
    }
    for (filter, expected) in [
        (["--app", "some app"], "1 connection of 2"),
        (["--source", "127.0.0.0/8"], "2 connections"),
        (["--source", "192.0.2.1"], "0 connections of 2"),
        (["--policy", "open"], "2 connections"),
        (["--policy", "tokens"], "0 connections of 2"),
        (["--key", &node(1).to_hex()[..7]], "1 connection of 2"),
        (["--key", &format!("{:?}", node(1))], "1 connection of 2"),
    ] {
        let said = place.run(&[&["clients"][..], &filter].concat());
        assert_eq!(said.out.lines().last(), Some(expected), "{filter:?}: {said:?}");
    }
    // A table without rows would say that there are no such clients.
    let said = place.run(&["clients", "--policy", "allowlist"]);
    assert!(said.code == Some(2) && said.err.contains("open, allow_list, tokens, tailscaled"), "{said:?}");
}

#[tokio::test]
async fn a_table_that_is_watched_comes_again() {
    let place = Place::new();
    let relay = start(&place);
    let mut watching = Command::new(env!("CARGO_BIN_EXE_towpath-relay"))
        .args(["clients", "--watch", "--socket"])
        .arg(place.socket())
        .env_clear()
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut out = watching.stdout.take().unwrap();
    let mut next = |expected: &str| {
        let mut table = String::new();
        while !table.ends_with("connections\n") && !table.ends_with("connection\n") {
            let mut byte = [0];
            out.read_exact(&mut byte).unwrap();
            table.push(byte[0].into());
        }
        (table.lines().last() == Some(expected)).then_some(table)
    };
    assert!(next("0 connections").is_some());
    let _client = relay.log_in(1).await.expect("a login");
    wait("the client is in a table", || next("1 connection").is_some());
    watching.kill().unwrap();
    watching.wait().unwrap();
}

#[tokio::test]
async fn kick_closes_the_connections_of_a_key_and_says_so() {
    let place = Place::new();
    let relay = start(&place);
    let mut client = relay.log_in(1).await.expect("a login");
    let _other = relay.log_in(2).await.expect("a login");
    let digits = &node(1).to_hex()[..8];
    let closing = format!("closing 1 connection of {}\n", node(1));
    assert_eq!(place.run(&["kick", digits]), Said { code: Some(0), out: closing, err: String::new() });
    let text = "the operator of the relay has closed this connection";
    assert_eq!(event(&mut client).await, Event::Health(text.into()));
    tokio::time::timeout(PATIENCE, client.recv()).await.expect("in time").expect_err("it is closed");
    relay.wait("the reason is counted", |relay| {
        relay.metric("towpath_closed_total{reason=\"kicked\"}") == 1
            && relay.metric("derp_current_connections") == 1
    });
    let whole = node(1).to_string();
    let none = format!("towpath-relay: {whole} has no connection to this relay\n");
    assert_eq!(place.run(&["kick", &whole]), Said { code: Some(1), out: String::new(), err: none });
    let said = place.run(&["kick", digits]);
    assert!(said.code == Some(1) && said.err.contains("give the whole key"), "{said:?}");
    let said = place.run(&["kick", "me"]);
    assert!(
        said.code == Some(2) && said.err.contains("a key is nodekey: and 64 hexadecimal digits"),
        "{said:?}"
    );
    relay.log_in(1).await.expect("it may come back");
}

#[tokio::test]
async fn kick_is_logged_where_it_closes_something() {
    let place = Place::new();
    let mut relay = Process::start_unread("true", &place.setting());
    let mut log = relay.take_log();
    let _client = relay.log_in(1).await.expect("a login");
    assert_eq!(place.run(&["kick", &node(2).to_string()]).code, Some(1), "it has no connection");
    assert_eq!(place.run(&["kick", &node(1).to_string()]).code, Some(0));
    let mut line = String::new();
    while !line.contains("closing the connections of a key") {
        line.clear();
        assert_ne!(log.read_line(&mut line).expect("UTF-8"), 0, "the relay logs it");
    }
    // The first line about it is that of the key that had a connection.
    assert!(line.contains(&format!("peer={:?}", node(1))) && line.contains("connections=1"), "{line}");
}

#[tokio::test]
async fn why_says_what_is_known_of_a_key_that_is_here_or_was_never_seen() {
    let place = Place::new();
    let relay = start(&place);
    let mut client = log_in(&relay, 1, "some app").await;
    client.send(node(99), &[9; 10]).await.unwrap();
    relay.wait("its packet is dropped", |relay| {
        relay.metric("derp_packets_dropped{kind=\"other\",reason=\"unknown_dest\"}") == 1
    });
    let why = place.json(&["why", &node(1).to_hex()[..8]]);
    assert_eq!((&why["key"], &why["route"]["where"]), (&node(1).to_string().into(), &"here".into()));
    assert_eq!(
        (&why["connections"][0]["app_name"], &why["max_connections_per_key"]),
        (&"some app".into(), &8.into())
    );
    assert_eq!(why["sources"][0]["prefix"], "127.0.0.1");
    assert_eq!(why["sources"][0]["connections"], 1);
    let said = place.run(&["why", &node(1).to_string()]);
    for part in [
        "is connected to this relay\n",
        "admitted by             open\n",
        "received                1 packet, 10 B\n",
        "waiting                 0 packets, 0 B of 512 KiB\n",
        "dropped                 1 packet: unknown_dest 1\n",
        "\naccounts\n  key                     1 of 8 connections\n",
    ] {
        assert!(said.out.contains(part), "{part}: {}", said.out);
    }

    let why = place.json(&["why", &node(7).to_string()]);
    assert_eq!((&why["route"], &why["connections"]), (&Value::Null, &serde_json::json!([])));
    assert_eq!((&why["refusal"], &why["sources"]), (&Value::Null, &serde_json::json!([])));
    let said = place.run(&["why", &node(7).to_string()]);
    assert_eq!(said.code, Some(0));
    assert!(
        said.out.contains("is connected neither to this relay nor to another one of its region\n"),
        "{said:?}"
    );
    assert!(said.out.ends_with("\nno refusal of it is remembered\n"), "{said:?}");
}

#[tokio::test]
async fn why_shows_the_bound_of_a_key_that_a_reload_has_set() {
    let place = Place::new();
    let relay = start(&place);
    let bound = || place.json(&["why", &node(1).to_string()])["max_connections_per_key"].clone();
    assert_eq!(bound(), 8);
    relay.configure(&format!("{}\nlogin.max_connections_per_key = 3", place.setting()));
    relay.hang_up();
    wait("the new bound is in force", || bound() == 3);
}

#[tokio::test]
async fn why_says_for_what_reason_a_key_was_refused_and_from_where() {
    let place = Place::new();
    let list = place.dir.path().join("allowed");
    std::fs::write(&list, format!("{}\n", node(1))).unwrap();
    let settings = format!("{}\nallow_list.file = '{}'", place.setting(), list.display());
    let relay = Process::start("true", &settings);
    let _admitted = relay.log_in(1).await.expect("its key is in the list");
    for _ in 0..2 {
        assert!(relay.log_in(2).await.is_none(), "its key is not in the list");
    }
    assert_eq!(place.connection(node(1))["policy"], "allow_list");
    let why = place.json(&["why", &node(2).to_string()]);
    let refusal = &why["refusal"];
    assert_eq!((&refusal["reason"], &refusal["source"]), (&"not_admitted".into(), &"127.0.0.1".into()));
    assert_eq!((&refusal["times"], &why["route"]), (&2.into(), &Value::Null));
    assert!(refusal["age_seconds"].as_u64().is_some_and(|age| age < 60), "{why}");
    // The account of the address that it came from.
    assert_eq!(why["sources"][0]["prefix"], "127.0.0.1");
    let said = place.run(&["why", &node(2).to_string()]);
    assert!(said.out.contains(" ago, from 127.0.0.1\n") && said.out.contains("not_admitted: "), "{said:?}");
    assert_eq!(place.json(&["why", &node(1).to_string()])["refusal"], Value::Null);
}

#[tokio::test]
async fn why_names_the_relay_that_has_the_key_and_clients_shows_the_link_to_it() {
    let place = Place::new();
    let (files_of_one, files_of_other) = (MeshFiles::new(1), MeshFiles::new(2));
    let other = Relay::start(&files_of_other.settings(&[]));
    let settings =
        format!("{}\n{}", files_of_one.settings(&[files_of_other.peer(other.tls())]), place.setting());
    let one = Relay::start(&settings);
    one.wait("the link is up", |relay| relay.metric("towpath_mesh_links") == 1);
    let (client, _open) = other.client(3).await;
    one.wait("the client is known", |relay| relay.metric("derp_clients_remote") == 1);
    let relay = files_of_other.node_key().public();
    let why = place.json(&["why", &client.to_string()]);
    let route =
        serde_json::json!({"where": "relay", "relay": relay.to_string(), "address": other.tls().to_string()});
    assert_eq!((&why["route"], &why["connections"]), (&route, &serde_json::json!([])));
    let said = place.run(&["why", &client.to_string()]);
    let place_of = format!("is connected to another relay of the region: {relay} at {}\n", other.tls());
    assert!(said.out.contains(&place_of), "{said:?}");
    // A packet that goes that way is in the account of the link.
    let (_, mut sender) = one.client(4).await;
    sender.send(client, &[5; 100]).await.unwrap();
    one.wait("the packet is sent on", |relay| relay.metric("derp_packets_forwarded_out") == 1);
    let link = place.connection(relay);
    assert_eq!((&link["kind"], &link["policy"], &link["mesh"]), (&"link".into(), &Value::Null, &true.into()));
    assert_eq!(link["sent"], serde_json::json!({"packets": 1, "bytes": 100}));
    // It is in the table only.
    for command in ["why", "kick"] {
        let said = place.run(&[command, &relay.to_hex()[..8]]);
        assert!(
            said.code == Some(1) && said.err.contains("no client has a key that begins with"),
            "{said:?}"
        );
    }
}

#[test]
fn the_socket_is_for_its_owner_and_group_and_belongs_to_one_relay() {
    let place = Place::new();
    // The umask of the unit in docs/operating.md.
    let mut relay = start_after("umask 0077", &place);
    let mode = std::fs::metadata(place.socket()).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o660);
    let config = place.dir.path().join("second.toml");
    let text = format!("listen = '127.0.0.1:0'\nstun.listen = []\nadmin.listen = ''\n{}", place.setting());
    std::fs::write(&config, text).unwrap();
    let said = run(80, &["--dev", "--config", config.to_str().unwrap()]);
    let path = place.socket().display().to_string();
    let expected = format!(
        "cannot make the socket {path}: another process answers there; each relay needs an admin.socket of its own\n"
    );
    assert!(said.code == Some(1) && said.err.ends_with(&expected), "{said:?}");
    assert_eq!(place.run(&["healthcheck"]).code, Some(0), "the first goes on");
    relay.terminate();
    assert!(!place.socket().exists(), "it is removed at the end");
    // A relay that is killed leaves it behind.
    let relay = start(&place);
    drop(relay);
    assert!(place.socket().exists());
    let _relay = start(&place);
    assert_eq!(place.run(&["healthcheck"]).code, Some(0));
}

#[test]
fn healthcheck_says_in_one_line_whether_the_relay_is_ready() {
    let place = Place::new();
    let absent = place.run(&["healthcheck"]);
    assert!(absent.code == Some(1) && absent.err.lines().count() == 1, "{absent:?}");
    assert!(absent.err.contains("cannot connect to the relay at"), "{absent:?}");

    // The configuration leads to the socket, and without one to the listener.
    let relay = start(&place);
    let config = |text: &str| {
        let path = place.dir.path().join("relay.toml");
        std::fs::write(&path, text).unwrap();
        run(80, &["healthcheck", "--config", path.to_str().unwrap()])
    };
    let ready = Said { code: Some(0), out: "ready\n".into(), err: String::new() };
    assert_eq!(place.run(&["healthcheck"]), ready);
    assert_eq!(config(&place.setting()), ready);
    assert_eq!(config(&format!("admin.listen = '{}'", relay.admin())), ready);
    // A process of this machine asks a wildcard by loopback.
    let wildcard =
        format!("admin.listen = '0.0.0.0:{}'\nadmin.clients = ['192.0.2.1']", relay.admin().port());
    assert_eq!(config(&wildcard), ready);
    for (text, expected) in [
        ("admin.listen = ''", "has neither an admin.socket nor an admin.listen"),
        ("admin.listen = 'x'", "1 problem in the configuration; "),
    ] {
        let said = config(text);
        assert!(said.code == Some(1) && said.err.contains(expected), "{said:?}");
        assert_eq!(said.err.lines().count(), 1, "{said:?}");
    }
    drop(relay);

    // What a relay answers that is about to start.
    std::fs::remove_file(place.socket()).unwrap();
    let listeners = AdminListeners {
        socket: Some(AdminSocket::bind(&place.socket()).unwrap()),
        ..AdminListeners::default()
    };
    let readiness = Readiness::new();
    let _admin = Admin::start(listeners, prometheus::Registry::new(), readiness.clone(), None).unwrap();
    let said = place.run(&["healthcheck"]);
    let starting = "towpath-relay: not ready: starting (status 503)\n";
    assert_eq!(said, Said { code: Some(1), out: String::new(), err: starting.into() });
    readiness.ready();
    assert_eq!(place.run(&["healthcheck"]), ready);
    // It has no list of connections.
    let said = place.run(&["clients"]);
    assert!(said.code == Some(1) && said.err.contains("is no relay of this version: status 404"), "{said:?}");
}

#[test]
fn what_is_wrong_with_a_request_is_said_in_json_and_the_listener_has_no_operations() {
    let place = Place::new();
    let relay = Relay::start(&place.setting());
    let ask = |request: &str| {
        let mut stream = UnixStream::connect(place.socket()).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        write!(stream, "{request} HTTP/1.0\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    };
    for (request, status, allow) in [
        ("POST /clients", "405", Some("GET")),
        ("GET /kick?key=nodekey:00", "405", Some("POST")),
        ("POST /kick", "400", None),
        ("POST /kick?key=nodekey:00", "400", None),
        ("GET /why?key=", "400", None),
        ("GET /nowhere", "404", None),
        ("GET /metrics", "200", None),
    ] {
        let answer = ask(request);
        assert!(answer.starts_with(&format!("HTTP/1.0 {status} ")), "{request}: {answer}");
        let header = allow.map(|method| format!("\r\nallow: {method}\r\n"));
        assert!(
            header.is_none_or(|header| answer.to_ascii_lowercase().contains(&header.to_ascii_lowercase()))
        );
        if status == "400" {
            assert!(
                answer.ends_with("{\"error\":\"key must be nodekey: and 64 hexadecimal digits\"}\n"),
                "{answer}"
            );
        }
    }
    let escaped = NodePrivate::from_random([1; 32]).public().to_string().replace(':', "%3A");
    assert!(ask(&format!("POST /kick?key={escaped}")).ends_with("\"closed\":0}\n"));
    for path in ["/clients", "/why?key=x"] {
        assert!(relay.get(path).starts_with("HTTP/1.1 404 "), "{path}");
    }
}

/// A relay whose configuration has no socket is not asked by any command, and the message says what to do.
#[test]
fn without_a_socket_the_commands_say_what_to_do() {
    let place = Place::new();
    let path = place.dir.path().join("relay.toml");
    std::fs::write(&path, "hostname = 'relay.example.com'\n").unwrap();
    for command in [&["clients"][..], &["kick", "nodekey:00"], &["why", "nodekey:00"]] {
        let said = run(80, &[command, &["--config", path.to_str().unwrap()]].concat());
        assert!(
            said.code == Some(2) && said.err.contains("the configuration has no admin.socket"),
            "{said:?}"
        );
    }
}
