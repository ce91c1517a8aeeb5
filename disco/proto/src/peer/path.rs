//! The direct path to a peer: when it was answered last, what size it carries, how much it loses, and when it is suspected to
//! be a hole.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::Duration;

use towpath_wire::key::NodePublic;
use towpath_wire::time::Instant;

use crate::candidates::is_local;
use crate::event::Event;
use crate::patience::{GIVE_UP, PROBES, Pulse, patience, probe_interval, silent_after};

/// How often a suspected path is probed.
const SUSPECTED_PROBES: Duration = Duration::from_millis(250);
/// How long after it should have been kept alive an idle path is suspected when it is used again.
const STALE: Duration = Duration::from_secs(15);
/// How often an idle path is probed, so that the NATs do not forget it: most keep a mapping for 30 s at least. The peer with the
/// lower key does it.
pub(super) const KEEP_ALIVE: Duration = Duration::from_secs(25);
/// How long after that the other peer waits before it keeps the path alive itself.
const KEEP_ALIVE_OTHER: Duration = Duration::from_secs(7);
/// How long an idle path may have been without an answer until data goes over the relay as well, up to the next answer: some NATs
/// forget a mapping after ten seconds.
const DOUBT: Duration = Duration::from_secs(8);
/// How often an idle path is probed at most, whatever was learned of its NATs.
const LEAST_KEEP_ALIVE: Duration = Duration::from_secs(5);
/// Probes whose answers are waited for one by one.
const MOST_WAITING: usize = 32;
/// What another path must be faster by, in percent, to take the place of one that works.
const HYSTERESIS: u32 = 20;
/// The share of probes without an answer, in thousandths, at which data leaves the path for a relay, which loses nothing; and
/// the one at which it comes back. A path that loses 16 or 6 % in each direction has them.
const LOSSY: u32 = 300;
const CLEAN: u32 = 120;
/// The weight of the probes before in the share that is lost: that of the last 32 counts most.
const LOSS_MEMORY: u32 = 32;

/// A path on UDP whose tuple has answered a probe.
#[derive(Clone, Debug)]
pub(crate) struct Path {
    pub(crate) address: SocketAddr,
    /// The smoothed round trip (RFC 6298 section 2, with a gain of 1/8).
    pub(crate) rtt: Duration,
    /// Bytes of the largest datagram that was answered.
    pub(crate) proven: usize,
    /// When a probe was answered last.
    answered: Instant,
    /// The probes of the peer that come on the tuple: again and again while it sends data.
    heard: Pulse,
    /// Whether relays have been asked for answers since a probe was answered, because the next ones were not.
    is_checked: bool,
    pub(super) probed: Instant,
    /// When the probes were sent that are newer than the last one that was answered, the oldest first.
    waiting: VecDeque<Instant>,
    /// The smoothed share of probes without an answer, in thousandths.
    loss: u32,
    /// Whether data goes over the relay because the path loses too much.
    pub(super) is_lossy: bool,
    /// How often the path is kept alive while it is idle.
    keep_alive: Duration,
    /// Whether it has been told that the path is suspected.
    pub(super) is_told: bool,
}

impl Path {
    pub(super) fn new(
        address: SocketAddr,
        rtt: Duration,
        len: usize,
        keep_alive: Duration,
        now: Instant,
    ) -> Self {
        Self {
            address,
            rtt,
            proven: len,
            answered: now,
            heard: Pulse::since(now),
            is_checked: false,
            probed: now,
            waiting: VecDeque::new(),
            loss: 0,
            is_lossy: false,
            keep_alive,
            is_told: false,
        }
    }

    /// Notes an answer to a probe of `len` bytes that was sent at `sent`.
    pub(super) fn answer(&mut self, sent: Instant, len: usize, now: Instant) {
        self.rtt = (self.rtt * 7 + now.since(sent)) / 8;
        self.proven = self.proven.max(len);
        self.note_loss(sent);
        self.waiting.retain(|probe| *probe > sent);
        (self.answered, self.is_told, self.is_checked) = (now, false, false);
    }

