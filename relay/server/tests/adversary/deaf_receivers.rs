//! Receivers that do not read what is sent to them.

use std::time::{Duration, Instant};

use towpath_relay_client::Client;
use towpath_wire::key::NodePublic;

use crate::alone;
use crate::common::{PATIENCE, Relay};
use crate::honest::Pair;
use crate::memory::resident;

const OUTBOX: usize = 512 * 1024;
/// Receivers. The kernel and the client's end take some 3 MiB for each.
const DEAF: usize = 30;

/// Sends packets of `len` bytes to each of `deaf` until some for each of them have been dropped.
async fn fill(relay: &Relay, sender: &mut Client, deaf: &[(NodePublic, Client)], len: usize) {
    let packet = vec![0; len];
    let dropped = || relay.metric("derp_packets_dropped");
    let deadline = Instant::now() + PATIENCE;
    let mut lost = vec![false; deaf.len()];
    while lost.contains(&false) {
        assert!(Instant::now() < deadline, "the sockets never fill");
        for (at, (key, _)) in deaf.iter().enumerate().filter(|(at, _)| !lost[*at]).collect::<Vec<_>>() {
            let before = dropped();
            for _ in 0..(256 * 1024 / len).max(2) {
                sender.send(*key, &packet).await.expect("a packet goes out");
            }
            sender.ping([9; 8]).await.expect("a ping goes out");
            while crate::common::event(sender).await != towpath_relay_client::Event::Pong([9; 8]) {}
            lost[at] = dropped() > before;
        }
    }
}

/// What the relay holds for a receiver that does not read: hardly more than `outbox.bytes`, or 32 of the longest packets,
/// and nothing of it once it has waited for `outbox.age`.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_receiver_that_does_not_read_costs_what_its_outbox_may_hold() {
    let _alone = alone().await;
    for (len, most) in [(1_400, OUTBOX * 14 / 10), (65_000, 23 * 1024 * 1024 / 10)] {
        let relay = Relay::start("outbox.write_timeout = \"60s\"\noutbox.age = \"5s\"");
        let mut pair = Pair::new(&relay).await;
        let mut deaf = Vec::new();
        for seed in 0..DEAF {
            deaf.push(relay.client(seed as u8 + 1).await);
        }
        let (_, mut sender) = relay.client(0xf0).await;
        pair.exchange(10).await;
        let (before, resting) = (relay.metric("towpath_frame_memory_bytes") as usize, resident());
        fill(&relay, &mut sender, &deaf, len).await;
        let held = relay.metric("towpath_frame_memory_bytes") as usize - before;
        assert!(held <= DEAF * most, "{} bytes for a receiver of packets of {len}", held / DEAF);
        assert!(held >= DEAF * OUTBOX / 2, "{held} bytes: nothing waits");
        let resident = resident().saturating_sub(resting);
        assert!(resident <= DEAF * most, "{} bytes are resident for each", resident / DEAF);
        pair.exchange(100).await;

        let (deadline, most) = (Instant::now() + PATIENCE, DEAF * OUTBOX * 115 / 100);
        let held = || relay.metric("towpath_frame_memory_bytes") as usize - before;
        while held() > most / 4 {
            assert!(Instant::now() < deadline, "{} bytes wait though they are old", held());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

/// Many receivers that do not read, in a relay with little memory: each loses its own packets, and a pair loses nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_receivers_together_stay_below_the_bound_on_memory() {
    let _alone = alone().await;
    const MEMORY: usize = 16 * 1024 * 1024;
    let relay = Relay::start("memory.max = \"16MiB\"\noutbox.write_timeout = \"60s\"\noutbox.age = \"60s\"");
    let mut pair = Pair::new(&relay).await;
    let mut deaf = Vec::new();
    for seed in 0..120 {
        deaf.push(relay.client(seed + 1).await);
    }
    let (_, mut sender) = relay.client(0xf0).await;
    fill(&relay, &mut sender, &deaf, 1_400).await;
    let held = relay.metric("towpath_frame_memory_bytes") as usize;
    assert!(held <= MEMORY, "{held} bytes");
    assert!(relay.metric("derp_packets_dropped{kind=\"other\",reason=\"memory\"}") > 0);
    pair.exchange(200).await;
}
