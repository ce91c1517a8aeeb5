//! The home region of this node, and the region that is kept ready beside it: the nearest ones by the answers of the STUN servers
//! beside the relays.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use towpath_stun_proto::Response;
use towpath_wire::time::Instant;

use crate::asked::Asked;
use crate::config::RelayConfig;
use crate::datagram::Region;
use crate::links::Links;
use crate::random::Random;

/// Regions that are measured.
const MOST_MEASURED: usize = 64;
/// Regions in which a peer is looked for.
const MOST_SEARCHED: usize = 4;
/// When servers that have not answered are asked again, since the begin of a round, and when the round ends.
const ASK_AGAIN: Duration = Duration::from_millis(400);
const ROUND: Duration = Duration::from_millis(1500);
/// How long after the first round trip of a round the first home is chosen: the answers of regions that are much farther away are
/// not needed for that.
const SLACK: Duration = Duration::from_millis(20);
/// How often the regions are measured while the node is active.
pub(crate) const MEASURED: Duration = Duration::from_secs(300);
/// What another region must be nearer by to become the home (`netcheck.addReportHistoryAndSetPreferredDERP`): 10 ms, and a third.
const NEARER: Duration = Duration::from_millis(10);

/// The home region, and the one that is kept ready.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Homes {
    pub(crate) home: Option<Region>,
    pub(crate) standby: Option<Region>,
}

/// A round in which the servers are asked.
#[derive(Debug)]
struct Round {
    began: Instant,
    is_asked_again: bool,
    /// When a node without a home chooses one.
    choose_at: Option<Instant>,
    asked: Vec<(Region, Asked)>,
    took: BTreeMap<Region, Duration>,
}

/// The regions that this node knows, and what was measured of them.
#[derive(Debug)]
pub(crate) struct Regions {
    relays: Vec<RelayConfig>,
    pinned: Option<Region>,
    /// The regions in which a peer is looked for, where a setting names them.
    named: Vec<Region>,
    chosen: Homes,
    round: Option<Round>,
    measured: Option<Instant>,
    /// The round trips of the last two rounds.
    reports: [BTreeMap<Region, Duration>; 2],
}

impl Regions {
    pub(crate) fn new(relays: Vec<RelayConfig>, pinned: Option<Region>, named: Vec<Region>) -> Self {
        let mut regions = Self {
            relays,
            pinned,
            named,
            chosen: Homes::default(),
            round: None,
            measured: None,
            reports: Default::default(),
        };
        // Where there is nothing to choose, nothing is waited for.
        if pinned.is_some() || regions.relays.len() <= 1 {
            regions.choose(&Links::default());
        }
        regions
    }

    /// Whether this node can reach a region.
    pub(crate) fn knows(&self, region: Region) -> bool {
        self.relays.iter().any(|relay| relay.region == region)
    }

    /// The regions to which links are kept up.
    pub(crate) const fn chosen(&self) -> Homes {
        self.chosen
    }

    /// The STUN servers: one of each region, the nearest first, then the others.
    pub(crate) fn servers(&self) -> Vec<SocketAddr> {
        let order: Vec<_> = self.by_distance();
        let of = |region: &Region| self.relays.iter().find(|relay| relay.region == *region);
        let most = self.relays.iter().map(|relay| relay.stun.len()).max().unwrap_or(0);
        (0..most)
            .flat_map(|at| order.iter().filter_map(move |region| of(region)?.stun.get(at).copied()))
            .collect()
    }

    /// The regions in which a peer is looked for, the home first.
    pub(crate) fn searched(&self) -> Vec<Region> {
        let mut searched: Vec<_> = self.chosen.home.into_iter().collect();
        let others = if self.named.is_empty() { self.by_distance() } else { self.named.clone() };
        searched.extend(others.into_iter().filter(|region| Some(*region) != self.chosen.home));
        searched.truncate(MOST_SEARCHED);
        searched
    }

    /// All regions, the nearest first; those that have not answered in the order of the configuration.
    fn by_distance(&self) -> Vec<Region> {
        let mut regions: Vec<_> = self.relays.iter().map(|relay| relay.region).collect();
        regions.sort_by_key(|region| self.latency(*region).unwrap_or(Duration::MAX));
        regions
    }

