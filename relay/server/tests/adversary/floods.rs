//! A client that floods a key, beside another that sends to the same key.

use std::time::Duration;

use towpath_relay_client::{Client, Event};
use towpath_wire::key::NodePublic;

use crate::alone;
use crate::common::{MeshFiles, Relay, event};

/// Packets of the honest sender.
const HONEST: u64 = 300;
const PACKET: usize = 1_400;

/// Floods `to` from `flooder`, sends `HONEST` packets to it from `honest` one in four milliseconds, and reads slowly at
/// `receiver`. Returns how many of the honest packets came; they came in order.
async fn contend(
    flooder: Client,
    mut honest: Client,
    (to, mut receiver): (NodePublic, Client),
    from: NodePublic,
) -> u64 {
    let (flooder, mut flooders_events) = flooder.split();
    let flood =
        tokio::spawn(
            async move { while flooder.send_batch(vec![(to, &[0; PACKET][..]); 16]).await.is_ok() {} },
        );
    let drain = tokio::spawn(async move { while flooders_events.recv().await.is_ok() {} });
    let sending = tokio::spawn(async move {
        let mut ticks = tokio::time::interval(Duration::from_millis(4));
        for number in 0..HONEST {
            ticks.tick().await;
            let mut packet = [0; PACKET];
            packet[..8].copy_from_slice(&number.to_be_bytes());
            honest.send(to, &packet).await.expect("a packet goes out");
        }
        honest
    });
    let mut next = 0;
    // The flooder's packets come in between; the receiver takes some four of them in a millisecond.
    while next < HONEST {
        let mut came = 0;
        while came < 16 {
            if let Event::Packet { from: sender, packet } = event(&mut receiver).await {
                came += 1;
                if sender == from {
                    let number = u64::from_be_bytes(*packet.first_chunk().expect("a number"));
                    assert_eq!(number, next, "a packet of the honest sender is lost");
                    next += 1;
                }
            }
        }
        tokio::time::sleep(Duration::from_millis(4)).await;
    }
    flood.abort();
    drain.abort();
    drop(sending.await.expect("the honest sender is connected"));
    next
}

/// The receiver takes a part of what the flood brings. The honest sender loses nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_of_a_key_takes_nothing_from_another_sender() {
    let _alone = alone().await;
    let relay = Relay::start("");
    let (from, honest) = relay.client(1).await;
    let (_, flooder) = relay.client(2).await;
    let receiver = relay.client(3).await;
    assert_eq!(contend(flooder, honest, receiver, from).await, HONEST);
    assert!(relay.metric("derp_packets_dropped") > 1_000, "the receiver takes all of the flood");
}

/// The flooder and the honest sender share a link to the relay that the receiver is on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_over_a_link_takes_nothing_from_another_sender() {
    let _alone = alone().await;
    let (files_of_one, files_of_other) = (MeshFiles::new(0x71), MeshFiles::new(0x72));
    let other = Relay::start(&files_of_other.settings(&[]));
    let one = Relay::start(&files_of_one.settings(&[files_of_other.peer(other.tls())]));
    let receiver = other.client(3).await;
    one.wait("the receiver is announced", |relay| relay.metric("derp_clients_remote") == 1);
    let (from, honest) = one.client(1).await;
    let (_, flooder) = one.client(2).await;
    assert_eq!(contend(flooder, honest, receiver, from).await, HONEST);
    let dropped = one.metric("derp_packets_dropped") + other.metric("derp_packets_dropped");
    assert!(dropped > 1_000, "the receiver takes all of the flood");
}
