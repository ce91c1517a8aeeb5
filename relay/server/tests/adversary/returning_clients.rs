//! A crowd of clients that come back at once to a relay that asks a backend about each of them.

#![allow(clippy::print_stdout, reason = "a figure is for a person to read")]

use std::collections::HashMap;
use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::sleep;
use towpath_wire::sync::lock;

use crate::alone;
use crate::attacker::log_in_at;
use crate::common::login::Stream;
use crate::common::process::{Process, key};
use crate::common::trusting_anyone;
use crate::honest::Pair;

const CLIENTS: u64 = 10_000;
/// Clients that dial at once, from eight hosts.
const DIALERS: u64 = 256;
/// How long the backend takes for an answer.
const ANSWER: Duration = Duration::from_millis(20);

/// A backend that allows every key, and counts what it is asked.
#[derive(Default)]
struct Backend {
    in_flight: AtomicUsize,
    most_in_flight: AtomicUsize,
    connections: AtomicUsize,
    /// How often each key was asked about.
    asked: Mutex<HashMap<String, u32>>,
}

/// What a backend was asked.
struct Asked {
    keys: usize,
    /// The most questions about one key.
    most: u32,
    in_flight: usize,
    connections: usize,
}

impl Backend {
    async fn start() -> (Arc<Self>, SocketAddr) {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let (backend, address) = (Arc::new(Self::default()), listener.local_addr().expect("an address"));
        let accepting = backend.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                accepting.connections.fetch_add(1, Ordering::Relaxed);
                let serving = accepting.clone();
                tokio::spawn(async move { serving.serve(stream).await });
            }
        });
        (backend, address)
    }

    /// Answers the questions of one connection until its end.
    async fn serve(&self, mut stream: TcpStream) {
        let mut received = Vec::new();
        while let Some(question) = read_question(&mut stream, &mut received).await {
            let now = self.in_flight.fetch_add(1, Ordering::Relaxed) + 1;
            self.most_in_flight.fetch_max(now, Ordering::Relaxed);
            *lock(&self.asked).entry(question).or_default() += 1;
            sleep(ANSWER).await;
            self.in_flight.fetch_sub(1, Ordering::Relaxed);
            let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 14\r\n\r\n{\"Allow\":true}";
            if stream.write_all(answer).await.is_err() {
                return;
            }
        }
    }

    /// Waits until it was asked about so many keys, and for two more looks of the relay at the keys that are due.
    async fn wait_asked(&self, keys: u64) {
        let begin = Instant::now();
        while lock(&self.asked).len() < keys as usize {
            let asked = lock(&self.asked).len();
            assert!(begin.elapsed() < Duration::from_secs(60), "it was asked about {asked} keys");
            sleep(Duration::from_millis(50)).await;
        }
        sleep(Duration::from_secs(2)).await;
    }

    /// What it was asked since the last call.
    fn take(&self) -> Asked {
        let asked = std::mem::take(&mut *lock(&self.asked));
        Asked {
            keys: asked.len(),
            most: asked.into_values().max().unwrap_or_default(),
            in_flight: self.most_in_flight.swap(0, Ordering::Relaxed),
            connections: self.connections.swap(0, Ordering::Relaxed),
        }
    }
}

/// The body of the next request on a connection; `None` at its end.
async fn read_question(stream: &mut TcpStream, received: &mut Vec<u8>) -> Option<String> {
    loop {
        let text = String::from_utf8_lossy(received).into_owned();
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
            let length: usize = length.expect("a length").parse().expect("a number");
            if body.len() >= length {
                let question = body[..length].to_owned();
                received.clear();
                return Some(question);
            }
        }
        if stream.read_buf(received).await.ok()? == 0 {
            return None;
        }
    }
}