    /// The least round trip of the last rounds.
    fn latency(&self, region: Region) -> Option<Duration> {
        self.reports.iter().filter_map(|report| report.get(&region)).min().copied()
    }

    /// Asks the servers of all regions, if that is due, or `is_new` says that this node is in another network. Returns the
    /// requests.
    pub(crate) fn measure(
        &mut self,
        is_new: bool,
        has_family: impl Fn(SocketAddr) -> bool,
        now: Instant,
        random: &mut Random,
    ) -> Vec<(SocketAddr, Vec<u8>)> {
        let is_due = self.measured.is_none_or(|at| now.since(at) >= MEASURED);
        if self.relays.len() <= 1 || !(is_new || is_due && self.round.is_none()) {
            return Vec::new();
        }
        if is_new {
            self.reports = Default::default();
        }
        let server = |relay: &RelayConfig| relay.stun.iter().copied().find(|server| has_family(*server));
        let asked = self
            .relays
            .iter()
            .take(MOST_MEASURED)
            .filter_map(|relay| Some((relay.region, Asked::new(server(relay)?, now, random))));
        let asked: Vec<_> = asked.collect();
        let requests = asked.iter().map(|(_, asked)| asked.request()).collect();
        self.measured = Some(now);
        self.round =
            Some(Round { began: now, is_asked_again: false, choose_at: None, asked, took: BTreeMap::new() });
        requests
    }

    /// Takes an answer of a server. Returns whether the homes may be others now.
    pub(crate) fn handle_response(
        &mut self,
        remote: SocketAddr,
        datagram: &[u8],
        links: &Links,
        now: Instant,
    ) -> bool {
        let Some(round) = &mut self.round else { return false };
        let Ok(response) = Response::parse(datagram) else { return false };
        let is_answered = |(_, asked): &(Region, Asked)| asked.is_answered_by(&response, remote);
        let Some(at) = round.asked.iter().position(is_answered) else { return false };
        let (region, asked) = round.asked.swap_remove(at);
        let took = now.since(asked.sent);
        round.took.insert(region, took);
        round.asked.retain(|(other, _)| *other != region);
        round.choose_at.get_or_insert(now + took + SLACK);
        round.asked.is_empty() && self.end(links)
    }

    /// When the round goes on.
    pub(crate) fn due(&self) -> Option<Instant> {
        let round = self.round.as_ref()?;
        let next = round.began + if round.is_asked_again { ROUND } else { ASK_AGAIN };
        let choose = round.choose_at.filter(|_| self.chosen.home.is_none());
        Some(choose.map_or(next, |choose| choose.min(next)))
    }

    /// Does what is due. Returns whether the homes may be others now, and requests.
    pub(crate) fn handle_timeout(
        &mut self,
        links: &Links,
        now: Instant,
        random: &mut Random,
    ) -> (bool, Vec<(SocketAddr, Vec<u8>)>) {
        if self.due().is_none_or(|due| due > now) {
            return (false, Vec::new());
        }
        let Some(round) = &mut self.round else { return (false, Vec::new()) };
        if self.chosen.home.is_none() && round.choose_at.is_some_and(|at| at <= now) {
            self.reports[0].clone_from(&round.took);
            return (self.choose(links), Vec::new());
        }
        if round.is_asked_again {
            return (self.end(links), Vec::new());
        }
        round.is_asked_again = true;
        let again =
            round.asked.iter().map(|(region, asked)| (*region, Asked::new(asked.server, now, random)));
        let again: Vec<_> = again.collect();
        let requests = again.iter().map(|(_, asked)| asked.request()).collect();
        round.asked.extend(again);
        (false, requests)
    }

    fn end(&mut self, links: &Links) -> bool {
        if let Some(round) = self.round.take() {
            self.reports.swap(0, 1);
            self.reports[0] = round.took;
        }
        self.choose(links)
    }

