//! What a forwarded frame costs, counted and not timed: allocations, wake-ups, writes, log calls.

#![allow(unsafe_code, reason = "an allocator that counts cannot be written without")]
#![allow(clippy::print_stdout, reason = "the figures are worth a line in the log")]

mod common;

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::sync::atomic::{AtomicU64, Ordering};

use towpath_relay_client::Client;
use towpath_wire::key::NodePublic;
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Metadata, Subscriber};
use tungstenite::Message;

use common::websocket::{Client as WebSocketClient, PLAIN, send_packet};
use common::{MeshFiles, Relay, packet};

thread_local! {
    /// Whether this thread moves packets.
    static COUNTED: Cell<bool> = const { Cell::new(false) };
}
static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);
static LOG_CALLS: AtomicU64 = AtomicU64::new(0);

fn note(counter: &AtomicU64) {
    // A thread that ends allocates after its variables are gone.
    if COUNTED.try_with(Cell::get).unwrap_or(false) {
        counter.fetch_add(1, Ordering::Relaxed);
    }
}

struct Counting;

// SAFETY: every call is passed on to the system's allocator as it is.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        note(&ALLOCATIONS);
        // SAFETY: the caller's promises are those that the system's allocator asks for.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: as above.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        note(&ALLOCATIONS);
        // SAFETY: as above.
        unsafe { System.realloc(pointer, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Interested in everything, and counts it.
struct LogCounter;

impl Subscriber for LogCounter {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }
    fn new_span(&self, _: &Attributes<'_>) -> Id {
        note(&LOG_CALLS);
        Id::from_u64(1)
    }
    fn record(&self, _: &Id, _: &Record<'_>) {}
    fn record_follows_from(&self, _: &Id, _: &Id) {}
    fn event(&self, _: &Event<'_>) {
        note(&LOG_CALLS);
    }
    fn enter(&self, _: &Id) {}
    fn exit(&self, _: &Id) {}
}

const BATCH: usize = 8;
const PACKET: usize = 1400;

#[tokio::test]
async fn a_batch_of_frames_costs_a_wake_up_a_write_and_no_allocation() {
    // A second subscriber in this process is refused, and the first counts for all.
    let _ = tracing::subscriber::set_global_default(LogCounter);
    expect_costs("tls.records = 'own'", 0).await;
    // rustls puts the plaintext of each record it opens, and the ciphertext of each it seals, into a vector of its own.
    expect_costs("tls.records = 'rustls'", 2).await;
    expect_no_allocation_over_websocket().await;
    expect_costs_of_a_mesh().await;
}

/// Forwards packets from WebSocket to TLS and back, and expects no allocation.
async fn expect_no_allocation_over_websocket() {
    let relay = Relay::start_with_hook(PLAIN, || COUNTED.set(true));
    let (native_key, mut native) = relay.client(1).await;
    let (browser_key, mut browser) = WebSocketClient::log_in(&relay, 2);
    let message = Message::binary(send_packet(native_key, &[7; PACKET]));
    let mut rounds = async |count: u64| {
        for _ in 0..count {
            browser.send(message.clone());
            assert_eq!(packet(&mut native).await.1, [7; PACKET]);
            native.send(browser_key, &[8; PACKET]).await.expect("a packet goes out");
            assert_eq!(browser.packet().1, [8; PACKET]);
        }
    };
    rounds(100).await;
    let before = ALLOCATIONS.load(Ordering::Relaxed);
    rounds(1000).await;
    let allocations = ALLOCATIONS.load(Ordering::Relaxed) - before;
    println!("WebSocket, for 1000 packets each way: {allocations} allocations");
    assert_eq!(allocations, 0);
}

/// Forwards batches from one relay to another, and expects both together to cost at most twice as much as one relay.
async fn expect_costs_of_a_mesh() {
    let (files_of_one, files_of_other) = (MeshFiles::new(201), MeshFiles::new(202));
    let count = || COUNTED.set(true);
    let other = Relay::start_with_hook(&files_of_other.settings(&[]), count);
    let peers = [files_of_other.peer(other.tls())];
    let one = Relay::start_with_hook(&files_of_one.settings(&peers), count);
    one.wait("the link is up", |relay| relay.metric("towpath_mesh_links") == 1);

    let (_, mut sender) = one.client(1).await;
    let (to, mut receiver) = other.client(2).await;
    // This relay's own connection there is announced as well, and is itself; so the client is the first.
    one.wait("the receiver is known", |relay| relay.metric("derp_clients_remote") == 1);
    let mut rounds = async |count| move_batches(&mut sender, to, &mut receiver, count).await;
    rounds(100).await;
    let read = |batches: u64| {
        for (relay, name) in [(&one, "derp_packets_forwarded_out"), (&other, "derp_packets_forwarded_in")] {
            relay.wait("the last turn is published", |relay| relay.metric(name) == batches * BATCH as u64);
        }
        let writes = |relay: &Relay| relay.metric("towpath_writes_total");
        let counted = (ALLOCATIONS.load(Ordering::Relaxed), LOG_CALLS.load(Ordering::Relaxed));
        (writes(&one), writes(&other), counted.0, counted.1)
    };
    let before = read(100);
    const ROUNDS: u64 = 1000;
    rounds(ROUNDS).await;
    let after = read(100 + ROUNDS);
    let writes = (after.0 - before.0, after.1 - before.1);
    let (allocations, log_calls) = (after.2 - before.2, after.3 - before.3);
    println!(
        "mesh, for each of {ROUNDS} batches of {BATCH}: {} and {} writes, {} allocations",
        writes.0 as f64 / ROUNDS as f64,
        writes.1 as f64 / ROUNDS as f64,
        allocations as f64 / ROUNDS as f64,
    );
    assert_eq!(log_calls, 0);
    // Besides those of the batches there are pings and pongs on the link.
    for writes in [writes.0, writes.1] {
        assert!((ROUNDS..ROUNDS + ROUNDS / 20).contains(&writes), "{writes} writes for {ROUNDS} batches");
    }
    assert!(allocations < ROUNDS / 100, "{allocations} allocations for {ROUNDS} batches");
}

/// Sends `count` batches, each when the one before has arrived.
async fn move_batches(sender: &mut Client, to: NodePublic, receiver: &mut Client, count: u64) {
    let packets = [[7; PACKET]; BATCH];
    for _ in 0..count {
        sender.send_batch(packets.iter().map(|packet| (to, &packet[..]))).await.expect("a batch goes out");
        for _ in 0..BATCH {
            assert_eq!(packet(receiver).await.1, packets[0]);
        }
    }
}

/// Forwards batches, one at a time, and expects `allocations_per_batch` of the worker.
async fn expect_costs(settings: &str, allocations_per_batch: u64) {
    let relay = Relay::start_with_hook(settings, || COUNTED.set(true));
    let (_, mut sender) = relay.client(1).await;
    let (to, mut receiver) = relay.client(2).await;
    let mut rounds = async |count| move_batches(&mut sender, to, &mut receiver, count).await;
    rounds(100).await;
    let read = || {
        let metric = |name| relay.metric(name);
        // The worker publishes what it has counted at the end of a turn, before it sleeps.
        let [wakeups, reads, writes] =
            ["towpath_wakeups_total", "towpath_reads_total", "towpath_writes_total"].map(metric);
        (wakeups, reads, writes, ALLOCATIONS.load(Ordering::Relaxed), LOG_CALLS.load(Ordering::Relaxed))
    };
    relay.wait("the last turn is published", |relay| {
        relay.metric("derp_packets_received") == 100 * BATCH as u64
    });
    let before = read();
    const ROUNDS: u64 = 1000;
    rounds(ROUNDS).await;
    let all = (100 + ROUNDS) * BATCH as u64;
    relay.wait("the last turn is published", |relay| relay.metric("derp_packets_received") == all);
    let after = read();

    let (wakeups, reads, writes) = (after.0 - before.0, after.1 - before.1, after.2 - before.2);
    let (allocations, log_calls) = (after.3 - before.3, after.4 - before.4);
    println!(
        "{settings}, for each of {ROUNDS} batches of {BATCH}: {} wake-ups, {} reads, {} writes, {} allocations",
        wakeups as f64 / ROUNDS as f64,
        reads as f64 / ROUNDS as f64,
        writes as f64 / ROUNDS as f64,
        allocations as f64 / ROUNDS as f64,
    );
    assert_eq!(log_calls, 0);
    assert_eq!(writes, ROUNDS, "one write for each batch and destination");
    // A batch that the kernel delivers in two pieces costs two; timers wake up a few times a second at most.
    assert!(wakeups <= ROUNDS + ROUNDS / 20, "{wakeups} wake-ups for {ROUNDS} batches");
    assert!(allocations <= allocations_per_batch * ROUNDS, "{allocations} allocations for {ROUNDS} batches");
}
