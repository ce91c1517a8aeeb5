//! The steps of departures that one turn does.

use std::sync::Arc;

use crate::counters::ColdCount;
use crate::departures::DepartureStep;
use crate::key::RouteKey;
use crate::link::forget;
use crate::peer::Peer;
use crate::turn::Turn;

/// The steps of a turn: a fraction of a millisecond of a worker.
pub(super) const STEPS: usize = 1024;

/// Does the steps of one turn.
#[cold]
pub(crate) fn continue_departures(turn: &mut Turn<'_>) {
    for _ in 0..STEPS {
        match turn.departures.next() {
            None => return,
            // The news would overtake the last packets of the key, which another worker is about to send. A subscriber whose
            // socket is full is told at once.
            Some(DepartureStep::Tell(_, subscriber))
                if subscriber.egress.is_about_to_send_packets()
                    && turn.departures.put_back(&subscriber, turn.now) =>
            {
                return;
            }
            Some(DepartureStep::Tell(key, subscriber)) => tell(&key, &subscriber, turn),
            Some(DepartureStep::Forget(key, link)) => {
                turn.tally.add_cold(ColdCount::ForgottenKeys, 1);
                forget(&key, &link, turn);
            }
        }
    }
}

/// Tells `subscriber` that `key` has left. If the key has come back meanwhile, the subscription goes on.
fn tell(key: &RouteKey, subscriber: &Arc<Peer>, turn: &mut Turn<'_>) {
    if turn.registry().find(key).is_some() {
        let _ = turn.registry().subscribe(key, subscriber);
    } else {
        turn.push_gone(subscriber, key);
    }
}
