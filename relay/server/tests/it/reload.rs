//! The configuration of a running relay: what is read again, what becomes of it, and that no client notices.

use std::io::{BufRead, BufReader, Read};
use std::net::TcpStream;
use std::process::ChildStderr;
use std::sync::mpsc;

use towpath_relay_client::{Client, Dialer, Event, TlsVersions, Trust};
use towpath_relay_proto::token::{Claims, SigningKey};
use towpath_wire::key::NodePublic;

use crate::common::process::{Process, key};
use crate::common::{MeshFiles, PATIENCE, Relay, event, packet};

/// The log of the program, line by line.
struct Log(mpsc::Receiver<String>);

impl Log {
    fn read(mut from: BufReader<ChildStderr>) -> Self {
        let (send, lines) = mpsc::channel();
        std::thread::spawn(move || {
            loop {
                let mut line = String::new();
                let is_over = from.read_line(&mut line).map_or(true, |read| read == 0);
                if is_over || send.send(line).is_err() {
                    return;
                }
            }
        });
        Self(lines)
    }

    /// The next line with this text.
    #[track_caller]
    fn until(&mut self, text: &str) -> String {
        self.all_until(text).pop().expect("a line")
    }

    /// The next lines, up to the one with this text.
    #[track_caller]
    fn all_until(&mut self, text: &str) -> Vec<String> {
        let mut lines = Vec::new();
        loop {
            let Ok(line) = self.0.recv_timeout(PATIENCE) else {
                panic!("no line with {text}:\n{}", lines.concat())
            };
            let is_last = line.contains(text);
            lines.push(line);
            if is_last {
                return lines;
            }
        }
    }
}

fn start(settings: &str) -> (Process, Log) {
    let mut process = Process::start_unread("true", settings);
    let log = Log::read(process.take_log());
    (process, log)
}

/// These settings, and one host may have every connection.
fn settings(more: &str) -> String {
    format!("login.max_connections_per_host = 1000\n{more}")
}

fn reloads(relay: &Process, outcome: &str) -> u64 {
    relay.metric(&format!("towpath_reloads_total{{outcome=\"{outcome}\",what=\"configuration\"}}"))
}

/// Two clients that are connected all along.
struct Pair {
    one: Client,
    other: Client,
    keys: [NodePublic; 2],
}

impl Pair {
    async fn of(relay: &Process) -> Self {
        let log_in = async |number| relay.log_in(number).await.expect("a login");
        let (one, other) = (log_in(1).await, log_in(2).await);
        Self { one, other, keys: [1, 2].map(|number| key(number).public()) }
    }

    /// Packets pass both ways.
    async fn is_undisturbed(&mut self) {
        let [one, other] = self.keys;
        self.one.send(other, b"there").await.expect("sent");
        assert_eq!(packet(&mut self.other).await, (one, b"there".to_vec()));
        self.other.send(one, b"back").await.expect("sent");
        assert_eq!(packet(&mut self.one).await, (other, b"back".to_vec()));
    }
}

#[tokio::test]
async fn limits_of_a_new_configuration_hold_for_new_connections_and_no_client_notices() {
    let (relay, mut log) = start(&settings("login.first_byte_timeout = '60s'"));
    let mut pair = Pair::of(&relay).await;

    // By itself, without a signal.
    relay.configure(&settings("login.max_connections = 3\nlogin.first_byte_timeout = '1s'"));
    let line = log.until("new values of the configuration are in force");
    assert!(line.contains("INFO"), "{line}");
    assert!(line.ends_with(": login.first_byte_timeout, login.max_connections\n"), "{line}");
    let mut silent = TcpStream::connect(relay.listen).expect("the relay accepts");
    silent.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    assert!(silent.read(&mut [0]).is_ok_and(|read| read == 0), "closed within the new time");
    let third = relay.log_in(3).await.expect("a login");
    assert!(relay.log_in(4).await.is_none(), "the pair and another one are three");
    pair.is_undisturbed().await;

    // On a signal, which is answered also where nothing has changed.
    relay.configure(&settings("login.max_connections = 4\nlogin.first_byte_timeout = '1s'"));
    relay.hang_up();
    log.until("SIGHUP: the configuration and the files that it names are read again");
    log.until("new values of the configuration are in force: login.max_connections");
    let _fourth = relay.log_in(4).await.expect("a login");
    relay.hang_up();
    log.until("the configuration has no new values that reload");
    // What became of it is counted once it is done, behind the line.
    relay.wait("the reloads are counted", |relay| {
        ["replaced", "unchanged", "refused"].map(|outcome| reloads(relay, outcome)) == [2, 1, 0]
    });
    pair.is_undisturbed().await;
    drop(third);
}

