//! The honest pair: two clients that exchange numbered packets beside an attacker.

use towpath_relay_client::Client;
use towpath_wire::key::NodePublic;

use crate::common::{Relay, packet};

/// Two clients, of which the first sends to the second.
pub(crate) struct Pair {
    sender: Client,
    receiver: Client,
    from: NodePublic,
    to: NodePublic,
    sent: u64,
}

impl Pair {
    /// Two clients of `relay`.
    pub(crate) async fn new(relay: &Relay) -> Self {
        Self::of(relay.client(0xa1).await, relay.client(0xa2).await)
    }

    /// Two clients that have logged in, each with its key.
    pub(crate) fn of((from, sender): (NodePublic, Client), (to, receiver): (NodePublic, Client)) -> Self {
        Self { sender, receiver, from, to, sent: 0 }
    }

    /// Asserts that no turn of the relay did more than `most` steps, so that no packet of the pair has waited for more
    /// than that and the turn in which it came.
    pub(crate) fn assert_undelayed(&self, relay: &Relay, most: u64) {
        let work = relay.metric("towpath_turn_work_max");
        assert!(work <= most, "a turn did {work} steps");
    }

    /// Sends `count` packets one by one, each after the one before has come. None may be lost or changed.
    pub(crate) async fn exchange(&mut self, count: u64) {
        for _ in 0..count {
            let sent = self.sent.to_be_bytes();
            self.sender.send(self.to, &sent).await.expect("the honest sender is connected");
            let (from, received) = packet(&mut self.receiver).await;
            assert_eq!(
                (from, received.as_slice()),
                (self.from, &sent[..]),
                "a packet of the honest pair is lost"
            );
            self.sent += 1;
        }
    }
}
