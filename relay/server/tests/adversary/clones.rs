//! Connections of one key, each by the same login.

use crate::alone;
use crate::common::Relay;
use crate::honest::Pair;

/// Connections that are tried.
const TRIED: u64 = 300;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clones_of_a_key_are_bounded_and_the_oldest_go() {
    let _alone = alone().await;
    let relay = Relay::start("login.max_connections_per_key = 5");
    let mut pair = Pair::new(&relay).await;
    let mut clones = Vec::new();
    for _ in 0..TRIED {
        clones.push(relay.client(1).await.1);
    }
    relay.wait("the others are closed", |relay| {
        relay.metric("towpath_closed_total{reason=\"key_limit\"}") == TRIED - 5
    });
    assert_eq!(relay.metric("derp_current_connections"), 2 + 5);
    assert_eq!(relay.metric("derp_current_dup_client_conns"), 5);
    // Each record makes its connection the active one of the key. The fifth is the first: it was alone, which counts as
    // having sent.
    let mut newest = clones.split_off(clones.len() - 4);
    for round in 0..200u64 {
        for clone in &mut newest {
            clone.ping(round.to_be_bytes()).await.expect("a ping goes out");
        }
        pair.exchange(1).await;
    }
    pair.assert_undelayed(&relay, 1_000);
}
