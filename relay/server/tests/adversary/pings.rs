//! Pings without end, from a client that does not read the pongs.

use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use towpath_wire::derp::frame::ClientFrame;

use crate::alone;
use crate::common::Relay;
use crate::common::websocket::PLAIN;
use crate::honest::Pair;

/// The steps that one read of pings may take, and what the pair does: 64 KiB of frames of 13 bytes, each of which is
/// counted when it comes, when it is answered, and when there is no room for the answer.
const STEPS: u64 = 3 * (64 * 1024 / 13) + 200;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pings_cost_their_own_connection_and_a_bounded_turn() {
    let _alone = alone().await;
    let relay = Relay::start(PLAIN);
    let mut pair = Pair::new(&relay).await;
    let mut attacker: TcpStream = relay.plain_socket(1).await;
    let mut pings = Vec::new();
    (0..10_000u64).for_each(|number| ClientFrame::Ping(number.to_be_bytes()).encode(&mut pings));
    let flood = tokio::spawn(async move { while attacker.write_all(&pings).await.is_ok() {} });
    for _ in 0..50 {
        pair.exchange(10).await;
    }
    relay
        .wait("the pongs are bounded", |relay| relay.metric("towpath_control_frames_dropped_total") > 10_000);
    pair.assert_undelayed(&relay, STEPS);
    flood.abort();
}