#[tokio::test]
async fn a_bad_configuration_is_refused_as_a_whole_and_the_old_one_stays() {
    let (relay, mut log) = start(&settings("login.max_connections = 3"));
    let mut pair = Pair::of(&relay).await;
    for (times, (bad, why)) in (1..).zip([
        (
            "login.max_connections = 9\nlogin.max_pending = 0",
            "login.max_pending: found 0, allowed: 1 to 1000000",
        ),
        ("login.max_connections = 9\nlogins = 3", "logins: unknown key"),
        ("login.max_connections = 9 9", "not valid TOML"),
        (
            "login.max_connections = 9\nmesh.key_file = '/nowhere/mesh.key'",
            "mesh.key_file: cannot read /nowhere/mesh.key",
        ),
    ]) {
        relay.configure(&settings(bad));
        if times > 2 {
            relay.hang_up();
        }
        let line = log.until("the relay goes on with its old configuration: ");
        assert!(line.contains("ERROR") && line.contains(why), "{line}");
        relay.wait("the refusal is counted", |relay| reloads(relay, "refused") >= times);
    }
    let _third = relay.log_in(3).await.expect("a login");
    assert!(relay.log_in(4).await.is_none(), "the old bound holds");
    pair.is_undisturbed().await;
    assert_eq!(reloads(&relay, "replaced"), 0);
}

#[tokio::test]
async fn settings_that_need_a_restart_are_named_in_one_warning_and_the_others_hold() {
    let (relay, mut log) = start(&settings(""));
    relay.configure(&settings("workers = 7\nlogin.max_connections = 2\nkeepalive = '33s'"));
    let line = log.until("need a restart");
    assert!(line.contains("WARN") && line.ends_with(": workers, keepalive\n"), "{line}");
    log.until("new values of the configuration are in force: login.max_connections");
    let _pair = Pair::of(&relay).await;
    assert!(relay.log_in(3).await.is_none());
    // What is taken back needs none.
    relay.configure(&settings(""));
    let lines = log.all_until("new values");
    assert!(lines.len() == 1 && lines[0].contains(": login.max_connections"), "{lines:?}");
    relay.log_in(3).await.expect("a login");
}

/// A link would be dialled with another key, or with other roots, than the rest of the mesh has.
#[test]
fn links_wait_for_the_restart_that_a_new_mesh_key_or_root_needs_and_other_settings_do_not() {
    let files = MeshFiles::new(3);
    let other_key = files.path("other.key");
    std::fs::copy(files.path("mesh.key"), &other_key).expect("a copy, with the mode of the file");
    let root = format!("\nmesh.ca_file = {:?}", files.path("cert.pem"));
    let peer = [MeshFiles::new(4).peer("127.0.0.1:1".parse().expect("an address"))];
    let here = |settings: String| {
        settings.replace(&format!("{:?}", files.path("mesh.key")), &format!("{other_key:?}"))
    };
    for (setting, with_peer, without) in [
        ("mesh.key_file", here(files.settings(&peer)), here(files.settings(&[]))),
        ("mesh.ca_file", files.settings(&peer) + &root, files.settings(&[]) + &root),
    ] {
        let (relay, mut log) = start(&files.settings(&[]));
        relay.configure(&(with_peer + "\nlogin.max_connections = 2"));
        let line = log.until("need a restart");
        assert!(line.ends_with(&format!(": {setting}, mesh.peers\n")), "{line}");
        log.until("new values of the configuration are in force: login.max_connections");
        assert_eq!(relay.metric("towpath_mesh_peers"), 0);
        // What has taken effect is taken back, and what has not is not.
        relay.configure(&without);
        let lines = log.all_until("new values of the configuration are in force");
        assert!(lines[0].ends_with(&format!(": {setting}\n")), "{lines:?}");
        assert!(lines.len() == 2 && lines[1].ends_with(": login.max_connections\n"), "{lines:?}");
        relay.configure(&files.settings(&peer));
        let lines = log.all_until("new values of the configuration are in force: mesh.peers");
        assert!(!lines.iter().any(|line| line.contains("need a restart")), "{lines:?}");
        relay.wait("the peer is dialled", |relay| relay.metric("towpath_mesh_peers") == 1);
    }
}

