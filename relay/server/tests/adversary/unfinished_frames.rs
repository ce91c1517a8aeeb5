//! Connections that begin a frame and do not end it.

use tokio::io::AsyncWriteExt;

use crate::alone;
use crate::common::Relay;
use crate::common::websocket::PLAIN;
use crate::honest::Pair;

const CONNECTIONS: usize = 200;
/// The longest frame of a packet, and its header.
const FRAME: usize = 5 + 32 + 65_536;

/// Unfinished frames are within the bound on memory: the oldest are given up where it is reached. That each is given up
/// after 30 s is tested on a virtual clock.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn unfinished_frames_stay_below_the_bound_on_memory() {
    let _alone = alone().await;
    let relay = Relay::start(&format!("memory.max = \"16MiB\"\n{PLAIN}"));
    let mut pair = Pair::new(&relay).await;
    let mut frame = vec![0; FRAME - 1];
    frame[..5].copy_from_slice(&[4, 0, 1, 0, 32]);
    let mut attackers = Vec::new();
    let given_up = || relay.metric("towpath_closed_total{reason=\"memory\"}");
    while given_up() == 0 {
        assert!(attackers.len() < 4 * CONNECTIONS, "no unfinished frame is given up");
        let mut stream = relay.plain_socket(1 + (attackers.len() % 150) as u8).await;
        // Where the relay closes meanwhile, this attacker is done.
        let _ = stream.write_all(&frame).await;
        attackers.push(stream);
        pair.exchange(1).await;
    }
    assert!(attackers.len() >= CONNECTIONS, "{} are too many already", attackers.len());
    let held = relay.metric("towpath_frame_memory_bytes");
    assert!(held <= 16 * 1024 * 1024 + 256 * 1024, "{held} bytes");
    pair.exchange(100).await;
}
