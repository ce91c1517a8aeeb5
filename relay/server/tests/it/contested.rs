//! A key that two clients use: both are told, and the one that is left is told that it is over.

use towpath_relay_client::{Client, Event};

use crate::common::{Relay, event};

/// Sends a frame and waits for its effect, which makes the client the active one of its key.
async fn ping(client: &mut Client, number: u8) {
    client.ping([number; 8]).await.expect("a ping goes out");
    assert_eq!(event(client).await, Event::Pong([number; 8]));
}

async fn health(client: &mut Client) -> String {
    match event(client).await {
        Event::Health(text) => text,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn clients_that_take_each_others_packets_are_told_until_one_is_left() {
    let relay = Relay::start("");
    let (_, mut old) = relay.client(1).await;
    let (_, mut new) = relay.client(1).await;
    // One that came back: what its old connection still sent comes late.
    ping(&mut new, 1).await;
    ping(&mut old, 2).await;
    ping(&mut new, 3).await;
    assert_eq!(relay.metric("towpath_contested_keys_total"), 0);

    old.ping([4; 8]).await.expect("a ping goes out");
    let told = health(&mut old).await;
    assert!(told.contains("another device uses the same node key"), "{told}");
    assert_eq!(event(&mut old).await, Event::Pong([4; 8]));
    assert_eq!(health(&mut new).await, told);
    assert_eq!(relay.metric("towpath_contested_keys_total"), 1);
    // Once is enough.
    ping(&mut new, 5).await;
    ping(&mut old, 6).await;
    // One that comes later learns it with its login.
    let (_, mut third) = relay.client(1).await;
    assert_eq!(health(&mut third).await, told);

    drop(old);
    relay.wait("one has left", |relay| relay.metric("derp_current_dup_client_conns") == 2);
    drop(new);
    assert_eq!(health(&mut third).await, "");
    ping(&mut third, 7).await;
}
