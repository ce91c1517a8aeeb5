//! Connections that send nothing.

use tokio::net::TcpStream;

use crate::alone;
use crate::common::Relay;
use crate::honest::Pair;
use crate::memory::resident;

/// More than any connection that has sent nothing may cost: a socket, a task and a place in the tables.
const SILENT: usize = 16 * 1024;

#[tokio::test]
async fn silent_connections_cost_little_and_disturb_no_pair() {
    let _alone = alone().await;
    let relay = Relay::start("");
    let mut pair = Pair::new(&relay).await;
    pair.exchange(10).await;
    let before = resident();
    let mut silent = Vec::new();
    for _ in 0..256 {
        silent.push(TcpStream::connect(relay.addresses.tls).await.expect("the relay accepts"));
    }
    relay.wait("the connections wait", |relay| relay.metric("towpath_pending_connections") > 200);
    pair.exchange(100).await;
    let cost = resident().saturating_sub(before);
    assert!(cost <= silent.len() * SILENT, "{} silent connections cost {cost} bytes", silent.len());
}
