//! Logins without end from one host, with one key and with many.

use std::sync::Arc;

use crate::alone;
use crate::attacker::{log_in, refused};
use crate::common::{Relay, trusting_anyone};
use crate::honest::Pair;

#[tokio::test]
async fn a_host_holds_its_connections_and_keeps_only_itself_out() {
    let _alone = alone().await;
    let relay = Relay::start("login.max_connections = 40\nlogin.max_connections_per_host = 4");
    let mut pair = Pair::new(&relay).await;
    let config = Arc::new(trusting_anyone());
    let mut held = Vec::new();
    for key in 0..60 {
        held.extend(log_in(9, key, &relay, &config).await);
    }
    assert_eq!(held.len(), 20, "many keys make it a shared address, which may hold half of all connections");
    assert_eq!(refused(&relay, "host_connection_limit"), 40);
    pair.exchange(100).await;
    for host in 10..13 {
        assert!(log_in(host, 7, &relay, &config).await.is_some(), "another host is served");
    }
    held.truncate(19);
    relay.wait("a place has become free", |relay| relay.metric("derp_current_connections") == 21);
    assert!(log_in(9, 1000, &relay, &config).await.is_some());
}

#[tokio::test]
async fn hosts_that_hold_every_connection_keep_out_new_clients_and_disturb_no_pair() {
    let _alone = alone().await;
    let relay = Relay::start("login.max_connections = 12\nlogin.max_connections_per_host = 5");
    let mut pair = Pair::new(&relay).await;
    let config = Arc::new(trusting_anyone());
    let mut held = Vec::new();
    for key in 0..20 {
        held.extend(log_in(20 + key as u8, key, &relay, &config).await);
    }
    assert_eq!(held.len(), 10, "all that the honest pair has left");
    assert_eq!(refused(&relay, "connection_limit"), 10);
    pair.exchange(100).await;
    assert!(relay.get("/healthz").starts_with("HTTP/1.1 200"));
}
