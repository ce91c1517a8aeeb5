//! The state of a client: what its frames act on.

use std::sync::Arc;
use std::time::Duration;

use towpath_relay_proto::admission::PolicyName;
use towpath_relay_proto::session::{Action, Close, Session};
use towpath_wire::derp::frame::ServerFrame;
use towpath_wire::derp::mesh::PresentFlags;
use towpath_wire::pool::BufferPool;
use towpath_wire::time::Instant;
use tracing::{debug, info};

use crate::arrival::ClientTraits;
use crate::counters::{ColdCount, Level, Traffic};
use crate::ingress::{Hold, Ingress};
use crate::key::RouteKey;
use crate::mesh::{MeshState, SnapshotCursor};
use crate::peer::Peer;
use crate::report::ClientReport;
use crate::turn::Turn;

/// A client: everything of its connection but the transport.
#[derive(Debug)]
pub(crate) struct ClientState {
    session: Session,
    ingress: Ingress,
    // A number and flags that fit into eight bytes: each idle connection has them.
    version: i32,
    policy: PolicyName,
    home: bool,
    not_ideal: bool,
}

impl ClientState {
    pub(crate) fn new(peer: Arc<Peer>, traits: ClientTraits, turn: &Turn<'_>) -> Self {
        turn.registry().gauges().change(Level::NotIdeal, traits.not_ideal.into());
        let ClientTraits { rights, policy, version, not_ideal } = traits;
        let version = i32::try_from(version).unwrap_or(i32::MAX);
        let (session, ingress) = (Session::new(rights), Ingress::new(peer));
        Self { session, ingress, version, policy, home: false, not_ideal }
    }

    #[inline]
    pub(crate) const fn peer(&self) -> &Arc<Peer> {
        &self.ingress.peer
    }

    /// What an operator is shown of the client.
    pub(crate) fn report(&self) -> ClientReport {
        let peer = self.peer();
        ClientReport {
            policy: self.policy,
            rights: self.session.rights(),
            version: self.version,
            app_name: peer.app_name(),
            is_home: self.home,
            is_not_ideal: self.not_ideal,
            is_prober: peer.flags.has(PresentFlags::PROBER),
            is_active: peer.is_active(),
            is_duplicate: peer.is_shared(),
        }
    }

    /// The packets that the client has sent.
    pub(crate) const fn received(&self) -> Traffic {
        self.ingress.received
    }

    /// The reason not to read the connection at `now`, if there is one.
    #[inline]
    pub(crate) fn hold(&mut self, now: Instant) -> Option<Hold> {
        self.ingress.hold(now)
    }

    /// Acts on the frames in `plaintext`, and counts those that it skips.
    ///
    /// Each frame makes the connection the active one of its key, even a frame of an unknown type. The first frame of a
    /// read decides for the others: `unnoted` is true until it has come, where the key has other connections.
    #[inline]
    pub(crate) fn handle(
        &mut self,
        plaintext: &[u8],
        unnoted: &mut bool,
        turn: &mut Turn<'_>,
    ) -> Result<(), Close> {
        let skipped = self.session.skipped();
        let acted = self.act(plaintext, unnoted, turn);
        let skipped = self.session.skipped() - skipped;
        if skipped > 0 {
            turn.tally.add_cold(ColdCount::UnknownFrames, skipped);
            if std::mem::take(unnoted) {
                turn.note_sent(self.peer());
            }
        }
        acted
    }

    fn act(&mut self, mut plaintext: &[u8], unnoted: &mut bool, turn: &mut Turn<'_>) -> Result<(), Close> {
        while let Some(action) = self.session.next(&mut plaintext, &mut turn.pool)? {
            if std::mem::take(unnoted) {
                turn.note_sent(&self.ingress.peer);
            }
            match action {
                Action::Forward { to, packet } => self.ingress.send(&to, packet, turn),
                Action::Relay(relayed) => self.ingress.relay(relayed, turn),
                Action::Watch => self.watch(turn),
                Action::ClosePeer(key) => self.close_peer(&key.into(), turn),
                Action::Pong(data) => {
                    turn.tally.add_cold(ColdCount::Pings, 1);
                    turn.push_control(&self.ingress.peer, &ServerFrame::Pong(data));
                    turn.tally.add_cold(ColdCount::Pongs, 1);
                }
                Action::Preferred(home) => {
                    if std::mem::replace(&mut self.home, home) != home {
                        turn.registry().gauges().change(Level::Home, if home { 1 } else { -1 });
                    }
                }
            }
        }
        Ok(())
    }

