//! Probes that wait for their answer, and bursts of them: a lost packet costs milliseconds and not seconds.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::Duration;

use towpath_wire::disco::message::TxId;
use towpath_wire::time::Instant;

/// How long an answer is waited for.
const FORGOTTEN: Duration = Duration::from_secs(5);
/// Probes of a peer that wait for their answer.
const MOST: usize = 128;
/// When the probes of a burst are sent, in milliseconds since its begin.
const BURST: [u64; 7] = [0, 5, 15, 25, 45, 75, 155];

/// A probe that waits for its answer.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Probe {
    tx: TxId,
    address: SocketAddr,
    pub(crate) sent: Instant,
    /// Bytes of the datagram.
    pub(crate) len: usize,
}

/// The probes of a peer that wait for their answers.
#[derive(Clone, Debug, Default)]
pub(crate) struct Probes(VecDeque<Probe>);

impl Probes {
    pub(crate) fn note(&mut self, tx: TxId, address: SocketAddr, len: usize, now: Instant) {
        while self.0.front().is_some_and(|oldest| now.since(oldest.sent) >= FORGOTTEN) || self.0.len() >= MOST
        {
            self.0.pop_front();
        }
        self.0.push_back(Probe { tx, address, sent: now, len });
    }

    /// The probe that an answer from `remote` is to. An answer counts once, and from the tuple that was probed.
    pub(crate) fn take(&mut self, tx: TxId, remote: SocketAddr, now: Instant) -> Option<Probe> {
        let is_answered = |probe: &Probe| probe.tx == tx && probe.address == remote;
        let probe = self.0.remove(self.0.iter().position(is_answered)?)?;
        (now.since(probe.sent) < FORGOTTEN).then_some(probe)
    }

    /// Whether a probe to `address` was sent within `time`.
    pub(crate) fn is_probed(&self, address: SocketAddr, time: Duration, now: Instant) -> bool {
        self.0.iter().any(|probe| probe.address == address && now.since(probe.sent) < time)
    }

    /// Forgets all, because they went out in another network.
    pub(crate) fn clear(&mut self) {
        self.0.clear();
    }
}

/// The probes of a whole burst.
pub(crate) const WHOLE: usize = BURST.len();
/// The probes of the bursts that follow one that was not answered.
pub(crate) const LATER: usize = 3;
/// The probes that answer a ping from an address, with which a ping causes less than three times its bytes.
pub(crate) const TRIGGERED: usize = 2;

/// A burst of probes to one address.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Burst {
    pub(crate) address: SocketAddr,
    begin: Instant,
    next: usize,
    steps: usize,
}

impl Burst {
    /// A burst of `steps` probes at most that begins at `begin`.
    pub(crate) fn new(address: SocketAddr, begin: Instant, steps: usize) -> Self {
        Self { address, begin, next: 0, steps: steps.min(BURST.len()) }
    }

    /// When its next probe is due. `None` when it is over.
    pub(crate) fn due(&self) -> Option<Instant> {
        let offset = BURST[..self.steps].get(self.next)?;
        Some(self.begin + Duration::from_millis(*offset))
    }

    /// Notes that a probe has been sent.
    pub(crate) const fn advance(&mut self) {
        self.next += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> Instant {
        Instant::from(Duration::from_millis(millis))
    }

    #[test]
    fn an_answer_counts_once_from_its_tuple_and_in_time() {
        let mut probes = Probes::default();
        let [here, there] = ["192.0.2.1:1", "192.0.2.1:2"].map(|text| text.parse().expect("an address"));
        let tx = |byte| TxId([byte; 12]);
        (0..2).for_each(|byte| probes.note(tx(byte), here, 124, at(0)));
        assert!(probes.take(tx(0), there, at(1)).is_none(), "from another address");
        assert!(probes.take(tx(9), here, at(1)).is_none(), "to no probe");
        assert!(probes.take(tx(0), here, at(1)).is_some_and(|probe| probe.len == 124));
        assert!(probes.take(tx(0), here, at(1)).is_none(), "again");
        assert!(probes.take(tx(1), here, at(5000)).is_none(), "too late");
        (0..=255).for_each(|byte| probes.note(tx(byte), here, 124, at(6000)));
        assert_eq!(probes.0.len(), MOST);
        assert!(probes.is_probed(here, Duration::from_millis(10), at(6009)));
        assert!(!probes.is_probed(here, Duration::from_millis(10), at(6010)));
    }

    #[test]
    fn a_burst_has_its_probes_at_growing_distances() {
        let mut burst = Burst::new("192.0.2.1:1".parse().expect("an address"), at(100), WHOLE);
        let mut due = Vec::new();
        while let Some(next) = burst.due() {
            due.push(next);
            burst.advance();
        }
        assert_eq!(due, [100, 105, 115, 125, 145, 175, 255].map(at));
        let mut one = Burst::new("192.0.2.1:1".parse().expect("an address"), at(100), 1);
        assert_eq!(one.due(), Some(at(100)));
        one.advance();
        assert_eq!(one.due(), None);
    }
}
