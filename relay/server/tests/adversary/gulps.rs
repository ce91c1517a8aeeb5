//! A destination that lets packets wait, drains them at once, and lets them wait again.

use std::time::{Duration, Instant};

use towpath_relay_client::Client;

use crate::alone;
use crate::common::{Relay, event};
use crate::honest::Pair;

/// How long the sender is observed.
const TIME: Duration = Duration::from_secs(3);
/// What the destination lets wait before it drains, in packets.
const GULP: usize = 400;

/// Drains a gulp, rests, and drains the next.
pub(crate) async fn gulp(mut client: Client) {
    loop {
        for _ in 0..GULP {
            event(&mut client).await;
        }
        tokio::time::sleep(Duration::from_millis(15)).await;
    }
}

/// The relay holds the sender back a few times at once, and then once in 10 ms, however often the destination catches up.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_destination_that_drains_in_gulps_holds_its_sender_for_a_tenth_of_the_time() {
    let _alone = alone().await;
    let relay = Relay::start("outbox.bytes = \"128KiB\"");
    let mut pair = Pair::new(&relay).await;
    let (to, destination) = relay.client(1).await;
    let (_, sender) = relay.client(2).await;
    let gulping = tokio::spawn(gulp(destination));
    let (sender, _events) = sender.split();
    let begin = Instant::now();
    let flood =
        tokio::spawn(
            async move { while sender.send_batch(vec![(to, &[0; 1_400][..]); 32]).await.is_ok() {} },
        );
    while begin.elapsed() < TIME {
        pair.exchange(10).await;
    }
    let (holds, passed) = (relay.metric("towpath_holds_total"), begin.elapsed().as_millis() as u64);
    assert!(holds > 20, "the sender is never held back: {holds}");
    assert!(holds <= 30 + passed / 10, "held back {holds} times in {passed} ms");
    gulping.abort();
    flood.abort();
}
