//! The links to relays: which are up, which are lost, and which are up and silent, as those to a relay that hangs or behind a NAT
//! that has forgotten the connection.
//!
//! A link that is up says nothing of itself, and a node that only receives is reached over it alone when a direct path fails. So a
//! link is pinged when there is a reason to doubt it, and seldom without one:
//!
//! | when | which links |
//! |---|---|
//! | data is sent over it and nothing comes, at the tempo of probes | this one |
//! | what came over a relay or on a direct path again and again stays away; probes of a direct path are late; the network of this host has changed | all that are up |
//! | nothing has come for long | those that are kept |
//!
//! One that does not answer in its patience is dialled anew. The old one serves until then, so an answer that is late costs a login
//! and no packet.

use std::collections::BTreeMap;
use std::time::Duration;

use towpath_wire::time::Instant;

use crate::datagram::{Region, Transmit};
use crate::patience::{GIVE_UP, Pulse, TYPICAL_RTT, probe_interval, silent_after};

/// How long a relay whose link was lost is not used, unless the link is up again sooner.
const LOST: Duration = Duration::from_secs(10);
/// How often a link that is given up is pinged while data is sent.
const GIVEN_UP_PINGS: Duration = Duration::from_secs(1);
/// How often a link is dialled anew at most because it does not answer.
const REDIAL: Duration = Duration::from_secs(5);
/// How long nothing may have come over a kept link until it is pinged, within [`IN_USE`] after data was sent or came by any way.
const QUIET: Duration = Duration::from_secs(25);
/// How long otherwise: longer than the keep-alives of relays are apart (60 to 65 s), so that a node at rest sends nothing as long as
/// they come.
const QUIET_AT_REST: Duration = Duration::from_secs(75);
/// As long as a path is kept alive.
const IN_USE: Duration = Duration::from_secs(600);

/// Whether data may go over a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Answering {
    /// Nothing speaks against it.
    Yes,
    /// It does not answer of late. Data goes over another one as well.
    Silent,
    /// It has not answered for seconds. Data goes over another one.
    No,
}

#[derive(Clone, Copy, Debug, Default)]
struct Link {
    is_up: bool,
    /// When it was lost, or could not be made.
    lost: Option<Instant>,
    rtt: Option<Duration>,
    /// When anything came over it.
    heard: Instant,
    /// When it was pinged, and when for the first time since something came over it.
    pinged: Option<Instant>,
    waiting: Option<Instant>,
    /// Data that comes over it.
    pulse: Pulse,
    /// When it was to be dialled anew last.
    redialled: Option<Instant>,
}

impl Link {
    /// The round trip, or the typical one if it is not known.
    fn rtt(&self) -> Duration {
        self.rtt.unwrap_or(TYPICAL_RTT)
    }

    /// When it is silent if nothing comes.
    fn silent_at(&self) -> Option<Instant> {
        self.waiting.map(|since| since + silent_after(self.rtt()))
    }

    fn answering(&self, now: Instant) -> Answering {
        let Some(silent) = self.silent_at() else { return Answering::Yes };
        if now >= silent + GIVE_UP {
            Answering::No
        } else if now >= silent {
            Answering::Silent
        } else {
            Answering::Yes
        }
    }

    /// Notes a ping.
    fn ping(&mut self, now: Instant) {
        self.pinged = Some(now);
        self.waiting.get_or_insert(now);
    }

    /// What stays when the link is lost or another one takes its place.
    fn kept(&self) -> Self {
        Self { rtt: self.rtt, redialled: self.redialled, ..Self::default() }
    }

    /// Whether its dial has begun and it has not been heard since.
    fn is_redialled(&self) -> bool {
        self.waiting.is_some_and(|since| self.redialled.is_some_and(|at| at >= since))
    }

    /// When it is to be dialled anew if nothing comes.
    fn redial_at(&self) -> Option<Instant> {
        let silent = self.silent_at().filter(|_| !self.is_redialled())?;
        Some(self.redialled.map_or(silent, |at| silent.max(at + REDIAL)))
    }

    /// When it is next to be looked at if nothing comes. `quiet` is how long a link may be quiet that is kept.
    fn due(&self, quiet: Option<Duration>) -> Option<Instant> {
        if !self.is_up {
            return None;
        }
        if self.waiting.is_some() {
            return self.redial_at();
        }
        let quiet_at = quiet.map(|quiet| self.heard + quiet);
        self.pulse.missed_at(self.rtt()).into_iter().chain(quiet_at).min()
    }
}