    /// Makes the client a watcher: it is sent the keys that are here, and every key that comes or goes later.
    #[cold]
    fn watch(&mut self, turn: &mut Turn<'_>) {
        let peer = self.peer().clone();
        if *peer.key.node() == turn.config().own_key {
            // This relay has dialled itself, by another name or through a load balancer. The side that dialled finds
            // out from the silence.
            info!(
                address = %peer.address,
                "ignoring WatchConns from this relay's own key: it has dialled itself under another name"
            );
            return;
        }
        if turn.registry().watch(&peer) {
            let mesh = self.ingress.mesh_mut();
            mesh.begin_snapshot(&peer, turn);
            if mesh.list() {
                turn.snapshots.push_back(peer.place().1);
            }
        }
    }

    /// Sends the next step of the snapshot if the client is a watcher that has not been sent all of it.
    pub(crate) fn continue_snapshot(&mut self, turn: &mut Turn<'_>) -> SnapshotCursor {
        let Ingress { peer, mesh, .. } = &mut self.ingress;
        mesh.as_mut().map_or(SnapshotCursor::Done, |mesh| mesh.continue_snapshot(peer, turn))
    }

    /// Notes that the watcher is listed for the next step of its snapshot. Returns false if it is listed already.
    pub(crate) fn list_snapshot(&mut self) -> bool {
        self.ingress.mesh.as_deref_mut().is_some_and(MeshState::list)
    }

    /// Whether a watcher has not been sent all of its snapshot because it is behind in reading.
    pub(crate) fn is_behind(&self) -> bool {
        self.ingress.mesh.as_deref().is_some_and(MeshState::is_behind)
    }

    #[cold]
    fn close_peer(&self, key: &RouteKey, turn: &mut Turn<'_>) {
        turn.tally.add_cold(ColdCount::ClosePeers, 1);
        let connections = turn.shared.close(key, Close::ClosePeer);
        debug!(peer = ?key.node(), by = ?self.peer().key.node(), connections, "closing a client: another relay asked to");
    }

    /// Sends a keep-alive if one is due, and returns when to call this again.
    pub(crate) fn keep_alive(&self, keepalive: Duration, turn: &mut Turn<'_>) -> Instant {
        turn.tally.add_cold(ColdCount::Keepalives, 1);
        turn.push_control(self.peer(), &ServerFrame::KeepAlive);
        turn.now + keepalive
    }

    /// The number of the frame that has begun and is not whole; `None` if there is none.
    #[inline]
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

    /// Forgets the client everywhere but in its owner's slab.
    pub(crate) fn depart(&self, turn: &mut Turn<'_>) {
        let (registry, peer) = (turn.registry(), self.peer());
        registry.gauges().change(Level::Home, -i64::from(self.home));
        registry.gauges().change(Level::NotIdeal, -i64::from(self.not_ideal));
        if self.session.rights().may_watch() {
            registry.unwatch(peer);
        }
        let subscribers = registry.leave(peer, &mut |each, event| turn.notify(each, event));
        turn.departures.add_key(peer.key, subscribers);
    }
}

#[cfg(test)]
mod tests {
    use towpath_relay_proto::rights::Rights;
    use towpath_wire::derp::frame::ClientFrame;

    use super::*;
    use crate::testing::{key, peer, shared, traits};

    #[test]
    fn each_request_to_close_a_client_is_counted_if_it_comes_from_a_relay() {
        let shared = shared(0);
        let turn = &mut Turn::new(&shared, Instant::ZERO);
        let mut request = Vec::new();
        ClientFrame::ClosePeer(*key(9).node()).encode(&mut request);
        for (rights, outcome, counted) in
            [(Rights::Watch, Err(Close::NotPermitted), 0), (Rights::Mesh, Ok(()), 2)]
        {
            let mut client = ClientState::new(peer(1, key(1)), traits(rights), turn);
            assert_eq!(client.handle(&request.repeat(2), &mut false, turn), outcome);
            assert_eq!(turn.tally.cold(ColdCount::ClosePeers), counted);
        }
    }
}
