//! Connections until no more files can be opened, against the real program.

use std::net::{SocketAddr, TcpListener, TcpStream};

use crate::alone;
use crate::common::process::Process;
use crate::common::{MeshFiles, Relay};

/// Files that the program may open.
const FILES: u32 = 300;
/// Connections that it has room for by default: half, since less than 256 would be left to the rest.
const ROOM: usize = 150;
/// More lines than any start and any attack may cost.
const LINES: usize = 20;

/// A command of the shell by which the program may open few files.
fn limited() -> String {
    format!("ulimit -n {FILES}")
}

/// Opens silent connections.
fn silent(at: SocketAddr, count: usize) -> Vec<TcpStream> {
    (0..count).map(|_| TcpStream::connect(at).expect("the kernel accepts")).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_that_take_every_connection_leave_files_for_health_and_the_mesh() {
    let _alone = alone().await;
    let (files_of_attacked, files_of_other) = (MeshFiles::new(51), MeshFiles::new(52));
    let reserved = TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("an address");
    let settings = files_of_attacked.settings(&[files_of_other.peer(reserved)]);
    let settings = format!("login.max_connections_per_host = 100_000\n{settings}");
    let relay = Process::start(&limited(), &settings);
    let mut clients = Vec::new();
    for number in 0..2 * ROOM as u64 {
        let Some(client) = relay.log_in(number).await else { break };
        clients.push(client);
    }
    assert_eq!(clients.len(), ROOM);
    let _silent = silent(relay.listen, 2 * ROOM);
    assert!(relay.get("/healthz").starts_with("HTTP/1.1 200"));
    relay.wait("the rest is refused with a label", |relay| {
        relay.metric("towpath_refused_total{reason=\"connection_limit\"}") > 2 * ROOM as u64
    });
    assert_eq!(relay.metric("towpath_accept_errors_total"), 0);
    // The mesh dials when all this is so.
    let _other = Relay::start_at(&format!("listen = \"{reserved}\"\n{}", files_of_other.settings(&[])));
    relay.wait("the link is up", |relay| relay.get("/metrics").contains("\ntowpath_mesh_links 1\n"));
    let lines = relay.lines();
    assert!(lines <= LINES, "{lines} lines");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn health_answers_when_the_settings_let_clients_take_every_file() {
    let _alone = alone().await;
    let relay = Process::start(
        &limited(),
        "login.max_connections = 100_000\nlogin.max_connections_per_host = 100_000\nlogin.first_byte_timeout = '60s'",
    );
    let _silent = silent(relay.listen, 2 * FILES as usize);
    relay.wait("files have run out", |relay| relay.metric("towpath_accept_errors_total") > 0);
    for _ in 0..10 {
        assert!(relay.get("/healthz").starts_with("HTTP/1.1 200"));
    }
    relay.wait("a connection of the backlog is closed with a label", |relay| {
        relay.metric("towpath_refused_total{reason=\"open_files\"}") > 0
    });
    let mut client = None;
    for number in 0..20 {
        client = relay.log_in(number).await;
        if client.is_some() {
            break;
        }
    }
    assert!(client.is_some(), "silent connections make room for a client");
    let lines = relay.lines();
    assert!(lines <= LINES, "{lines} lines");
}