    /// When a probe was answered last, or one of the peer came.
    fn last_sign(&self) -> Instant {
        self.answered.max(self.heard.last())
    }

    /// Notes a probe of the peer on the tuple.
    pub(super) fn hear(&mut self, now: Instant) {
        self.heard.beat(now);
    }

    /// How long after a probe that is not answered the path may be a hole. One that is lost alone is made up for by the answer to the
    /// next one, which is there before.
    fn late_after(&self) -> Duration {
        (patience(self.rtt) / 2).max(probe_interval(self.rtt) + self.rtt * 9 / 8)
    }

    /// When the links to relays are to be checked if nothing comes: a NAT that has forgotten the path has forgotten them as well, and
    /// they must be there again when the path is left for them.
    pub(super) fn check_at(&self) -> Option<Instant> {
        let late = self.waiting.front().filter(|_| !self.is_checked).map(|since| *since + self.late_after());
        self.heard.missed_at(self.rtt).into_iter().chain(late).min()
    }

    /// Notes that the links have been checked.
    pub(super) fn note_check(&mut self) {
        self.heard.miss();
        self.is_checked = !self.waiting.is_empty();
    }

    /// Notes that the probe of `sent` was answered, and those before it were not. A hole is no loss: it is suspected.
    fn note_loss(&mut self, sent: Instant) {
        if !self.waiting.contains(&sent) {
            return;
        }
        let lost = self.waiting.iter().filter(|probe| **probe < sent).count();
        let samples = std::iter::repeat_n(1000, lost.min(PROBES as usize)).chain([0]);
        for sample in samples {
            self.loss = (self.loss * (LOSS_MEMORY - 1) + sample) / LOSS_MEMORY;
        }
        self.is_lossy = self.loss >= if self.is_lossy { CLEAN } else { LOSSY };
    }

    /// The share of probes without an answer, in percent.
    pub(super) const fn loss_percent(&self) -> u32 {
        self.loss / 10
    }

    /// Notes a probe.
    pub(super) fn probe(&mut self, now: Instant) {
        self.probed = now;
        if self.waiting.len() < MOST_WAITING {
            self.waiting.push_back(now);
        }
    }

    /// When the path is suspected if no answer comes.
    pub(super) fn suspected_at(&self) -> Instant {
        let silent = self.waiting.front().map(|since| *since + silent_after(self.rtt));
        let stale = self.last_sign() + self.keep_alive + STALE;
        silent.map_or(stale, |silent| silent.min(stale))
    }

    /// Whether the path may be a hole, so that data goes over the relay as well.
    pub(crate) fn is_suspected(&self, now: Instant) -> bool {
        self.suspected_at() <= now
    }

    /// Suspects the path from now on, because this node or the peer has moved.
    pub(super) fn suspect(&mut self, now: Instant) {
        self.waiting = VecDeque::from([now - patience(self.rtt)]);
        // That the path does not answer from now on says nothing of how long the NATs keep a mapping.
        self.answered = now;
    }

    /// Whether the path was idle for so long that it may be a hole.
    pub(super) fn is_doubtful(&self, now: Instant) -> bool {
        now.since(self.last_sign()) >= DOUBT
    }

    /// Whether the path answers, and loses little.
    pub(super) fn is_good(&self, now: Instant) -> bool {
        !self.is_lossy && !self.is_suspected(now)
    }

    /// What to tell of the path of `peer` when it has begun to lose too much, does so no longer, or has answered after it was
    /// suspected.
    pub(super) const fn event(&self, peer: NodePublic) -> Event {
        let address = self.address;
        if self.is_lossy { Event::Lossy { peer, address } } else { Event::Direct { peer, address } }
    }

    /// When a suspected path is given up.
    pub(super) fn given_up_at(&self) -> Option<Instant> {
        self.waiting.front().map(|since| *since + patience(self.rtt) + GIVE_UP)
    }