/// Logs all clients in, [`DIALERS`] at a time, and returns their connections and how long it took.
async fn log_all_in(relay: SocketAddr) -> (Vec<Stream>, Duration) {
    let (config, next, begin) = (Arc::new(trusting_anyone()), Arc::new(AtomicU64::new(0)), Instant::now());
    let mut dialers = JoinSet::new();
    for dialer in 0..DIALERS {
        let (config, next) = (config.clone(), next.clone());
        dialers.spawn(async move {
            let mut clients = Vec::new();
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                if number >= CLIENTS {
                    return clients;
                }
                let client = log_in_at(2 + (dialer % 8) as u8, number, relay, &config).await;
                clients.push(client.expect("every client is admitted"));
            }
        });
    }
    let clients = dialers.join_all().await.into_iter().flatten().collect();
    (clients, begin.elapsed())
}

/// A pair that exchanges packets until it is told to end, and loses none.
struct Exchange {
    ends: Arc<AtomicBool>,
    running: JoinHandle<(u64, Duration)>,
}

impl Exchange {
    async fn start(relay: &Process) -> Self {
        let [sender, receiver] = [relay.log_in(1).await, relay.log_in(2).await];
        let of = |number: u64| key(number).public();
        let mut pair =
            Pair::of((of(1), sender.expect("the sender")), (of(2), receiver.expect("the receiver")));
        let ends = Arc::new(AtomicBool::new(false));
        let told = ends.clone();
        let running = tokio::spawn(async move {
            let (mut packets, mut slowest) = (0, Duration::ZERO);
            while !told.load(Ordering::Relaxed) {
                let begin = Instant::now();
                pair.exchange(1).await;
                slowest = slowest.max(begin.elapsed());
                packets += 1;
            }
            (packets, slowest)
        });
        Self { ends, running }
    }

    /// The packets that were exchanged, and how long the slowest was under way.
    async fn end(self) -> (u64, Duration) {
        self.ends.store(true, Ordering::Relaxed);
        self.running.await.expect("the pair loses nothing")
    }
}

/// The records of the admitted keys in a state directory.
fn records(file: &Path) -> String {
    fs::read_to_string(file).unwrap_or_default()
}

/// Makes every confirmation in the file an hour older, so that each key is due when it comes back.
fn age(file: &Path) {
    let an_hour_ago = SystemTime::UNIX_EPOCH.elapsed().expect("a time after 1970").as_secs() - 3_600;
    let aged = records(file).lines().fold(String::new(), |aged, line| {
        let (record, _confirmed) = line.rsplit_once(' ').expect("a record");
        aged + record + " " + &an_hour_ago.to_string() + "\n"
    });
    fs::write(file, aged).expect("a file");
}

/// Lets the clients log in at a relay while its pair exchanges packets, and returns their connections.
async fn crowd(what: &str, relay: &Process, backend: &Backend) -> Vec<Stream> {
    let pair = Exchange::start(relay).await;
    let (clients, took) = log_all_in(relay.listen).await;
    backend.wait_asked(CLIENTS + 2).await;
    let (packets, slowest) = pair.end().await;
    let Asked { keys, most, in_flight, connections } = backend.take();
    println!(
        "{CLIENTS} clients {what}, in TLS: all logged in within {took:?} (goal 30 s); {keys} keys asked about, each {most} \
         times at most (goal 1), {in_flight} requests in flight at most (goal 64) on {connections} connections; \
         {packets} packets of a pair beside them and none lost, the slowest {slowest:?}"
    );
    assert!(took <= Duration::from_secs(30));
    assert_eq!((keys as u64, most), (CLIENTS + 2, 1));
    assert!(in_flight <= 64);
    clients
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "make figures"]
async fn ten_thousand_clients_return_within_30_s_and_each_is_asked_about_once_and_64_at_a_time() {
    let _alone = alone().await;
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("admitted-keys");
    let (backend, address) = Backend::start().await;
    let settings =
        format!("verify.url = 'http://{address}/verify'\nstate_dir = '{}'", folder.path().display());
    let start = || Process::start("ulimit -n 20000", &settings);
    let relay = start();
    let clients = crowd("that no policy knows", &relay, &backend).await;
    relay.wait("every key is written down", |_| records(&file).lines().count() as u64 >= CLIENTS + 2);
    // As kill -9 does.
    drop(relay);
    drop(clients);
    age(&file);
    let relay = start();
    assert_eq!(relay.metric("towpath_known_keys"), CLIENTS + 2);
    crowd("that return to a relay that was killed", &relay, &backend).await;
}
