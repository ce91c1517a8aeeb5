//! A client that sends to as many keys as it can.

use towpath_wire::key::NodePrivate;

use crate::alone;
use crate::common::Relay;
use crate::honest::Pair;
use crate::memory::resident;

/// Keys that are sent to, present and absent.
const KEYS: u32 = 20_000;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn packets_to_many_keys_leave_nothing_behind() {
    let _alone = alone().await;
    let relay = Relay::start("");
    let mut pair = Pair::new(&relay).await;
    let mut present = Vec::new();
    for seed in 0..40 {
        present.push(relay.client(seed + 1).await);
    }
    let (_, mut attacker) = relay.client(0xf0).await;
    pair.exchange(10).await;
    let before = resident();
    for number in 0..KEYS {
        let mut seed = [0; 32];
        seed[..4].copy_from_slice(&number.to_be_bytes());
        // The bytes of a private key are as good as any for a key that is not here.
        let absent = NodePrivate::from_random(seed).public();
        attacker.send(absent, &[0; 1]).await.expect("a packet goes out");
        attacker.send(present[number as usize % 40].0, &[0; 1]).await.expect("a packet goes out");
        if number % 1_000 == 0 {
            pair.exchange(5).await;
        }
    }
    relay.wait("all are dropped or sent", |relay| {
        relay.metric("derp_packets_dropped{kind=\"other\",reason=\"unknown_dest\"}") == u64::from(KEYS)
    });
    let grown = resident().saturating_sub(before);
    // The receivers of this test hold the packets that came for them.
    assert!(grown <= 8 * 1024 * 1024, "{grown} bytes");
    pair.assert_undelayed(&relay, 10_000);
}
