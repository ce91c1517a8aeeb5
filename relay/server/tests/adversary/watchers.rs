//! A watcher that reads slowly, in a region of many keys.

use std::time::Duration;

use towpath_relay_client::{Client, Dialer};
use towpath_wire::key::NodePrivate;

use crate::alone;
use crate::common::{MeshFiles, Relay, mesh_info};
use crate::honest::Pair;
use crate::memory::resident;

/// Keys that come, leave and come again.
const KEYS: u8 = 100;

/// A watcher that does not read is owed the last change of each key, however often the keys come and go.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watcher_that_does_not_read_costs_a_bounded_backlog() {
    let _alone = alone().await;
    let files = MeshFiles::new(0x73);
    let relay = Relay::start(&files.settings(&[]));
    let mut pair = Pair::new(&relay).await;
    let dialer: Dialer = relay.dialer().with_info(mesh_info());
    let mut watcher: Client = dialer.connect(&NodePrivate::from_random([0xf1; 32])).await.expect("a login");
    watcher.watch().await.expect("a request goes out");
    let before = resident();
    for _ in 0..5 {
        let mut keys = Vec::new();
        for seed in 1..=KEYS {
            keys.push(relay.client(seed).await);
        }
        pair.exchange(20).await;
        drop(keys);
        relay.wait("all have left", |relay| relay.metric("derp_clients_local") <= 3);
    }
    let grown = resident().saturating_sub(before);
    assert!(grown <= 8 * 1024 * 1024, "{grown} bytes");
    pair.assert_undelayed(&relay, 3_000);
    tokio::time::timeout(Duration::from_secs(20), watcher.recv())
        .await
        .expect("news")
        .expect("it is connected");
}
