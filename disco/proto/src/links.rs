//! The links to relays: which are up, which are lost, and which are up and silent, as those to a relay that hangs or behind a NAT
//! that has forgotten the connection.

use std::collections::BTreeMap;
use std::time::Duration;

use towpath_wire::time::Instant;

use crate::datagram::Region;
use crate::patience::{GIVE_UP, TYPICAL_RTT, probe_interval, silent_after};

/// How long a relay whose link was lost is not used, unless the link is up again sooner.
const LOST: Duration = Duration::from_secs(10);
/// How often a link that is given up is pinged while data is sent.
const GIVEN_UP_PINGS: Duration = Duration::from_secs(1);

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
}

impl Link {
    /// The round trip, or the typical one if it is not known.
    fn rtt(&self) -> Duration {
        self.rtt.unwrap_or(TYPICAL_RTT)
    }

    fn answering(&self, now: Instant) -> Answering {
        let Some(since) = self.waiting else { return Answering::Yes };
        let silent = since + silent_after(self.rtt());
        if now >= silent + GIVE_UP {
            Answering::No
        } else if now >= silent {
            Answering::Silent
        } else {
            Answering::Yes
        }
    }
}

/// The links to the relays of all regions that the driver has told of.
#[derive(Debug, Default)]
pub(crate) struct Links(BTreeMap<Region, Link>);

impl Links {
    pub(crate) fn up(&mut self, region: Region, now: Instant) {
        let rtt = self.rtt(region);
        self.0.insert(region, Link { is_up: true, rtt, heard: now, ..Link::default() });
    }

    pub(crate) fn down(&mut self, region: Region, now: Instant) {
        let rtt = self.rtt(region);
        self.0.insert(region, Link { lost: Some(now), rtt, ..Link::default() });
    }

    /// Notes a round trip, which a ping or the login took.
    pub(crate) fn measured(&mut self, region: Region, took: Duration, now: Instant) {
        if let Some(link) = self.0.get_mut(&region) {
            link.rtt = Some(took);
        }
        self.hear(region, now);
    }

    /// Notes that something came over a link.
    pub(crate) fn hear(&mut self, region: Region, now: Instant) {
        if let Some(link) = self.0.get_mut(&region) {
            (link.heard, link.waiting) = (now, None);
        }
    }

    pub(crate) fn rtt(&self, region: Region) -> Option<Duration> {
        self.0.get(&region)?.rtt
    }

    pub(crate) fn is_up(&self, region: Region) -> bool {
        self.0.get(&region).is_some_and(|link| link.is_up)
    }

    /// Whether the link of a region was lost a moment ago. Links that are not up are made by the driver when something is sent.
    pub(crate) fn is_lost(&self, region: Region, now: Instant) -> bool {
        let lost = self.0.get(&region).and_then(|link| link.lost);
        lost.is_some_and(|at| now.since(at) < LOST)
    }

    /// A region whose link is up.
    pub(crate) fn first_up(&self) -> Option<Region> {
        self.0.iter().find(|(_, link)| link.is_up).map(|(region, _)| *region)
    }

    /// Whether a link answers. One that is not up is made when something is sent.
    pub(crate) fn answering(&self, region: Region, now: Instant) -> Answering {
        self.0.get(&region).map_or(Answering::Yes, |link| link.answering(now))
    }

    /// Whether a link over which data is sent is to be pinged now, which is noted: nothing has come over it for a while.
    pub(crate) fn ping(&mut self, region: Region, now: Instant) -> bool {
        let Some(link) = self.0.get_mut(&region).filter(|link| link.is_up) else { return false };
        let interval = match link.answering(now) {
            Answering::No => GIVEN_UP_PINGS,
            Answering::Yes | Answering::Silent => probe_interval(link.rtt()),
        };
        let last = link.pinged.map_or(link.heard, |pinged| pinged.max(link.heard));
        let is_due = now.since(last) >= interval;
        if is_due {
            link.pinged = Some(now);
            link.waiting.get_or_insert(now);
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