    /// Chooses the homes by what was measured. Returns whether they are others than before.
    fn choose(&mut self, links: &Links) -> bool {
        let before = self.chosen;
        let nearest = self.by_distance();
        let home = self.pinned.or_else(|| self.stay(before.home, &nearest, links));
        let others: Vec<_> = nearest.into_iter().filter(|region| Some(*region) != home).collect();
        let old = before.standby.filter(|region| others.contains(region));
        self.chosen = Homes { home, standby: self.stay(old, &others, links) };
        self.chosen != before
    }

    /// The nearest of `regions`, or `old` if that is not much farther away.
    fn stay(&self, old: Option<Region>, regions: &[Region], links: &Links) -> Option<Region> {
        let answers = |region: &&Region| self.reports[0].contains_key(region);
        let best = *regions.iter().find(answers).or(regions.first())?;
        let Some(old) = old else { return Some(best) };
        let nearer = match (self.reports[0].get(&old), self.latency(best)) {
            // What has not answered this time may be reached all the same.
            (None, Some(_)) => !links.is_up(old),
            (_, None) => false,
            (Some(_), Some(new)) => {
                let old = self.latency(old).unwrap_or(Duration::MAX);
                old.saturating_sub(new) >= NEARER && new * 3 <= old * 2
            }
        };
        Some(if nearer { best } else { old })
    }
}

#[cfg(test)]
mod tests {
    use towpath_stun_proto::{RESPONSE_MAX_LEN, write_response};

    use super::*;

    fn at(millis: u64) -> Instant {
        Instant::from(Duration::from_millis(millis))
    }

    fn server(number: u16) -> SocketAddr {
        format!("203.0.113.{number}:3478").parse().expect("an address")
    }

    fn regions(count: u16, pinned: Option<Region>) -> Regions {
        let relays =
            (1..=count).map(|number| RelayConfig { region: Region(number), stun: vec![server(number)] });
        Regions::new(relays.collect(), pinned, vec![])
    }

    /// A round that begins at `begin`, in which each region answers after so many milliseconds, or never.
    fn measure(regions: &mut Regions, begin: u64, millis: &[Option<u64>], links: &Links) -> bool {
        let mut random = Random::new([1; 32]);
        regions.measured = None;
        regions.measure(false, |_| true, at(begin), &mut random);
        let mut answers: Vec<_> =
            millis.iter().zip(1..).filter_map(|(millis, number)| Some(((*millis)?, number))).collect();
        answers.sort_unstable();
        let mut has_changed = false;
        for (millis, number) in answers {
            has_changed |= answer(regions, number, at(begin + millis), links);
        }
        while let Some(due) = regions.due() {
            has_changed |= regions.handle_timeout(links, due, &mut random).0;
        }
        has_changed
    }

    fn answer(regions: &mut Regions, number: u16, now: Instant, links: &Links) -> bool {
        let round = regions.round.as_ref().expect("a round");
        let (_, asked) =
            round.asked.iter().find(|(region, _)| *region == Region(number)).expect("it is asked");
        let mut response = [0; RESPONSE_MAX_LEN];
        let len = write_response(&mut response, asked.transaction, server(1));
        regions.handle_response(server(number), &response[..len], links, now)
    }

    fn up(number: u16) -> Links {
        let mut links = Links::default();
        links.up(Region(number), at(0));
        links
    }

    fn homes(regions: &Regions) -> [u16; 2] {
        let Homes { home, standby } = regions.chosen();
        [home, standby].map(|region| region.map_or(0, |region| region.0))
    }

    #[test]
    fn the_nearest_region_becomes_the_home_and_the_second_nearest_is_ready() {
        let mut nearest = regions(4, None);
        assert_eq!(homes(&nearest), [0, 0], "a node waits for the first round");
        assert!(measure(&mut nearest, 0, &[Some(90), None, Some(30), Some(40)], &Links::default()));
        assert_eq!(homes(&nearest), [3, 4]);
        assert_eq!(nearest.searched(), [3, 4, 1, 2].map(Region));
        assert_eq!(nearest.servers(), [3, 4, 1, 2].map(server));
        let mut pinned = regions(4, Some(Region(2)));
        assert_eq!(homes(&pinned), [2, 1]);
        measure(&mut pinned, 0, &[Some(90), None, Some(30), Some(40)], &Links::default());
        assert_eq!(homes(&pinned), [2, 3]);
        assert_eq!(homes(&regions(1, None)), [1, 0]);
    }

