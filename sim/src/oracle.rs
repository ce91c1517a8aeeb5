//! The oracle: whether two hosts can have a direct path, and how soon, by the NATs and links alone.
//!
//! It knows simultaneous opening and reversal, in which each side sends to endpoints that the other one has learnt of
//! itself from a STUN server or been granted by its gateway, and to what it hears from. It does not count on predicted ports,
//! nor on luck.

use std::net::IpAddr;
use std::time::Duration;

use towpath_wire::time::Instant;

use crate::host::Attachment;
use crate::id::{HostId, NatId, Place};
use crate::link::Loss;
use crate::machine::Machine;
use crate::nat::{Allocator, Dependence, Egress, Pooling};
use crate::topology::Topology;
use crate::world::World;

/// Whether a direct path can exist that carries packets both ways.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Direct {
    /// It cannot, but for a guessed port.
    Cannot,
    /// It can, if something is guessed or known that need not be.
    May,
    /// It can.
    Must,
}

/// What the oracle says of two hosts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// Whether a direct path can exist.
    pub direct: Direct,
    /// The least time from the first packet until both sides have proven the path: R/2 + D, or D where one side is open
    /// and the other one may have known that before. `None` if there is no relay to begin with, or no path.
    pub floor: Option<Duration>,
    /// The time that a packet takes over the nearest relay, R/2.
    pub relayed: Option<Duration>,
}

/// What the NATs of a host come to.
#[derive(Clone, Copy, Debug)]
struct Side {
    egress: Egress,
    mapping: Dependence,
    filtering: Dependence,
    /// Whether the external port may well be the internal one.
    preserves: bool,
    /// Whether the external address of a packet is not known before.
    scatters: bool,
    /// Whether everything that comes to a known endpoint comes in for good.
    open: bool,
}

impl Side {
    fn new(topology: &Topology, host: IpAddr, chain: &[NatId], now: Instant) -> Self {
        let mut side = Self {
            egress: Egress::All,
            mapping: Dependence::EndpointIndependent,
            filtering: Dependence::EndpointIndependent,
            preserves: true,
            scatters: false,
            open: true,
        };
        let mut guessable = false;
        for nat in chain {
            let table = &topology.nats[nat.index()].table;
            let nat = table.nat;
            if nat.egress != Egress::All {
                side.egress = nat.egress;
            }
            // What the gateway has granted is outside at once if there is no other NAT.
            let is_granted = chain.len() == 1 && table.leases_to(host, now);
            if is_granted || table.forwards(now) && nat.mapping == Dependence::EndpointIndependent {
                continue;
            }
            // An endpoint that is forwarded or can be asked for may be known, though no STUN server tells of it.
            guessable |= table.forwards(now) || nat.gateway.is_some();
            side.open = false;
            side.filtering = side.filtering.max(nat.filtering);
            if nat.translates {
                side.mapping = side.mapping.max(nat.mapping);
                side.preserves &= nat.allocator == Allocator::Preserve;
                side.scatters |= nat.pooling != Pooling::Paired && nat.addresses > 1;
                if nat.pooling == Pooling::PerFlow && nat.addresses > 1 {
                    // Another remote sees another address, though perhaps one that a server has seen as well.
                    side.mapping = side.mapping.max(Dependence::AddressDependent);
                    guessable = true;
                }
            }
        }
        side.preserves |= guessable;
        side
    }

    const fn is_hard(&self) -> bool {
        !matches!(self.mapping, Dependence::EndpointIndependent)
    }

    fn is_strict(&self) -> bool {
        self.filtering == Dependence::AddressAndPortDependent
    }
}

/// Whether two sides can reach each other.
fn judge(one: Side, other: Side) -> Direct {
    if one.egress != Egress::All || other.egress != Egress::All {
        return restricted(one, other);
    }
    let (easy, hard) = match (one.is_hard(), other.is_hard()) {
        (false, false) => return Direct::Must,
        (true, true) => {
            let some_way = !one.is_strict() || !other.is_strict() || one.preserves || other.preserves;
            return if some_way { Direct::May } else { Direct::Cannot };
        }
        (false, true) => (one, other),
        (true, false) => (other, one),
    };
    match easy.filtering {
        Dependence::EndpointIndependent => Direct::Must,
        // The easy side has to send to the address from which the hard one comes.
        Dependence::AddressDependent if hard.scatters => Direct::May,
        Dependence::AddressDependent => Direct::Must,
        // Where the hard side lets everything in, packets of the easy one arrive, and the answers do not.
        Dependence::AddressAndPortDependent if hard.preserves => Direct::May,
        Dependence::AddressAndPortDependent => Direct::Cannot,
    }
}

