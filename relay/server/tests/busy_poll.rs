//! A worker that polls does not sleep between packets; one that does not, does.

mod common;

use std::fs;
use std::time::{Duration, Instant};

use towpath_relay_client::{Client, Event};

use common::{PATIENCE, Relay, event};

const PINGS: u64 = 100;
/// From a pong to the next ping.
const REST: Duration = Duration::from_millis(1);

/// How often the only worker went to sleep while it answered so many pings, with a rest between them.
async fn sleeps(client: &mut Client) -> u64 {
    let before = sleeps_of_worker();
    for number in 0..PINGS {
        let data = number.to_be_bytes();
        client.ping(data).await.expect("a ping goes out");
        while event(client).await != Event::Pong(data) {}
        tokio::time::sleep(REST).await;
    }
    sleeps_of_worker() - before
}

/// Voluntary context switches of the worker since it was started (proc_pid_status(5)).
fn sleeps_of_worker() -> u64 {
    let threads = fs::read_dir("/proc/self/task").expect("threads");
    let statuses = threads.filter_map(|thread| fs::read_to_string(thread.ok()?.path().join("status")).ok());
    let mut workers = statuses.filter(|status| status.starts_with("Name:\tforward-0\n"));
    let status = workers.next().expect("a worker");
    assert_eq!(workers.next(), None, "one worker");
    let count = status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"));
    count.expect("a count").trim().parse().expect("a number")
}

#[tokio::test]
async fn a_worker_that_polls_does_not_sleep_between_packets() {
    let relay = Relay::start("");
    let (_, mut client) = relay.client(1).await;
    let sleeping = sleeps(&mut client).await;
    assert!(sleeping >= PINGS / 2, "without polling, it slept {sleeping} times");
    drop((client, relay));

    let relay = Relay::start("busy_poll = '10ms'");
    let (_, mut client) = relay.client(1).await;
    // On a machine that is busy otherwise a ping may come later than the worker looks for it.
    let deadline = Instant::now() + PATIENCE;
    while sleeps(&mut client).await >= PINGS / 2 {
        assert!(Instant::now() < deadline, "it sleeps as often as without polling");
    }
}