    #[test]
    fn a_node_without_a_home_does_not_wait_for_regions_that_are_far_away() {
        let mut regions = regions(3, None);
        let mut random = Random::new([1; 32]);
        assert_eq!(regions.measure(true, |_| true, at(0), &mut random).len(), 3);
        assert!(!answer(&mut regions, 2, at(30), &Links::default()));
        assert_eq!(regions.due(), Some(at(80)), "20 ms after the same time again");
        assert!(regions.handle_timeout(&Links::default(), at(80), &mut random).0);
        assert_eq!(homes(&regions), [2, 1]);
        assert!(!answer(&mut regions, 3, at(300), &Links::default()));
        assert_eq!(
            regions.handle_timeout(&Links::default(), at(400), &mut random).1.len(),
            1,
            "one is asked again"
        );
        assert_eq!(regions.due(), Some(at(1500)));
        assert!(regions.handle_timeout(&Links::default(), at(1500), &mut random).0);
        assert_eq!((homes(&regions), regions.due()), ([2, 3], None));
    }

    /// The cases of `netcheck`'s `TestAddReportHistoryAndSetPreferredDERP` that concern two regions.
    #[test]
    fn the_home_stays_unless_another_region_is_much_nearer() {
        for (before, now, links, expected) in [
            ([Some(30), Some(60)], [Some(30), Some(21)], up(9), 1),
            ([Some(30), Some(60)], [Some(30), Some(20)], up(9), 2),
            ([Some(200), Some(250)], [Some(200), Some(140)], up(9), 1),
            ([Some(200), Some(250)], [Some(200), Some(133)], up(9), 2),
            ([Some(5), Some(9)], [Some(5), Some(1)], up(9), 1),
            ([Some(30), Some(60)], [None, Some(60)], up(1), 1),
            ([Some(30), Some(60)], [None, Some(60)], up(9), 2),
            ([Some(30), Some(60)], [None, None], up(9), 1),
            // The least of two rounds counts, so one slow answer moves no home.
            ([Some(30), Some(60)], [Some(300), Some(60)], up(9), 1),
        ] {
            let mut regions = regions(2, None);
            measure(&mut regions, 0, &before, &links);
            assert_eq!(homes(&regions)[0], 1);
            measure(&mut regions, 10_000, &now, &links);
            assert_eq!(homes(&regions)[0], expected, "{before:?}, then {now:?}");
        }
    }

    #[test]
    fn a_round_is_made_in_another_network_and_every_five_minutes_and_is_bounded() {
        let mut regions = regions(100, None);
        let mut random = Random::new([1; 32]);
        let mut ask = |regions: &mut Regions, is_new, seconds: u64| {
            regions.measure(is_new, |_| true, at(1000 * seconds), &mut random).len()
        };
        assert_eq!(ask(&mut regions, true, 0), MOST_MEASURED);
        assert_eq!(ask(&mut regions, false, 299), 0);
        assert_eq!(ask(&mut regions, true, 299), MOST_MEASURED);
        regions.end(&Links::default());
        assert_eq!((ask(&mut regions, false, 598), ask(&mut regions, false, 599)), (0, MOST_MEASURED));
    }

    #[test]
    fn an_answer_counts_from_the_server_that_was_asked_and_once() {
        let mut regions = regions(2, None);
        regions.measure(true, |_| true, at(0), &mut Random::new([1; 32]));
        let transaction = regions.round.as_ref().expect("a round").asked[0].1.transaction;
        let mut response = [0; RESPONSE_MAX_LEN];
        let len = write_response(&mut response, transaction, server(1));
        let mut took = |from, bytes: &[u8]| {
            regions.handle_response(from, bytes, &Links::default(), at(9));
            regions.round.as_ref().expect("a round").took.len()
        };
        assert_eq!(took(server(2), &response[..len]), 0, "from another server");
        assert_eq!(took(server(1), &response[..len - 1]), 0);
        assert_eq!(took(server(1), &response[..len]), 1);
    }
}
