use super::*;
use crate::testing::{current_limits, key, peer};

/// What a registry tells connections: the number of each, the key, and whether the key is gone.
type Told = Vec<(u64, RouteKey, bool)>;

/// A registry, and what it has told connections.
#[derive(Debug)]
struct Watched {
    registry: Registry,
    told: Told,
}

impl Watched {
    fn new() -> Self {
        Self { registry: Registry::new(true, current_limits()), told: Vec::new() }
    }

    fn join(&mut self, peer: &Arc<Peer>) -> Told {
        let evicted = self.registry.join(peer, &mut |each, event| note(&mut self.told, each, event));
        assert!(evicted.is_none(), "{evicted:?}");
        std::mem::take(&mut self.told)
    }

    fn leave(&mut self, peer: &Peer) -> (Told, Vec<u64>) {
        let gone = self.registry.leave(peer, &mut |each, event| note(&mut self.told, each, event));
        (std::mem::take(&mut self.told), ids(&gone))
    }
}

fn note(told: &mut Told, each: &Arc<Peer>, event: PresenceEvent) {
    if let PresenceEvent::Changed(key, change) = event {
        told.push((each.id, key, matches!(change, PresenceChange::Gone)));
    }
}

fn ids(peers: &[Arc<Peer>]) -> Vec<u64> {
    peers.iter().map(|peer| peer.id).collect()
}

#[test]
fn watchers_are_told_of_the_first_connection_of_a_key_and_of_the_end_of_its_last() {
    let mut watched = Watched::new();
    let (watcher, first, second) = (peer(1, key(1)), peer(2, key(2)), peer(3, key(2)));
    assert!(watched.registry.watch(&watcher) && !watched.registry.watch(&watcher));
    assert_eq!(watched.join(&first), [(1, key(2), false)]);
    assert_eq!(watched.join(&second), [(1, key(2), false)], "with the address of the new connection");
    assert_eq!(watched.leave(&first), (vec![], vec![]), "the key has another connection");
    assert_eq!(watched.leave(&first), (vec![], vec![]), "it has left before");
    assert_eq!(watched.leave(&second), (vec![(1, key(2), true)], vec![]));
    watched.registry.unwatch(&watcher);
    assert_eq!(watched.join(&first), []);
    assert_eq!(watched.leave(&first), (vec![], vec![]));
}

#[test]
fn the_receivers_of_a_key_are_told_when_its_last_route_has_gone() {
    let mut watched = Watched::new();
    let (sender, listener, link) = (peer(1, key(1)), peer(2, key(2)), peer(3, key(3)));
    watched.join(&sender);
    watched.join(&listener);
    assert!(watched.registry.subscribe(&key(1), &listener).is_ok());
    assert!(watched.registry.add_forwarder(key(1), &link));
    assert!(!watched.registry.add_forwarder(key(1), &link), "it is there already");
    assert_eq!(watched.leave(&sender), (vec![], vec![]), "another relay has the key");
    assert_eq!(ids(&watched.registry.remove_forwarder(&key(1), &link)), [2]);
    assert!(watched.registry.remove_forwarder(&key(1), &link).is_empty(), "once");
    watched.join(&sender);
    assert_eq!(watched.leave(&sender), (vec![], vec![]), "and not the next time, unless it receives again");
}

#[test]
fn a_receiver_of_an_unannounced_key_is_told_when_the_key_has_come_and_gone() {
    let mut watched = Watched::new();
    let (sender, listener) = (peer(1, key(1)), peer(2, key(2)));
    watched.join(&listener);
    assert_eq!(watched.registry.subscribe(&key(1), &listener).err(), Some(watched.registry.epoch()));
    watched.join(&sender);
    assert_eq!(watched.leave(&sender), (vec![], vec![2]));
}
