//! An endpoint that is ready to be measured.

use std::time::Duration;

use tokio::time::{sleep, timeout};
use towpath::{Builder, Endpoint, PeerConfig};

use crate::region::REGION;

/// How long the STUN servers may take to answer, and how often it is looked whether they have.
const GATHERED: Duration = Duration::from_secs(2);
const LOOK: Duration = Duration::from_millis(5);

/// Sets an endpoint up with a peer, and waits until it is at home and has asked the STUN servers what its NAT does.
pub(crate) async fn bind(builder: Builder, peer: PeerConfig) -> Endpoint {
    let key = peer.key;
    let endpoint = builder.peer(peer).bind().await.expect("an endpoint");
    assert_eq!(endpoint.online().await, Ok(REGION));
    let gathered = async {
        while endpoint.why(&key).expect("a peer").reflexive.len() < 2 {
            sleep(LOOK).await;
        }
    };
    // None of them answers where UDP is blocked.
    let _ = timeout(GATHERED, gathered).await;
    endpoint
}
