//! A link: a connection that this relay has dialled to another one of its region.
//!
//! It is a connection of the data plane like a client's: read by one worker, with an outbox that any worker fills and
//! empties. Out go the packets of clients here for clients there; in comes the news of who is there. What is learned on a
//! link is the link's: when it breaks, all of it is forgotten before anything else happens.

use std::collections::HashSet;
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::sync::mpsc::UnboundedSender;
use towpath_relay_proto::client::ClientSession;
use towpath_relay_proto::session::Close;
use towpath_tls::Reader;
use towpath_wire::derp::frame::{ClientFrame, GoneReason, ServerFrame};
use towpath_wire::key::NodePublic;
use towpath_wire::time::Instant;

use super::desk::Desk;
use super::peer::Peer;

/// How often the other relay is asked whether it is there. What it answers is also how this relay learns that packets
/// get through, and the kernel that nobody is at the other end.
const PING_EVERY: Duration = Duration::from_secs(10);
/// A relay that says nothing for so long is gone: it has been asked three times.
const SILENCE: Duration = Duration::from_secs(30);

/// What becomes of a link, for whoever dialled it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LinkEvent {
    /// The other relay tells of its clients, so it takes this one for one of the mesh.
    Up,
    /// The link is closed and all that it taught is forgotten.
    Down(Close),
}

/// A dialled and logged-in link on its way to a worker.
#[derive(Debug)]
pub(crate) struct LinkArrival {
    pub(crate) peer: Arc<Peer>,
    pub(crate) socket: Arc<TcpStream>,
    pub(crate) reader: Reader<towpath_tls::Client>,
    pub(crate) session: ClientSession,
    /// What was read and not opened.
    pub(crate) incoming: Vec<u8>,
    /// Bytes of DERP that were read and not used.
    pub(crate) frames: Vec<u8>,
    pub(crate) events: UnboundedSender<LinkEvent>,
}

/// What the frames of a link act on.
#[derive(Debug)]
pub(super) struct Link {
    pub(super) peer: Arc<Peer>,
    session: ClientSession,
    /// The keys that the other relay has.
    learned: HashSet<NodePublic>,
    is_up: bool,
    heard: Instant,
    events: UnboundedSender<LinkEvent>,
}

impl Link {
    /// Asks the other relay to tell of its clients.
    pub(super) fn new(
        peer: Arc<Peer>,
        session: ClientSession,
        events: UnboundedSender<LinkEvent>,
        desk: &mut Desk<'_>,
    ) -> Self {
        desk.push_request(&peer, &ClientFrame::WatchConns);
        Self { peer, session, learned: HashSet::new(), is_up: false, heard: desk.now, events }
    }

    /// Acts on the frames in `plaintext`.
    pub(super) fn handle(&mut self, mut plaintext: &[u8], desk: &mut Desk<'_>) -> Result<(), Close> {
        self.heard = desk.now;
        loop {
            let next = self.session.next(&mut plaintext, desk.pool);
            match next.map_err(|_| Close::BadFrame)? {
                None => return Ok(()),
                Some(ServerFrame::PeerPresent { peer, .. }) => self.learn(peer, desk),
                Some(ServerFrame::PeerGone { peer, reason: GoneReason::Disconnected }) => {
                    if self.learned.remove(&peer) {
                        desk.forget(&peer, &self.peer);
                    } else {
                        desk.tally.rare_mut().unfounded_gone += 1;
                    }
                }
                Some(ServerFrame::Ping(data)) => {
                    desk.push_request(&self.peer, &ClientFrame::Pong(data));
                }
                // Packets to this relay itself; that a destination is not there, which the news says as well; that it
                // lives.
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

    fn learn(&mut self, key: NodePublic, desk: &Desk<'_>) {
        if !std::mem::replace(&mut self.is_up, true) {
            desk.registry.gauges().links.fetch_add(1, Ordering::Relaxed);
            let _ = self.events.send(LinkEvent::Up);
        }
        // This relay is a client of the other one, and no packet is for it.
        if key != *desk.own_key && self.learned.insert(key) {
            desk.registry.add_forwarder(key, &self.peer);
        }
    }

    /// Asks whether the other relay is there. Returns when to ask again.
    pub(super) fn ping(&self, desk: &mut Desk<'_>) -> Result<Instant, Close> {
        let next = ask_again(desk.now, self.heard)?;
        desk.push_request(&self.peer, &ClientFrame::Ping(desk.now.as_nanos().to_be_bytes()));
        Ok(next)
    }

    /// Forgets everything that was learned here.
    pub(super) fn depart(&mut self, desk: &mut Desk<'_>) {
        for key in std::mem::take(&mut self.learned) {
            desk.forget(&key, &self.peer);
        }
        desk.registry.gauges().links.fetch_sub(i64::from(self.is_up), Ordering::Relaxed);
    }

    /// Says why it is closed, after all is forgotten.
    pub(super) fn report(&self, reason: Close) {
        // Nobody listens any more only when the process is about to end.
        let _ = self.events.send(LinkEvent::Down(reason));
    }
}

/// When a relay that was `heard` then, and is asked for a sign of life `now`, is to be asked again.
fn ask_again(now: Instant, heard: Instant) -> Result<Instant, Close> {
    if now.since(heard) >= SILENCE { Err(Close::Silent) } else { Ok(now + PING_EVERY) }
}

impl Desk<'_> {
    /// Forgets that `link` leads to `key`, and tells whoever must know if nothing else does.
    fn forget(&mut self, key: &NodePublic, link: &Peer) {
        for listener in self.registry.remove_forwarder(key, link) {
            self.push_gone(&listener, key);
        }
    }

    /// Appends a frame for the other relay of a link.
    fn push_request(&mut self, peer: &Arc<Peer>, frame: &ClientFrame<'_>) {
        let pool = &mut *self.pool;
        let pushed = peer.egress.push(|outbox| outbox.push_request(frame, pool));
        self.note_control(peer, pushed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
