//! Departures: what is left to do after a connection has gone, some of it in each turn.
//!
//! A key that leaves may have thousands of subscribers, and a link that breaks may have a million keys. Each step of a
//! departure is one subscriber or one key, and a turn does a bounded number of them, so that no other connection waits longer.

use std::collections::{VecDeque, hash_set};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use towpath_relay_proto::session::Close;
use towpath_wire::time::Instant;

use crate::arrival::{LinkEvent, LinkObserver};
use crate::key::RouteKey;
use crate::peer::Peer;

/// How long a departure waits for other workers to send the last packets of the key. They do so at the end of their turns.
const LAST_PACKETS: Duration = Duration::from_millis(10);

/// A link that is closed, and what has yet to be forgotten of it.
pub(crate) struct BrokenLink {
    pub(crate) peer: Arc<Peer>,
    /// The keys that were learned on the link.
    pub(crate) keys: hash_set::IntoIter<RouteKey>,
    pub(crate) reason: Close,
    pub(crate) on_event: LinkObserver,
}

impl BrokenLink {
    /// Reports why the link is closed, after everything learned on it is forgotten.
    fn report(&self) {
        (self.on_event)(LinkEvent::Down(self.reason));
    }
}

impl fmt::Debug for BrokenLink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BrokenLink").field("peer", &self.peer).finish_non_exhaustive()
    }
}

/// A step of a departure.
#[derive(Debug)]
pub(crate) enum DepartureStep {
    /// Tell this subscriber that the key has left.
    Tell(RouteKey, Arc<Peer>),
    /// Forget that this link leads to the key.
    Forget(RouteKey, Arc<Peer>),
}

/// What is left of one departure.
#[derive(Debug)]
enum Departure {
    /// A key has left, and these connections are to be told. They may wait for its last packets until the time given.
    Key(RouteKey, Vec<Arc<Peer>>, Option<Instant>),
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
            self.0.push_back(Departure::Key(key, subscribers, None));
        }
    }

    /// Takes the next step; `None` if nothing is left to do.
    pub(crate) fn next(&mut self) -> Option<DepartureStep> {
        loop {
            let step = match self.0.front_mut()? {
                Departure::Key(key, subscribers, _) => {
                    subscribers.pop().map(|subscriber| DepartureStep::Tell(*key, subscriber))
                }
                Departure::Link(link) => {
                    link.keys.next().map(|key| DepartureStep::Forget(key, link.peer.clone()))
                }
            };
            if step.is_some() {
                return step;
            }
            if let Some(Departure::Link(link)) = self.0.pop_front() {
                link.report();
            }
        }
    }

    /// Puts the subscriber of the last step back, to be told in a later turn. Returns whether it may wait: a departure waits for
    /// [`LAST_PACKETS`] at most.
    pub(crate) fn put_back(&mut self, subscriber: &Arc<Peer>, now: Instant) -> bool {
        let Some(Departure::Key(_, subscribers, until)) = self.0.front_mut() else { return false };
        let may_wait = now < *until.get_or_insert(now + LAST_PACKETS);
        if may_wait {
            subscribers.push(subscriber.clone());
        }
        may_wait
    }

    /// Adds a link that has broken.
    pub(crate) fn add_link(&mut self, link: BrokenLink) {
        self.0.push_back(Departure::Link(link));
    }
}
