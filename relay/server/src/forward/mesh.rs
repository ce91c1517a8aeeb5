//! What another relay of the region asks for on the connection that it dialled: packets for clients here, news of who
//! is here, an end to a client's connections. A prober asks for the news alone.

use std::sync::Arc;

use towpath_relay_proto::outbox::{DropReason, Hop};
use towpath_relay_proto::session::{Close, Relayed};
use towpath_wire::key::NodePublic;
use tracing::info;

use super::desk::Desk;
use super::peer::Peer;
use super::registry::Registry;
use super::route::{Detours, Route};
use super::sender::Sender;
use super::strangers::Epoch;

/// How many keys of the roll a watcher is told of in one turn: a fraction of a millisecond of a worker.
const ROLL_STEP: usize = 1024;

/// What a connection has to do with other relays; nearly none has.
#[derive(Debug, Default)]
pub(super) struct MeshSide {
    /// Where packets of the connection go that another relay takes.
    pub(super) detours: Detours,
    pairs: Pairs,
    roll: Roll,
}

/// How far a watcher has been called the roll.
#[derive(Clone, Copy, Debug, Default)]
pub(super) enum Roll {
    /// Not at all, or to its end.
    #[default]
    Done,
    /// To this key, and on in the next turn.
    At(NodePublic),
    /// To this key, and on when the watcher has read some of it.
    Behind(NodePublic),
}

impl Sender {
    pub(super) fn mesh_side(&mut self) -> &mut MeshSide {
        self.mesh.get_or_insert_default()
    }

    /// Hands a packet on to a client that is here, from one of the relay at the other end. It never goes on to a third.
    ///
    /// That relay is not held back for a destination that reads slowly: that would hold up all the others.
    #[inline(never)]
    pub(super) fn relay(&mut self, relayed: Relayed<'_>, desk: &mut Desk<'_>) {
        let (from, to, packet) = relayed.parts();
        desk.tally.forwarded_in(packet.len());
        if let Some(peer) = self.mesh_side().pairs.find(&from, &to, desk) {
            desk.push_packet(peer, Hop::Client, packet, |outbox, now, limits, pool, tally| {
                outbox.push_packet(now, &from, packet, limits, pool, tally);
            });
            return;
        }
        self.drop_unknown(DropReason::UnknownOnForward, &to, packet, desk);
    }

    /// Begins to tell of who is here, comes and goes.
    #[cold]
    pub(super) fn watch(&mut self, desk: &mut Desk<'_>) {
        if self.peer.key == *desk.own_key {
            // This relay has dialled itself, by another name or through a load balancer, and is to find that out alone.
            info!(address = %self.peer.address, "a connection to itself watches, and is told nothing");
            return;
        }
        if desk.registry.watch(&self.peer) {
            self.call_roll(None, desk);
            desk.rolls.push_back((self.peer.place().1, self.peer.id));
        }
    }

    /// Tells a watcher of more who are here, if it has not been told of all and is not behind in reading.
    pub(super) fn continue_roll(&mut self, desk: &mut Desk<'_>) -> Roll {
        let after = match self.mesh.as_ref().map(|side| side.roll) {
            None | Some(Roll::Done) => return Roll::Done,
            Some(Roll::At(after) | Roll::Behind(after)) => after,
        };
        if self.peer.egress.news() < ROLL_STEP {
            self.call_roll(Some(after), desk)
        } else {
            let roll = Roll::Behind(after);
            self.mesh_side().roll = roll;
            roll
        }
    }

    fn call_roll(&mut self, after: Option<NodePublic>, desk: &mut Desk<'_>) -> Roll {
        let registry = desk.registry;
        let mut tell = |watcher: &Arc<Peer>, notice| desk.notify(watcher, notice);
        let last = registry.call_roll(&self.peer, after, ROLL_STEP, &mut tell);
        let roll = last.map_or(Roll::Done, Roll::At);
        self.mesh_side().roll = roll;
        roll
    }

    /// Whether a watcher has not been told of all because it is behind in reading.
    pub(super) fn is_behind(&self) -> bool {
        self.mesh.as_ref().is_some_and(|side| matches!(side.roll, Roll::Behind(_)))
    }

    /// Has all connections of a key closed.
    #[cold]
    pub(super) fn close_peer(&self, key: &NodePublic, desk: &mut Desk<'_>) {
        let connections = desk.registry.connections(key);
        info!(peer = ?key, by = ?self.peer.key, connections = connections.len(), "another relay closes a client");
        desk.closing.extend(connections.into_iter().map(|peer| (peer, Close::ClosePeer)));
    }
}

/// Which packets went where: a memory of pairs, for on one link come those of many senders.
///
/// That a destination has heard from a sender must be noted once, so that it is told when the sender leaves; what is
/// remembered here has been.
#[derive(Debug, Default)]
struct Pairs(Option<Box<[Option<Pair>]>>);

#[derive(Debug)]
struct Pair {
    from: NodePublic,
    to: Arc<Peer>,
    /// Where the sender is, or since when it is known that nobody has announced it: as long as either is true, the note
    /// holds that `to` has heard from it.
    sender: Result<Route, Epoch>,
}

impl Pair {
    fn holds(&self, from: &NodePublic, to: &NodePublic, registry: &Registry) -> bool {
        self.from == *from
            && self.to.key == *to
            && self.to.is_active()
            && match &self.sender {
                Ok(route) => route.leads_to(from),
                Err(epoch) => *epoch == registry.epoch(),
            }
    }
}

impl Pairs {
    /// 64 KiB for each link.
    const SIZE: usize = 1024;

    fn slot(from: &NodePublic, to: &NodePublic) -> usize {
        let [a, b, ..] = *from.as_bytes();
        let [c, d, ..] = *to.as_bytes();
        usize::from(u16::from_be_bytes([a, b]) ^ u16::from_be_bytes([d, c])) % Self::SIZE
    }

    /// The connection of `to`, if it is here. It joins the audience of `from`.
    #[inline]
    fn find(&mut self, from: &NodePublic, to: &NodePublic, desk: &Desk<'_>) -> Option<&Arc<Peer>> {
        let slot = Self::slot(from, to);
        let all = self.0.get_or_insert_with(|| (0..Self::SIZE).map(|_| None).collect());
        if !all[slot].as_ref().is_some_and(|pair| pair.holds(from, to, desk.registry)) {
            let to = desk.registry.find_here(to)?;
            let sender = desk.registry.note_heard(from, &to);
            all[slot] = Some(Pair { from: *from, to, sender });
        }
        all[slot].as_ref().map(|pair| &pair.to)
    }
}
