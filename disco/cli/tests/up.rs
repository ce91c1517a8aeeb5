//! Running peers, and the commands that ask them, as an operator runs them.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;
use tokio::time::sleep;
use towpath::Region;
use towpath_live::LocalRelay;
use towpath_wire::map::DerpMap;

/// How long anything may take that takes milliseconds.
const PATIENCE: Duration = Duration::from_secs(30);

fn towpath(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_towpath"))
        .env_clear()
        .args(arguments)
        .output()
        .expect("the program runs")
}

fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// A peer that runs in a process of its own.
struct RunningPeer {
    process: Child,
    key: String,
    socket: PathBuf,
}

impl RunningPeer {
    fn ask(&self, arguments: &[&str]) -> Output {
        let mut all = arguments.to_vec();
        all.extend(["--socket", self.socket.to_str().expect("a path")]);
        towpath(&all)
    }

    fn status(&self) -> Option<Value> {
        let output = self.ask(&["status", "--json"]);
        output.status.success().then(|| serde_json::from_slice(&output.stdout).expect("JSON"))
    }
}

impl Drop for RunningPeer {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// The path of a file of a peer, and its key.
fn key_of(dir: &Path, name: &str) -> String {
    let file = dir.join(format!("{name}.key"));
    let output = towpath(&["key", file.to_str().expect("a path")]);
    assert!(output.status.success(), "{}", said(&output));
    String::from_utf8(output.stdout).expect("text").trim().to_owned()
}

fn start(dir: &Path, name: &str, peer: &str) -> RunningPeer {
    let key = key_of(dir, name);
    let (config, socket) = (dir.join(format!("{name}.toml")), dir.join(format!("{name}.sock")));
    let text = format!(
        "key_file = \"{name}.key\"\nrelay_map = \"map.json\"\npeers = [\"{peer}\"]\nport_mapping = false\n\
         [admin]\nsocket = \"{name}.sock\"\nlisten = \"127.0.0.1:0\"\n[log]\nformat = \"json\"\n"
    );
    std::fs::write(&config, text).expect("a file");
    let process = Command::new(env!("CARGO_BIN_EXE_towpath"))
        .env_clear()
        .current_dir(dir)
        .args(["up", "--config"])
        .arg(&config)
        .stderr(Stdio::from(std::fs::File::create(dir.join(format!("{name}.log"))).expect("a file")))
        .spawn()
        .expect("the program runs");
    RunningPeer { process, key, socket }
}

async fn wait(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < deadline, "{what} within {PATIENCE:?}");
        sleep(Duration::from_millis(20)).await;
    }
}

async fn pair() -> (TempDir, LocalRelay, [RunningPeer; 2]) {
    let dir = tempfile::tempdir().expect("a directory");
    let relay = LocalRelay::start(Region(900), Duration::from_millis(1)).await.expect("a relay");
    std::fs::write(dir.path().join("map.json"), DerpMap::of(relay.region("test", None)).to_json())
        .expect("a file");
    let keys = ["one", "two"].map(|name| key_of(dir.path(), name));
    let peers = [start(dir.path(), "one", &keys[1]), start(dir.path(), "two", &keys[0])];
    for peer in &peers {
        wait("the link is up", || peer.status().is_some_and(|status| status["relays"][0]["up"] == true))
            .await;
    }
    (dir, relay, peers)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_running_peer_answers_who_asks_it_and_ends_when_it_is_told() {
    let (dir, _relay, mut peers) = pair().await;
    let ping = peers[0].ask(&["ping", &peers[1].key, "--count", "2"]);
    assert!(ping.status.success(), "{}", said(&ping));
    assert_eq!(said(&ping).matches("answer ").count(), 2, "{}", said(&ping));
    let status = said(&peers[0].ask(&["status"]));
    for part in [
        &peers[0].key,
        &peers[1].key,
        "home             region 900",
        "relay 900        up",
        "port mapping     no gateway",
    ] {
        assert!(status.contains(part), "no `{part}` in {status}");
    }
    let why = said(&peers[0].ask(&["why", &peers[1].key]));
    assert!(why.contains("NAT here"), "{why}");
    let why = peers[0].ask(&["why", &peers[1].key, "--json"]);
    let why: Value = serde_json::from_slice(&why.stdout).expect("JSON");
    assert_eq!(why["heard"], true, "{why}");
    let stranger = format!("nodekey:{}", "ab".repeat(32));
    let refused = peers[0].ask(&["why", &stranger]);
    assert_eq!(refused.status.code(), Some(1));
    assert!(said(&refused).contains("not one of `peers`"), "{}", said(&refused));

    let log = || std::fs::read_to_string(dir.path().join("one.log")).expect("a log");
    let metrics = log().lines().find_map(|line| {
        let line: Value = serde_json::from_str(line).ok()?;
        (line["message"] == "metrics and health").then(|| line["address"].as_str().map(str::to_owned))?
    });
    let metrics = metrics.unwrap_or_else(|| panic!("no address of metrics in {}", log()));
    let mut page = String::new();
    let mut stream = TcpStream::connect(metrics).expect("it is served");
    write!(stream, "GET /metrics HTTP/1.0\r\nHost: localhost\r\n\r\n").expect("a request");
    stream.read_to_string(&mut page).expect("a page");
    for part in [
        "towpath_peer_relay_up{region=\"900\"} 1",
        "towpath_peer_peers{path=",
        "towpath_peer_lost_total{reason=",
    ] {
        assert!(page.contains(part), "no `{part}` in {page}");
    }

    let pid = peers[0].process.id().to_string();
    assert!(Command::new("kill").arg(&pid).status().expect("kill runs").success());
    let ended = peers[0].process.wait().expect("it ends");
    assert!(ended.success(), "{ended}: {}", log());
    assert!(!peers[0].socket.exists(), "it takes its socket away");
    assert!(!log().contains("privkey"), "no key is logged");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_that_does_not_run_is_no_answer_with_a_reason() {
    let (_dir, _relay, peers) = pair().await;
    let [one, two] = peers;
    let key = two.key.clone();
    drop(two);
    let ping = one.ask(&["ping", &key, "--count", "1"]);
    assert_eq!(ping.status.code(), Some(1), "{}", said(&ping));
    assert!(said(&ping).contains("no answer"), "{}", said(&ping));
}

#[test]
fn what_is_wrong_is_said_with_what_to_do() {
    let dir = tempfile::tempdir().expect("a directory");
    let config = dir.path().join("peer.toml");
    std::fs::write(&config, "relay_map = \"missing.json\"\nkey_file = \"peer.key\"\nprot = 1\n")
        .expect("a file");
    let up = |directory: &Path| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_towpath"));
        command
            .env_clear()
            .current_dir(directory)
            .args(["up", "--config", "peer.toml"])
            .output()
            .expect("it runs")
    };
    let wrong = up(dir.path());
    assert_eq!(wrong.status.code(), Some(2), "{}", said(&wrong));
    assert!(said(&wrong).contains("did you mean port?"), "{}", said(&wrong));
    std::fs::write(&config, "relay_map = \"missing.json\"\nkey_file = \"peer.key\"\n").expect("a file");
    let wrong = up(dir.path());
    assert_eq!(wrong.status.code(), Some(1), "{}", said(&wrong));
    assert!(said(&wrong).contains("cannot read the relay map missing.json"), "{}", said(&wrong));
    let status = towpath(&["status", "--socket", "/nonexistent/peer.sock"]);
    assert!(
        said(&status).contains("cannot connect to the peer at /nonexistent/peer.sock; is it running"),
        "{}",
        said(&status)
    );
}