/// The links to the relays of all regions that the driver has told of.
#[derive(Debug, Default)]
pub(crate) struct Links {
    links: BTreeMap<Region, Link>,
    /// The regions to whose relays links are kept up.
    kept: [Option<Region>; 2],
    /// When data was sent or came last, by any way.
    used: Option<Instant>,
    /// When a link is due, or earlier: what comes over a link puts it off, and that is not looked at each time.
    due: Option<Instant>,
}

impl Links {
    pub(crate) fn up(&mut self, region: Region, now: Instant) {
        let link = self.links.entry(region).or_default();
        *link = Link { is_up: true, heard: now, ..link.kept() };
        self.arm(region, now);
    }

    pub(crate) fn down(&mut self, region: Region, now: Instant) {
        let link = self.links.entry(region).or_default();
        *link = Link { lost: Some(now), ..link.kept() };
    }

    /// Takes the regions to whose relays links are kept up.
    pub(crate) fn keep(&mut self, kept: [Option<Region>; 2], now: Instant) {
        self.kept = kept;
        kept.into_iter().flatten().for_each(|region| self.arm(region, now));
    }

    /// Notes that data is sent or has come, by whatever way.
    pub(crate) fn note_use(&mut self, now: Instant) {
        let was_in_use = self.is_in_use(now);
        self.used = Some(now);
        if !was_in_use {
            let kept = self.kept;
            self.keep(kept, now);
        }
    }

    fn is_in_use(&self, now: Instant) -> bool {
        self.used.is_some_and(|used| now.since(used) < IN_USE)
    }

    /// How long the link to the relay of a region may be quiet until it is pinged; `None` if it is not kept.
    fn quiet(&self, region: Region, now: Instant) -> Option<Duration> {
        let is_kept = self.kept.contains(&Some(region));
        is_kept.then_some(if self.is_in_use(now) { QUIET } else { QUIET_AT_REST })
    }

    /// Looks at a link no later than it is due.
    fn arm(&mut self, region: Region, now: Instant) {
        let quiet = self.quiet(region, now);
        let due = self.links.get(&region).and_then(|link| link.due(quiet));
        self.due = self.due.into_iter().chain(due).min();
    }

    /// When [`handle_timeout`](Self::handle_timeout) is to be called.
    pub(crate) const fn due(&self) -> Option<Instant> {
        self.due
    }

    /// Does what is due. Returns what is to be sent.
    pub(crate) fn handle_timeout(&mut self, now: Instant) -> Vec<Transmit> {
        if self.due.is_none_or(|due| due > now) {
            return Vec::new();
        }
        let mut wanted = Vec::new();
        let mut is_missed = false;
        let quiet: Vec<_> = self.links.keys().map(|region| self.quiet(*region, now)).collect();
        for ((region, link), quiet) in self.links.iter_mut().zip(quiet) {
            if link.due(quiet).is_none_or(|due| due > now) {
                continue;
            }
            if link.waiting.is_some() {
                link.redialled = Some(now);
                wanted.push(Transmit::Redial { region: *region });
            } else if link.pulse.missed_at(link.rtt()).is_some_and(|at| at <= now) {
                link.pulse.miss();
                is_missed = true;
            } else {
                link.ping(now);
                wanted.push(Transmit::Ping { region: *region });
            }
        }
        if is_missed {
            wanted.append(&mut self.check(now));
        }
        let due = self.links.iter().filter_map(|(region, link)| link.due(self.quiet(*region, now)));
        self.due = due.min();
        wanted
    }

    /// Pings all links that are up, because this node may be behind a hole, unless something has come or they were pinged a moment
    /// ago. Returns the pings.
    pub(crate) fn check(&mut self, now: Instant) -> Vec<Transmit> {
        let regions: Vec<_> = self.links.keys().copied().collect();
        regions
            .into_iter()
            .filter(|region| self.ping(*region, now))
            .map(|region| Transmit::Ping { region })
            .collect()
    }

    /// Pings all links in another network, whatever has come over them in the one before, and lets dials begin anew. Returns what is
    /// to be sent.
    pub(crate) fn move_network(&mut self, now: Instant) -> Vec<Transmit> {
        let mut wanted = Vec::new();
        for (region, link) in &mut self.links {
            let region = *region;
            if !link.is_up || link.is_redialled() {
                wanted.push(Transmit::Redial { region });
            } else {
                link.redialled = None;
            }
            if link.is_up {
                link.ping(now);
                wanted.push(Transmit::Ping { region });
            }
        }
        let regions: Vec<_> = self.links.keys().copied().collect();
        regions.into_iter().for_each(|region| self.arm(region, now));
        wanted
    }

    /// Notes a round trip, which a ping or the login took.
    pub(crate) fn measured(&mut self, region: Region, took: Duration, now: Instant) {
        if let Some(link) = self.links.get_mut(&region) {
            link.rtt = Some(took);
        }
        self.hear(region, now);
    }

