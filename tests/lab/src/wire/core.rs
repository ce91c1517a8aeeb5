//! The internet between the uplinks: which packet goes where, and when it arrives. Pure: the wire tells it the time.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::net::IpAddr;
use std::time::Duration;

use towpath_sim::{Dropped, Link, LinkState, Random, Traffic};
use towpath_wire::time::Instant;

use crate::site::Site;
use crate::wire::packet::{Header, take_hops};

/// Most packets on their way at a time: at 40,000 packets a second, those of six seconds.
const MOST_WAITING: usize = 1 << 18;

/// What became of the packets that were sent from one site to another.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// They were carried, or are on their way.
    pub carried: u64,
    /// The link lost them.
    pub lost: u64,
    /// The link was blocked.
    pub blocked: u64,
    /// Their hops were used up.
    pub expired: u64,
    /// They were larger than the link's MTU, or the queue in front of its rate was full.
    pub refused: u64,
}

/// How late the wire was. It says whether the delays of a test were those that were asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Lateness {
    /// Packets that were delivered.
    pub delivered: u64,
    /// Packets that were delivered more than a millisecond late.
    pub late: u64,
    /// The most that one was late.
    pub most: Duration,
}

/// A packet is late that is delivered so much after the time that its link has given.
const LATE: Duration = Duration::from_millis(1);

/// The link from one site to another.
#[derive(Debug)]
struct Line {
    state: LinkState,
    counts: Counts,
}

/// A packet on its way: when it arrives, its number, the uplink through which it does, and its bytes.
type Waiting = Reverse<(Instant, u64, usize, Vec<u8>)>;

/// All links, routes, and packets on their way.
#[derive(Debug)]
pub(crate) struct Core {
    seed: u64,
    /// The site of each uplink.
    uplinks: Vec<Site>,
    routes: BTreeMap<IpAddr, usize>,
    lines: BTreeMap<(Site, Site), Line>,
    waiting: BinaryHeap<Waiting>,
    /// The packets that were taken so far, which keeps those in order that arrive at the same time.
    taken: u64,
    /// Packets for which there was no room.
    overflowed: u64,
    /// Packets that no uplink has the address of.
    unroutable: u64,
    lateness: Lateness,
}

impl Core {
    pub(crate) const fn new(seed: u64) -> Self {
        Self {
            seed,
            uplinks: Vec::new(),
            routes: BTreeMap::new(),
            lines: BTreeMap::new(),
            waiting: BinaryHeap::new(),
            taken: 0,
            overflowed: 0,
            unroutable: 0,
            lateness: Lateness { delivered: 0, late: 0, most: Duration::ZERO },
        }
    }

    /// Adds an uplink, and returns its index.
    pub(crate) fn add_uplink(&mut self, site: Site) -> usize {
        self.uplinks.push(site);
        self.uplinks.len() - 1
    }

    /// Sends what has a destination to an uplink from now on.
    pub(crate) fn add_route(&mut self, destination: IpAddr, uplink: usize) {
        self.routes.insert(destination, uplink);
    }

    /// Takes a packet that has come from an uplink.
    pub(crate) fn take(&mut self, uplink: usize, packet: &[u8], now: Instant) {
        let Some(header) = Header::read(packet) else { return };
        let Some(&to) = self.routes.get(&header.destination) else {
            self.unroutable += 1;
            return;
        };
        let (from_site, to_site) = (self.uplinks[uplink], self.uplinks[to]);
        let line = self.line(from_site, to_site);
        let mut packet = packet.to_vec();
        if !take_hops(&mut packet, line.state.link.hops) {
            line.counts.expired += 1;
            return;
        }
        let arrives = match line.state.packet(now, packet.len(), header.traffic) {
            Ok(arrives) => arrives,
            Err(reason) => return line.counts.count(reason),
        };
        line.counts.carried += 1;
        if header.traffic == Traffic::Udp && line.state.duplicates() {
            self.wait(arrives, to, packet.clone());
        }
        self.wait(arrives, to, packet);
    }

    fn wait(&mut self, arrives: Instant, to: usize, packet: Vec<u8>) {
        if self.waiting.len() == MOST_WAITING {
            self.overflowed += 1;
            return;
        }
        self.taken += 1;
        self.waiting.push(Reverse((arrives, self.taken, to, packet)));
    }

    /// When the next packet arrives.
    pub(crate) fn due(&self) -> Option<Instant> {
        self.waiting.peek().map(|Reverse((arrives, ..))| *arrives)
    }

    /// The next packet that has arrived: when it was to, and the uplink that it leaves by.
    pub(crate) fn arrived(&mut self, now: Instant) -> Option<(Instant, usize, Vec<u8>)> {
        if self.due()? > now {
            return None;
        }
        let Reverse((arrives, _, uplink, packet)) = self.waiting.pop()?;
        Some((arrives, uplink, packet))
    }

