//! Keep-alives come without being asked for, and again.

use towpath_relay_client::Event;

use crate::common::{Relay, event};

#[tokio::test]
async fn a_client_that_says_nothing_is_told_that_the_relay_is_there() {
    let relay = Relay::start("keepalive = '5s'");
    let (_, mut client) = relay.client(1).await;
    for count in 1..=2 {
        assert_eq!(event(&mut client).await, Event::KeepAlive);
        relay.wait("it is counted", |relay| relay.metric("towpath_keepalives_total") == count);
    }
}