    /// When the next probe is due, if the last one has not been answered.
    pub(super) fn again_at(&self, now: Instant) -> Option<Instant> {
        let interval = if self.is_suspected(now) { SUSPECTED_PROBES } else { probe_interval(self.rtt) };
        (!self.waiting.is_empty()).then(|| self.probed + interval)
    }

    /// Whether a probe is due because data is sent.
    pub(super) fn is_probe_due(&self, now: Instant) -> bool {
        let interval = if self.is_lossy { SUSPECTED_PROBES } else { probe_interval(self.rtt) };
        now.since(self.probed) >= interval
    }

    /// When the path is probed although nothing is sent.
    pub(super) fn keep_alive_at(&self, is_ours: bool) -> Instant {
        // A NAT that forgets early may let in only what follows a packet of the other peer.
        let is_learned = self.keep_alive < KEEP_ALIVE;
        let other = if is_ours || is_learned { Duration::ZERO } else { KEEP_ALIVE_OTHER };
        self.last_sign() + self.keep_alive + other
    }

    /// How often to keep a path alive from now on, if this one was idle for so long before its first probe without an answer that
    /// a NAT may have forgotten it.
    pub(super) fn learned_keep_alive(&self) -> Option<Duration> {
        let first = self.waiting.front()?;
        let idle = first.since(self.last_sign());
        (idle > LEAST_KEEP_ALIVE).then(|| (idle / 2).clamp(LEAST_KEEP_ALIVE, self.keep_alive))
    }

    /// Keeps the path alive so often from now on.
    pub(super) const fn keep_alive_every(&mut self, interval: Duration) {
        self.keep_alive = interval;
    }