    /// Notes that something came over a link.
    pub(crate) fn hear(&mut self, region: Region, now: Instant) {
        if let Some(link) = self.links.get_mut(&region) {
            (link.heard, link.waiting) = (now, None);
            self.arm(region, now);
        }
    }

    /// Notes that what was heard over a link is a packet of a peer: more may be to come.
    pub(crate) fn note_packet(&mut self, region: Region, now: Instant) {
        self.note_use(now);
        if let Some(link) = self.links.get_mut(&region) {
            link.pulse.beat(now);
            self.arm(region, now);
        }
    }

    pub(crate) fn rtt(&self, region: Region) -> Option<Duration> {
        self.links.get(&region)?.rtt
    }

    pub(crate) fn is_up(&self, region: Region) -> bool {
        self.links.get(&region).is_some_and(|link| link.is_up)
    }

    /// Whether the link of a region was lost a moment ago. Links that are not up are made by the driver when something is sent.
    pub(crate) fn is_lost(&self, region: Region, now: Instant) -> bool {
        let lost = self.links.get(&region).and_then(|link| link.lost);
        lost.is_some_and(|at| now.since(at) < LOST)
    }

    /// A region whose link is up.
    pub(crate) fn first_up(&self) -> Option<Region> {
        self.links.iter().find(|(_, link)| link.is_up).map(|(region, _)| *region)
    }

    /// Whether a link answers. One that is not up is made when something is sent.
    pub(crate) fn answering(&self, region: Region, now: Instant) -> Answering {
        self.links.get(&region).map_or(Answering::Yes, |link| link.answering(now))
    }

    /// Whether a link over which data is sent is to be pinged now, which is noted: nothing has come over it for a while.
    pub(crate) fn ping(&mut self, region: Region, now: Instant) -> bool {
        let Some(link) = self.links.get_mut(&region).filter(|link| link.is_up) else { return false };
        let interval = match link.answering(now) {
            Answering::No => GIVEN_UP_PINGS,
            Answering::Yes | Answering::Silent => probe_interval(link.rtt()),
        };
        let last = link.pinged.map_or(link.heard, |pinged| pinged.max(link.heard));
        let is_due = now.since(last) >= interval;
        if is_due {
            link.ping(now);
            self.arm(region, now);
        }
        is_due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HERE: Region = Region(1);

    fn at(millis: u64) -> Instant {
        Instant::from(Duration::from_millis(millis))
    }

    fn link(rtt: u64) -> Links {
        let mut links = Links::default();
        links.up(HERE, at(0));
        links.measured(HERE, Duration::from_millis(rtt), at(0));
        links
    }

    #[test]
    fn a_link_that_answers_no_ping_is_silent_in_the_time_of_its_patience_and_given_up_later() {
        for (rtt, patience) in [(40, 250), (120, 360)] {
            let mut links = link(rtt);
            let interval = patience / 4;
            assert!(!links.ping(HERE, at(interval - 1)), "it was heard");
            assert!(links.ping(HERE, at(1000)) && !links.ping(HERE, at(1001)));
            assert!(links.ping(HERE, at(1000 + interval + 1)));
            let silent = 1000 + patience - interval;
            assert_eq!(links.answering(HERE, at(silent - 1)), Answering::Yes);
            assert_eq!(links.answering(HERE, at(silent + 1)), Answering::Silent);
            assert_eq!(links.answering(HERE, at(silent + 3001)), Answering::No);
            assert!(links.ping(HERE, at(5000)) && !links.ping(HERE, at(5999)) && links.ping(HERE, at(6000)));
            links.hear(HERE, at(6001));
            assert_eq!(links.answering(HERE, at(9000)), Answering::Yes);
        }
    }

    #[test]
    fn a_link_over_which_data_comes_is_not_pinged() {
        let mut links = link(40);
        for millis in (0..1000).step_by(20) {
            links.hear(HERE, at(millis));
            assert!(!links.ping(HERE, at(millis + 10)));
        }
    }

    #[test]
    fn a_link_that_was_lost_is_not_used_for_ten_seconds_or_until_it_is_up() {
        let mut links = link(40);
        assert!(!links.is_lost(HERE, at(0)) && links.first_up() == Some(HERE));
        links.down(HERE, at(100));
        assert!(links.is_lost(HERE, at(10_099)) && !links.is_lost(HERE, at(10_100)));
        assert_eq!((links.first_up(), links.ping(HERE, at(5000))), (None, false));
        links.up(HERE, at(5000));
        assert!(!links.is_lost(HERE, at(5000)) && links.is_up(HERE));
        assert_eq!(links.rtt(HERE), Some(Duration::from_millis(40)));
    }
}
