//! A link: a connection that this relay has dialled to another one of its region.
//!
//! It is a connection of the data plane like a client's: read by one worker, with an outbox that any worker fills and
//! empties. It carries packets from clients of this relay to clients of the other relay, and announcements of clients
//! in the other direction. The keys that are learned on a link belong to it: when it breaks, all of them are forgotten
//! before this relay dials again.

use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use towpath_relay_proto::session::{ClientSession, Close};
use towpath_wire::derp::frame::{ClientFrame, GoneReason, ServerFrame};
use towpath_wire::pool::BufferPool;
use towpath_wire::time::Instant;

use crate::arrival::{LinkEvent, LinkObserver};
use crate::counters::{ColdCount, Level};
use crate::departures::BrokenLink;
use crate::key::RouteKey;
use crate::peer::Peer;
use crate::turn::Turn;

/// The interval of pings to the other relay. Its answers show this relay that packets get through; bytes that stay
/// unacknowledged show the kernel that the other end is gone.
const PING_EVERY: Duration = Duration::from_secs(10);
/// The silence after which the other relay is taken for gone: it has been pinged three times by then.
const SILENCE: Duration = Duration::from_secs(30);

/// What the frames of a link act on.
pub(crate) struct Link {
    peer: Arc<Peer>,
    session: ClientSession,
    /// The keys that the other relay has: at most [`max_link_keys`](crate::PlaneLimits::max_link_keys).
    learned: HashSet<RouteKey>,
    is_up: bool,
    heard: Instant,
    on_event: LinkObserver,
}

impl Link {
    /// Creates the state of a link, and asks the other relay to announce its clients.
    pub(crate) fn new(
        peer: Arc<Peer>,
        session: ClientSession,
        on_event: LinkObserver,
        turn: &mut Turn<'_>,
    ) -> Self {
        push_request(&peer, &ClientFrame::WatchConns, turn);
        Self { peer, session, learned: HashSet::new(), is_up: false, heard: turn.now, on_event }
    }

    pub(crate) const fn peer(&self) -> &Arc<Peer> {
        &self.peer
    }

    /// Acts on the frames in `plaintext`.
    pub(crate) fn handle(&mut self, mut plaintext: &[u8], turn: &mut Turn<'_>) -> Result<(), Close> {
        self.heard = turn.now;
        loop {
            let next = self.session.next(&mut plaintext, &mut turn.pool);
            match next.map_err(|_| Close::BadFrame)? {
                None => return Ok(()),
                Some(ServerFrame::PeerPresent { peer, .. }) => self.learn(peer.into(), turn)?,
                Some(ServerFrame::PeerGone { peer, reason: GoneReason::Disconnected }) => {
                    if self.learned.remove(&peer.into()) {
                        forget(&peer.into(), &self.peer, turn);
                    } else {
                        turn.tally.add_cold(ColdCount::UnfoundedGone, 1);
                    }
                }
                Some(ServerFrame::Ping(data)) => {
                    push_request(&self.peer, &ClientFrame::Pong(data), turn);
                }
                // Packets to this relay itself, absent destinations (which the announcements show as well), and
                // keep-alives need no action.
                Some(
                    ServerFrame::RecvPacket { .. }
                    | ServerFrame::PeerGone { .. }
                    | ServerFrame::KeepAlive
                    | ServerFrame::Pong(_)
                    | ServerFrame::Health(_)
                    | ServerFrame::Restarting { .. }
                    | ServerFrame::ServerKey(_)
                    | ServerFrame::ServerInfo { .. },
                ) => {}
            }
        }
    }

    /// Learns that the other relay has `key`.
    fn learn(&mut self, key: RouteKey, turn: &Turn<'_>) -> Result<(), Close> {
        if !std::mem::replace(&mut self.is_up, true) {
            turn.registry().gauges().change(Level::Links, 1);
            (self.on_event)(LinkEvent::Up);
        }
        // This relay is a client of the other one, and no packet is for it.
        if *key.node() == turn.config().own_key || self.learned.contains(&key) {
            return Ok(());
        }
        if self.learned.len() >= turn.limits().max_link_keys() {
            return Err(Close::MeshKeys);
        }
        self.learned.insert(key);
        turn.registry().add_forwarder(key, &self.peer);
        Ok(())
    }

    /// Pings the other relay. Returns when to ping again.
    pub(crate) fn ping(&self, turn: &mut Turn<'_>) -> Result<Instant, Close> {
        let next = ask_again(turn.now, self.heard)?;
        push_request(&self.peer, &ClientFrame::Ping(turn.now.as_nanos().to_be_bytes()), turn);
        Ok(next)
    }

    /// The number of the frame that has begun and is not whole; `None` if there is none.
    pub(crate) const fn unfinished(&self) -> Option<u32> {
        self.session.unfinished()
    }

    /// Bytes of a frame that has begun and is not whole.
    pub(crate) const fn held(&self) -> usize {
        self.session.held()
    }

