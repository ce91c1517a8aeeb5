//! Departures: what is left to do after a connection has gone, some of it in each turn.
//!
//! A key that leaves may have thousands of subscribers, and a link that breaks may have a million keys. Each step of a
//! departure is one subscriber or one key, and a turn does [`STEPS`] of them, so that no other connection waits longer.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::counters::ColdCount;
use crate::key::RouteKey;
use crate::link::{BrokenLink, forget};
use crate::peer::Peer;
use crate::turn::Turn;

/// The steps of a turn: a fraction of a millisecond of a worker.
pub(crate) const STEPS: usize = 1024;

/// What is left of one departure.
#[derive(Debug)]
enum Departure {
    /// A key has left, and these connections are to be told.
    Key(RouteKey, Vec<Arc<Peer>>),
    /// A link has broken, and its keys are to be forgotten. Then its observer is told.
    Link(BrokenLink),
}

/// The departures that a worker has not finished.
#[derive(Debug, Default)]
pub(crate) struct Departures(VecDeque<Departure>);

impl Departures {
    /// Whether nothing is left to do.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Adds a key that has left, of which `subscribers` are to be told.
    pub(crate) fn add_key(&mut self, key: RouteKey, subscribers: Vec<Arc<Peer>>) {
        if !subscribers.is_empty() {
            self.0.push_back(Departure::Key(key, subscribers));
        }
    }

    /// Adds a link that has broken.
    pub(crate) fn add_link(&mut self, link: BrokenLink) {
        self.0.push_back(Departure::Link(link));
    }
}

/// Does the steps of one turn.
#[cold]
pub(crate) fn continue_departures(turn: &mut Turn<'_>) {
    let mut departures = std::mem::take(&mut turn.departures.0);
    for _ in 0..STEPS {
        let Some(departure) = departures.front_mut() else { break };
        let next = match departure {
            Departure::Key(key, subscribers) => {
                subscribers.pop().map(|subscriber| tell(key, &subscriber, turn))
            }
            Departure::Link(link) => link.keys.next().map(|key| {
                turn.tally.add_cold(ColdCount::ForgottenKeys, 1);
                forget(&key, &link.peer, turn);
            }),
        };
        if next.is_none()
            && let Some(Departure::Link(link)) = departures.pop_front()
        {
            link.report();
        }
    }
    departures.append(&mut turn.departures.0);
    turn.departures.0 = departures;
}

/// Tells `subscriber` that `key` has left. If the key has come back meanwhile, the subscription goes on.
fn tell(key: &RouteKey, subscriber: &Arc<Peer>, turn: &mut Turn<'_>) {
    if turn.registry().find(key).is_some() {
        let _ = turn.registry().subscribe(key, subscriber);
    } else {
        turn.push_gone(subscriber, key);
    }
}