/// Whether two sides can reach each other of which one may not send everywhere.
fn restricted(one: Side, other: Side) -> Direct {
    let blocked = |side: Side| side.egress == Egress::Nothing;
    // What the peer's port is seen as is not certain, so nothing is certain here.
    if blocked(one) || blocked(other) { Direct::Cannot } else { Direct::May }
}

impl<M: Machine> World<M> {
    /// What the oracle says of two hosts as they are now, of which the first one sends the first packet.
    #[must_use]
    pub fn verdict(&self, from: HostId, to: HostId) -> Verdict {
        let [here, there] = [from, to].map(|host| self.attachments(host));
        let relayed = self.relayed(from, to);
        let mut best = Verdict { direct: Direct::Cannot, floor: None, relayed };
        for (one, other) in here.iter().flat_map(|one| there.iter().map(move |other| (one, other))) {
            if one.address.is_ipv4() != other.address.is_ipv4() {
                continue;
            }
            let (direct, open) = self.direct(one, other);
            if direct == Direct::Cannot || direct < best.direct {
                continue;
            }
            let round_trip = self.topology().links.round_trip(one.site, other.site);
            let floor = if open { Some(round_trip) } else { relayed.map(|half| half + round_trip) };
            let sooner = best.floor.is_none() || floor.is_some() && floor < best.floor;
            if direct > best.direct || sooner {
                best = Verdict { direct, floor, relayed };
            }
        }
        best
    }

    /// Whether a direct path can exist between two addresses, and whether one of the two is open.
    fn direct(&self, one: &Attachment, other: &Attachment) -> (Direct, bool) {
        let topology = self.topology();
        let [links, back] =
            [(one, other), (other, one)].map(|(from, to)| topology.links.get(from.site, to.site));
        if links.blocked || back.blocked {
            return (Direct::Cannot, false);
        }
        if one.place == other.place && matches!(one.place, Place::Behind(_)) {
            return (Direct::Must, false);
        }
        let [mine, theirs] = [one, other].map(|at| topology.chain(at.place));
        let shared = mine.iter().rev().zip(theirs.iter().rev()).take_while(|(a, b)| a == b).count();
        let sides = |mine: &[NatId], theirs: &[NatId]| {
            [(one, mine), (other, theirs)]
                .map(|(host, chain)| Side::new(topology, host.address, chain, self.now()))
        };
        let [near_mine, near_theirs] = [&mine[..mine.len() - shared], &theirs[..theirs.len() - shared]];
        let turn = mine.get(mine.len() - shared).map(|nat| topology.nats[nat.index()].table.nat);
        let (mut direct, open) = match turn {
            Some(nat) if nat.translates && !nat.hairpin => {
                // Only one that stands in the shared network itself, or to which a port is forwarded there, has an address
                // there that it knows.
                let knows = |at: &Attachment, near: &[NatId]| match near {
                    [] => true,
                    [nat] => topology.nats[nat.index()].table.leases_to(at.address, self.now()),
                    _ => false,
                };
                let known = knows(one, near_mine) || knows(other, near_theirs);
                let [a, b] = sides(near_mine, near_theirs);
                (if known { judge(a, b).min(Direct::May) } else { Direct::Cannot }, false)
            }
            Some(nat) if !nat.translates => {
                let [a, b] = sides(near_mine, near_theirs);
                (judge(a, b), false)
            }
            _ => {
                let [a, b] = sides(&mine, &theirs);
                (judge(a, b), a.open || b.open)
            }
        };
        if [links, back].iter().any(|link| loses_most(link.loss)) {
            direct = direct.min(Direct::May);
        }
        (direct, open)
    }
}

fn loses_most(loss: Loss) -> bool {
    match loss {
        Loss::Nothing => false,
        Loss::Random(chance) => chance > 0.5,
        Loss::Burst { enter, leave } => enter > leave,
    }
}
