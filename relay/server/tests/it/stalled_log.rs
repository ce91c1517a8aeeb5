//! A log that is not read: standard error is a pipe, and its reader has stalled. The relay loses lines, and nothing else.

use std::io::BufRead;
use std::net::TcpStream;
use std::time::Instant;

use crate::common::process::{Process, key};
use crate::common::{PATIENCE, packet};

/// Connections until the metrics are asked whether lines are lost.
const ROUND: usize = 500;

/// The relay, with a line for each connection and a reader that has stalled.
fn start() -> Process {
    Process::start_unread("true", "workers = 1\nlog.level = 'debug'")
}

fn lines_dropped(relay: &Process) -> u64 {
    relay.metric("towpath_log_lines_dropped_total")
}

/// Causes lines until some are lost.
fn fill_log(relay: &Process) {
    let begin = Instant::now();
    while lines_dropped(relay) == 0 {
        assert!(begin.elapsed() < 6 * PATIENCE, "the log takes more and more");
        for _ in 0..ROUND {
            drop(TcpStream::connect(relay.listen).expect("the kernel accepts"));
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn behind_a_stalled_reader_clients_log_in_packets_pass_and_the_relay_ends() {
    let mut relay = start();
    let mut sender = relay.log_in(1).await.expect("a login");
    let mut receiver = relay.log_in(2).await.expect("a login");
    fill_log(&relay);
    sender.send(key(2).public(), b"established before").await.expect("connected");
    assert_eq!(packet(&mut receiver).await.1, b"established before");
    let late = tokio::time::timeout(PATIENCE, relay.log_in(3)).await;
    let mut late = late.expect("a login in time").expect("a login");
    sender.send(key(3).public(), b"logged in behind it").await.expect("connected");
    assert_eq!(packet(&mut late).await.1, b"logged in behind it");
    assert!(relay.get("/readyz").starts_with("HTTP/1.1 200"));
    assert!(relay.terminate().success());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_that_comes_back_reads_how_many_lines_are_missing() {
    let mut relay = start();
    fill_log(&relay);
    let mut log = relay.take_log();
    let (found, missing) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let mut line = String::new();
        while log.read_line(&mut line).expect("UTF-8") > 0 {
            if let Some((missing, _)) = line.split_once(" lines of the log are missing here") {
                found.send(missing.parse::<u64>().expect("a number")).expect("the test waits");
                return;
            }
            line.clear();
        }
    });
    let missing = missing.recv_timeout(PATIENCE).expect("the log says that lines are missing");
    assert!(missing > 0 && missing <= lines_dropped(&relay), "{missing}");
}