#[test]
fn a_warning_about_the_configuration_is_written_when_it_is_new_or_asked_for() {
    let mut process = Process::start_unread("export TOWPATH_LOGIN_MAX=1", &settings(""));
    let mut log = Log::read(process.take_log());
    let is_warning = |line: &String| line.contains("WARN") && line.contains("TOWPATH_LOGIN_MAX");
    process.configure(&settings("login.max_connections = 2"));
    let lines = log.all_until("new values of the configuration are in force");
    assert!(!lines.iter().any(is_warning), "the start has written it: {lines:?}");
    process.hang_up();
    let lines = log.all_until("the configuration has no new values that reload");
    assert_eq!(lines.iter().filter(|line| is_warning(line)).count(), 1, "{lines:?}");
}

/// The file of the allow list is replaced while clients are connected.
#[tokio::test]
async fn an_allow_list_that_is_replaced_admits_its_new_keys_and_closes_those_that_it_lacks() {
    let dir = tempfile::tempdir().expect("a directory");
    let (list, draft) = (dir.path().join("allowed"), dir.path().join("draft"));
    let replace = |keys: &[u64], more: &str| {
        let lines: String = keys.iter().map(|&number| format!("{}\n", key(number).public())).collect();
        std::fs::write(&draft, lines + more).expect("a file");
        std::fs::rename(&draft, &list).expect("a new name");
    };
    replace(&[1, 2, 3], "");
    let (relay, mut log) = start(&format!("allow_list.file = '{}'", list.display()));
    let mut pair = Pair::of(&relay).await;
    let mut third = relay.log_in(3).await.expect("a login");
    assert!(relay.log_in(4).await.is_none());

    replace(&[1, 2, 4], "");
    let line = log.until("the allow list has been replaced");
    assert!(line.contains("keys=3"), "{line}");
    let closed = tokio::time::timeout(PATIENCE, async { while third.recv().await.is_ok() {} });
    closed.await.expect("a key that is no longer in the list is closed");
    let _fourth = relay.log_in(4).await.expect("a login");
    pair.is_undisturbed().await;

    // What cannot be used changes nothing.
    for (keys, more, why) in [
        (&[1][..], "nodekey:00\n", "allowed:2: not a node key"),
        (&[], "", "is empty; to admit no key, write a line with # into it"),
    ] {
        replace(keys, more);
        let line = log.until("the allow list has not been replaced, and the old one holds: ");
        assert!(line.contains("ERROR") && line.contains(why), "{line}");
    }
    let refused = "towpath_reloads_total{outcome=\"refused\",what=\"allow_list\"}";
    relay.wait("both refusals are counted", |relay| relay.metric(refused) == 2);
    relay.hang_up();
    log.until("the allow list has not been replaced");
    pair.is_undisturbed().await;
}

/// The relays that a mesh has besides the one under test.
struct Other {
    relay: Relay,
    peer: String,
}

impl Other {
    fn new(seed: u8) -> Self {
        let files = MeshFiles::new(seed);
        let relay = Relay::start(&files.settings(&[]));
        let peer = files.peer(relay.tls());
        Self { relay, peer }
    }

    /// How often the relay under test has dialled this one.
    fn dialled(&self) -> u64 {
        self.relay.metric("derp_accepts")
    }
}