    /// Gives up a frame that is not whole and returns its buffer.
    pub(crate) fn clear(&mut self, pool: &mut BufferPool) {
        self.session.clear(pool);
    }

    /// Leaves it to later turns to forget everything that was learned here, and to report that the link is closed.
    pub(crate) fn depart(&mut self, reason: Close, turn: &mut Turn<'_>) {
        turn.registry().gauges().change(Level::Links, -i64::from(self.is_up));
        turn.departures.add_link(BrokenLink {
            peer: self.peer.clone(),
            keys: std::mem::take(&mut self.learned).into_iter(),
            reason,
            on_event: std::mem::replace(&mut self.on_event, Box::new(|_| {})),
        });
    }
}

/// Returns when to ping a relay again that was last heard at `heard` and is pinged `now`.
fn ask_again(now: Instant, heard: Instant) -> Result<Instant, Close> {
    if now.since(heard) >= SILENCE { Err(Close::Silent) } else { Ok(now + PING_EVERY) }
}

/// Forgets that `link` leads to `key`, and tells the subscribers of the key if nothing else leads to it.
pub(crate) fn forget(key: &RouteKey, link: &Peer, turn: &mut Turn<'_>) {
    let subscribers = turn.registry().remove_forwarder(key, link);
    turn.departures.add_key(*key, subscribers);
}

/// Appends a frame for the relay at the other end of a link.
fn push_request(peer: &Arc<Peer>, frame: &ClientFrame<'_>, turn: &mut Turn<'_>) {
    let pool = &mut turn.pool;
    let pushed = peer.egress.push(|outbox| outbox.push_request(frame, pool));
    turn.note_control(peer, pushed);
}

impl fmt::Debug for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Link").field("peer", &self.peer).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use towpath_wire::derp::app_name::AppName;
    use towpath_wire::derp::mesh::PresentFlags;

    use super::*;
    use crate::config::PlaneLimits;
    use crate::testing::{OWN, key, new_link, shared};
    use crate::worker::continue_departures;

    fn link(id: u64, turn: &mut Turn<'_>) -> Link {
        let new = new_link(id, key(OWN - 1));
        Link::new(new.peer, new.session, new.on_event, turn)
    }

    fn announce(link: &mut Link, number: u8, turn: &mut Turn<'_>) -> Result<(), Close> {
        let (mut frame, flags, app_name) = (Vec::new(), PresentFlags::REGULAR, AppName::default());
        let peer = *key(number).node();
        ServerFrame::PeerPresent { peer, address: None, flags, app_name }.encode(&mut frame);
        link.handle(&frame, turn)
    }

    #[test]
    fn a_link_with_more_keys_than_it_may_have_is_closed_and_what_it_taught_is_forgotten() {
        let shared = shared(3);
        let turn = &mut Turn::new(&shared, Instant::ZERO);
        let (mut one, mut other) = (link(100, turn), link(101, turn));
        for number in [1, 2, 3, OWN, 1, 2, 3] {
            assert_eq!(
                announce(&mut one, number, turn),
                Ok(()),
                "a key that it has, or that is ours, is no more"
            );
        }
        let mut gone = Vec::new();
        ServerFrame::PeerGone { peer: *key(2).node(), reason: GoneReason::Disconnected }.encode(&mut gone);
        assert_eq!(one.handle(&gone, turn), Ok(()));
        assert_eq!(announce(&mut one, 4, turn), Ok(()), "a key that has left makes room");
        assert_eq!(announce(&mut other, 5, turn), Ok(()), "each link has a bound of its own");
        assert_eq!(announce(&mut one, 6, turn), Err(Close::MeshKeys));
        let known =
            || (1..=6).filter(|&number| shared.registry.find(&key(number)).is_some()).collect::<Vec<_>>();
        assert_eq!(known(), [1, 3, 4, 5]);
        one.depart(Close::MeshKeys, turn);
        continue_departures(turn);
        assert_eq!(known(), [5]);
    }

    #[test]
    fn a_bound_that_is_raised_holds_for_the_next_key() {
        let shared = shared(1);
        let turn = &mut Turn::new(&shared, Instant::ZERO);
        let mut link = link(100, turn);
        assert_eq!(announce(&mut link, 1, turn), Ok(()));
        shared.limits.set(PlaneLimits { max_link_keys: 2, ..shared.config.limits });
        assert_eq!(announce(&mut link, 2, turn), Ok(()));
        assert_eq!(announce(&mut link, 3, turn), Err(Close::MeshKeys));
    }

    #[test]
    fn a_relay_that_says_nothing_is_asked_every_ten_seconds_and_closed_after_thirty() {
        let at = |seconds: u64| Instant::from_nanos(seconds * 1_000_000_000);
        for asked in [at(7), at(17), at(27)] {
            assert_eq!(ask_again(asked, at(7)), Ok(asked + Duration::from_secs(10)));
        }
        assert_eq!(ask_again(at(37), at(7)), Err(Close::Silent));
        assert_eq!(ask_again(at(37), at(36)), Ok(at(47)), "any word counts");
    }
}
