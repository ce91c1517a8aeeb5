//! What a program asks of an endpoint besides packets.

use tokio::time::timeout;
use towpath::{BindError, Endpoint, Region, SendError};
use towpath_sim::Class;

use crate::support::{HOME, Lab, PATIENCE, numbers, packet, public};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_that_is_prepared_for_becomes_direct_without_a_packet() {
    let lab = Lab::new(11).await;
    let [one, other] = lab.pair([Class::P, Class::P]).await;
    one.endpoint.prepare(&public(2)).expect("a peer");
    let mut watch = one.endpoint.watch_path(&public(2)).expect("a peer");
    timeout(PATIENCE, watch.direct()).await.expect("it becomes direct").expect("a peer");
    let received = other.endpoint.stats().received;
    assert!(received.iter().all(|traffic| traffic.packets == 0), "{received:?}");
    assert_eq!(one.endpoint.prepare(&public(3)), Err(SendError::UnknownPeer(public(3))));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_region_that_is_pinned_is_the_home_though_another_one_is_nearer() {
    let lab = Lab::new(12).await;
    let seat = lab.open_seat(1, 2, |builder| builder.home(Region(2))).await;
    assert_eq!(seat.endpoint.online().await, Ok(Region(2)));
    let builder = Endpoint::builder().relay_map(lab.map.clone()).home(Region(9));
    assert!(matches!(builder.bind().await, Err(BindError::UnknownHome(9))));
    assert!(matches!(Endpoint::builder().bind().await, Err(BindError::NoRelays)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn packets_go_over_a_relay_in_websocket_messages() {
    let lab = Lab::new(13).await;
    let one = lab.open_seat(1, 2, towpath::Builder::websocket).await;
    let other = lab.open_seat(2, 1, towpath::Builder::websocket).await;
    for seat in [&one, &other] {
        assert_eq!(seat.endpoint.online().await, Ok(HOME));
    }
    one.endpoint.send(&public(2), &[packet(7)]).await.expect("it is sent");
    assert_eq!(numbers(&other.endpoint, 1).await, [7]);
    assert_eq!(other.endpoint.stats().received[0].packets, 1, "over the relay");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_received_of_a_peer_that_was_removed() {
    let lab = Lab::new(14).await;
    let [one, other] = lab.pair([Class::O, Class::O]).await;
    one.endpoint.send(&public(2), &[packet(1)]).await.expect("it is sent");
    assert_eq!(numbers(&other.endpoint, 1).await, [1]);
    other.endpoint.remove_peer(&public(1));
    assert_eq!(other.endpoint.send(&public(1), &[packet(2)]).await, Err(SendError::UnknownPeer(public(1))));
    one.endpoint.send(&public(2), &[packet(3)]).await.expect("it is sent");
    // A third peer's packet takes the same way and comes later.
    other.endpoint.add_peer(&towpath::PeerConfig::new(public(3)));
    let third = lab.open_seat(3, 2, |builder| builder).await;
    third.endpoint.online().await.expect("it is open");
    third.endpoint.send(&public(2), &[packet(4)]).await.expect("it is sent");
    assert_eq!(numbers(&other.endpoint, 1).await, [4]);
}