    /// Notes that a packet was delivered that was to arrive at a time.
    pub(crate) fn note_delivery(&mut self, arrives: Instant, now: Instant) {
        let late = now.since(arrives);
        self.lateness.delivered += 1;
        self.lateness.late += u64::from(late > LATE);
        self.lateness.most = self.lateness.most.max(late);
    }

    /// How late packets were delivered.
    pub(crate) const fn lateness(&self) -> Lateness {
        self.lateness
    }

    /// The link from one site to another. One that was not set has no delay, and two routers.
    pub(crate) fn link(&mut self, from: Site, to: Site) -> &mut Link {
        &mut self.line(from, to).state.link
    }

    /// What became of the packets from one site to another.
    pub(crate) fn counts(&mut self, from: Site, to: Site) -> Counts {
        self.line(from, to).counts
    }

    /// Packets for which there was no room.
    pub(crate) const fn overflowed(&self) -> u64 {
        self.overflowed
    }

    fn line(&mut self, from: Site, to: Site) -> &mut Line {
        let seed = self.seed;
        self.lines.entry((from, to)).or_insert_with(|| {
            let random = Random::stream(seed, u64::from(from.0) << 16 | u64::from(to.0));
            let link = Link::new(Duration::ZERO);
            Line { state: LinkState::new(link, random), counts: Counts::default() }
        })
    }
}

impl Counts {
    const fn count(&mut self, reason: Dropped) {
        match reason {
            Dropped::Lost => self.lost += 1,
            Dropped::Blocked => self.blocked += 1,
            _ => self.refused += 1,
        }
    }
}

#[cfg(test)]
mod tests {
    use towpath_sim::Loss;

    use super::*;
    use crate::wire::packet::tests::datagram;

    const HERE: Site = Site(0);
    const THERE: Site = Site(1);

    fn core() -> Core {
        let mut core = Core::new(7);
        assert_eq!((core.add_uplink(HERE), core.add_uplink(THERE)), (0, 1));
        core.add_route([192, 0, 2, 1].into(), 0);
        core.add_route([192, 0, 2, 2].into(), 1);
        core
    }

    fn at(millis: u64) -> Instant {
        Instant::ZERO + Duration::from_millis(millis)
    }

    #[test]
    fn packets_arrive_after_the_delay_of_their_direction_in_their_order() {
        let mut core = core();
        core.link(HERE, THERE).delay = Duration::from_millis(20);
        core.link(THERE, HERE).delay = Duration::from_millis(5);
        let mut second = datagram([192, 0, 2, 2]);
        second.push(2);
        core.take(0, &datagram([192, 0, 2, 2]), at(0));
        core.take(0, &second, at(0));
        core.take(1, &datagram([192, 0, 2, 1]), at(10));
        assert_eq!(core.due(), Some(at(15)));
        assert!(core.arrived(at(14)).is_none());
        assert_eq!(core.arrived(at(15)).map(|(arrives, uplink, _)| (arrives, uplink)), Some((at(15), 0)));
        assert!(core.arrived(at(19)).is_none());
        let lens = [(); 2].map(|()| core.arrived(at(20)).map(|(_, uplink, packet)| (uplink, packet.len())));
        assert_eq!(lens, [Some((1, 28)), Some((1, 29))]);
        assert_eq!(core.due(), None);
        assert_eq!(core.counts(HERE, THERE), Counts { carried: 2, ..Counts::default() });
    }

    #[test]
    fn late_packets_are_counted() {
        let mut core = core();
        core.note_delivery(at(20), at(21));
        assert_eq!(core.lateness(), Lateness { delivered: 1, late: 0, most: LATE });
        core.note_delivery(at(20), at(22));
        assert_eq!(core.lateness(), Lateness { delivered: 2, late: 1, most: 2 * LATE });
    }

    #[test]
    fn what_is_not_carried_is_counted() {
        let mut core = core();
        let nowhere = datagram([192, 0, 2, 3]);
        let datagram = datagram([192, 0, 2, 2]);
        let mut stream = datagram.clone();
        stream[9] = 6;
        let mut take = |change: fn(&mut Link), packet: &[u8]| {
            change(core.link(HERE, THERE));
            core.take(0, packet, at(0));
            core.counts(HERE, THERE)
        };
        assert_eq!(take(|link| link.blocked = true, &datagram).blocked, 1);
        assert_eq!(take(|_| (), &stream).carried, 1);
        assert_eq!(take(|link| link.applies_to = Traffic::Everything, &stream).blocked, 2);
        let lossy = |link: &mut Link| (link.blocked, link.loss) = (false, Loss::Random(1.0));
        assert_eq!(take(lossy, &datagram).lost, 1);
        let short = |link: &mut Link| *link = Link { mtu: 27, ..Link::new(Duration::ZERO) };
        assert_eq!(take(short, &datagram).refused, 1);
        assert_eq!(take(|link| link.hops = 64, &datagram).expired, 1);
        assert_eq!(take(|link| *link = Link::new(Duration::ZERO), &datagram).carried, 2);
        core.take(0, &nowhere, at(0));
        assert_eq!((core.unroutable, core.overflowed()), (1, 0));
    }
}