#[tokio::test]
async fn relays_that_join_or_leave_the_list_get_or_lose_their_link_and_the_others_keep_theirs() {
    let (first, second) = (Other::new(1), Other::new(2));
    let files = MeshFiles::new(3);
    let settings =
        |peers: &[&Other]| files.settings(&peers.iter().map(|other| other.peer.clone()).collect::<Vec<_>>());
    let (relay, mut log) = start(&settings(&[&first]));
    let links = |wanted: u64| {
        relay.wait("links", |relay| {
            [relay.metric("towpath_mesh_links"), relay.metric("towpath_mesh_peers")] == [wanted; 2]
        });
    };
    links(1);
    let mut pair = Pair::of(&relay).await;
    let (far, mut far_client) = first.relay.client(77).await;

    relay.configure(&settings(&[&first, &second]));
    log.until("new values of the configuration are in force: mesh.peers");
    links(2);
    relay.configure(&settings(&[&second]));
    log.until("no link is kept to a relay that has left mesh.peers");
    links(1);
    relay.wait("the link is closed", |relay| relay.metric("towpath_closed_total{reason=\"unlinked\"}") == 1);
    assert_eq!((first.dialled(), second.dialled()), (2, 1), "a link and a client, a link");

    // Back again: what is behind it is reached again.
    relay.configure(&settings(&[&first, &second]));
    links(2);
    assert_eq!((first.dialled(), second.dialled()), (3, 1), "the link of the second has lasted");
    relay.wait("the far key is known", |relay| relay.metric("derp_clients_remote") > 0);
    pair.one.send(far, b"over the new link").await.expect("sent");
    let (_, received) = tokio::time::timeout(PATIENCE, packet(&mut far_client)).await.expect("in time");
    assert_eq!(received, b"over the new link");
    pair.is_undisturbed().await;
}

/// A relay that is listed and does not answer is dialled every five seconds until it is taken out; then the task that does so
/// ends.
#[test]
fn a_relay_that_never_answered_is_not_dialled_once_it_has_left_the_list() {
    let files = MeshFiles::new(3);
    let nowhere = MeshFiles::new(4).peer("127.0.0.1:1".parse().expect("an address"));
    let (relay, mut log) = start(&files.settings(&[nowhere]));
    log.until("cannot link; retrying every 5 s");
    relay.configure(&files.settings(&[]));
    log.until("no link is kept to a relay that has left mesh.peers");
    relay.wait("no peers", |relay| relay.metric("towpath_mesh_peers") == 0);
}

/// The key of an issuer is replaced by another in two steps, while clients of both are connected.
#[tokio::test]
async fn a_token_key_that_is_taken_out_closes_its_clients_and_no_others() {
    let dir = tempfile::tempdir().expect("a directory");
    let (file, draft) = (dir.path().join("token-keys"), dir.path().join("draft"));
    let issuer = |seed| SigningKey::from_random(&[seed; 32]);
    let replace = |seeds: &[u8]| {
        let lines: String = seeds.iter().map(|&seed| format!("{}\n", issuer(seed).public())).collect();
        std::fs::write(&draft, lines).expect("a file");
        std::fs::rename(&draft, &file).expect("a new name");
    };
    replace(&[1]);
    let (relay, mut log) = start(&format!("tokens.key_file = '{}'", file.display()));
    let log_in = async |number: u64, seed: u8| {
        let (client, expires) = (key(number).public(), 4_102_444_800);
        let claims = Claims { client, relay: None, expires, not_before: None, issued: None };
        let token = issuer(seed).issue(&claims).expect("a token");
        let port = relay.listen.port();
        let dialer = Dialer::tls("localhost", port, &Trust::Anyone, TlsVersions::Both).expect("a dialer");
        dialer.at(relay.listen).with_token(token).connect(&key(number)).await
    };
    let mut old = log_in(1, 1).await.expect("a login");
    replace(&[1, 2]);
    log.until("the keys for tokens have been replaced");
    let mut new = log_in(2, 2).await.expect("a login");
    replace(&[2]);
    log.until("the keys for tokens have been replaced");
    let closed = tokio::time::timeout(PATIENCE, async { while old.recv().await.is_ok() {} });
    closed.await.expect("a client with a token of a key that is gone is closed");
    assert!(log_in(3, 1).await.is_err());

    replace(&[]);
    let line = log.until("the keys for tokens have not been replaced, and the old ones hold: ");
    assert!(line.contains("ERROR") && line.contains("it holds no key"), "{line}");
    new.ping([7; 8]).await.expect("it is connected");
    assert_eq!(event(&mut new).await, Event::Pong([7; 8]));
}