    /// Whether a tuple that was answered in `rtt` is better than this path. A local one is, and IPv6 before IPv4; the faster
    /// one if it is much faster.
    pub(super) fn is_worse_than(&self, address: SocketAddr, rtt: Duration) -> bool {
        let rank = |address: SocketAddr| (is_local(address.ip()), address.is_ipv6());
        let (ours, theirs) = (rank(self.address), rank(address));
        if ours == theirs {
            return rtt * 100 < self.rtt * (100 - HYSTERESIS);
        }
        // The preferred one may be a little slower, not much.
        theirs > ours && rtt * 100 <= self.rtt * (100 + HYSTERESIS)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> Instant {
        Instant::from(Duration::from_millis(millis))
    }

    fn path(rtt: u64) -> Path {
        let address = "192.0.2.1:7".parse().expect("an address");
        Path::new(address, Duration::from_millis(rtt), 124, KEEP_ALIVE, at(0))
    }

    #[test]
    fn a_path_without_an_answer_is_suspected_in_time_for_the_data_and_given_up_later() {
        for (rtt, patience) in [(40, 250), (120, 360)] {
            let mut path = path(rtt);
            assert!(path.is_probe_due(at(patience / 4 + 1)) && !path.is_probe_due(at(patience / 4 - 1)));
            path.probe(at(1000));
            path.probe(at(1010));
            let suspected = 1000 + patience * 3 / 4 + 1;
            assert!(path.is_suspected(at(suspected)) && !path.is_suspected(at(suspected - 2)));
            assert_eq!(path.given_up_at(), Some(at(1000 + patience + 3000)));
            path.answer(at(1010), 124, at(suspected));
            assert!(!path.is_suspected(at(suspected)) && path.again_at(at(suspected)).is_none());
        }
    }

    #[test]
    fn an_answer_says_nothing_of_probes_that_were_sent_after_the_one_that_it_is_to() {
        let mut path = path(120);
        for sent in [1000, 1090] {
            path.probe(at(sent));
        }
        path.answer(at(1000), 124, at(1120));
        path.probe(at(1180));
        assert!(path.is_suspected(at(1360)) && !path.is_suspected(at(1359)), "270 ms after the second one");
    }

    #[test]
    fn an_idle_path_is_kept_alive_and_suspected_when_it_was_not() {
        let mut path = path(40);
        assert_eq!((path.keep_alive_at(true), path.keep_alive_at(false)), (at(25_000), at(32_000)));
        assert_eq!(path.learned_keep_alive(), None);
        assert!(!path.is_doubtful(at(7999)) && path.is_doubtful(at(8000)));
        assert!(!path.is_suspected(at(39_999)) && path.is_suspected(at(40_000)));
        path.hear(at(30_000));
        assert!(!path.is_suspected(at(69_999)) && path.is_suspected(at(70_000)));
    }

    #[test]
    fn a_path_that_is_dead_after_it_was_idle_is_to_be_kept_alive_twice_as_often() {
        for (idle, kept, learned) in [
            (25_000, 25_000, Some(12_500)),
            (12_500, 12_500, Some(6250)),
            (6250, 6250, Some(5000)),
            (5000, 5000, None),
            (120_000, 25_000, Some(25_000)),
        ] {
            let mut path = path(40);
            path.keep_alive_every(Duration::from_millis(kept));
            path.probe(at(idle));
            assert_eq!(path.learned_keep_alive(), learned.map(Duration::from_millis), "{idle} ms");
            path.suspect(at(idle + 1000));
            assert_eq!(path.learned_keep_alive(), None, "the peer has moved");
        }
    }

    #[test]
    fn both_peers_keep_a_path_alive_that_was_forgotten() {
        let mut path = path(40);
        path.keep_alive_every(Duration::from_secs(6));
        assert_eq!((path.keep_alive_at(true), path.keep_alive_at(false)), (at(6000), at(6000)));
    }

    #[test]
    fn a_path_that_loses_much_is_left_and_taken_again_when_it_loses_little() {
        let mut path = path(40);
        let mut now = 0;
        // One of so many probes is lost, until the path is as `is_lossy` says. Returns how many that took.
        let mut until = |path: &mut Path, one_in: u64, is_lossy: bool| {
            (1..=1000).find(|number| {
                now += 60;
                path.probe(at(now));
                if number % one_in != 0 {
                    path.answer(at(now), 124, at(now + 40));
                }
                path.is_lossy == is_lossy
            })
        };
        assert_eq!(until(&mut path, 10, true), None, "5 % in each direction");
        let left = until(&mut path, 2, true);
        assert!(left.is_some_and(|probes| (20..60).contains(&probes)), "every other one: {left:?}");
        assert_eq!(until(&mut path, 5, false), None, "one in five");
        let back = until(&mut path, 1001, false);
        assert!(back.is_some_and(|probes| (10..60).contains(&probes)), "none: {back:?}");
    }

    #[test]
    fn a_hole_counts_as_a_few_lost_probes() {
        let mut path = path(40);
        for number in 0..32 {
            path.probe(at(1000 + 100 * number));
        }
        path.answer(at(4100), 124, at(4140));
        assert!(!path.is_lossy && (5..20).contains(&path.loss_percent()), "{}", path.loss_percent());
    }

    #[test]
    fn a_path_gives_way_to_one_that_is_local_or_much_faster() {
        let path = path(100);
        let rtt = Duration::from_millis;
        for (address, taken, kept) in [
            ("192.0.2.9:7", rtt(79), rtt(80)),
            ("[2001:db8::1]:7", rtt(120), rtt(121)),
            ("10.0.0.1:7", rtt(120), rtt(121)),
        ] {
            let address = address.parse().expect("an address");
            assert!(path.is_worse_than(address, taken) && !path.is_worse_than(address, kept), "{address}");
        }
    }

    #[test]
    fn the_round_trip_is_smoothed_and_the_largest_size_is_kept() {
        let mut path = path(40);
        path.answer(at(0), 1400, at(120));
        path.answer(at(150), 124, at(200));
        assert_eq!((path.rtt, path.proven), (Duration::from_millis(50), 1400));
    }
}
